import pytest

from lightning_llmopt.preview.amounts import listed, short


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        (0, "0"), (1, "1"), (0.5, "0.5"), (999, "999"), (1_000, "1k"), (999_400, "999k"), (999_600, "1M"),
        (1_250_000, "1.25M"), (1.2e9, "1.2B"), (4.19e11, "419B"), (10**12, "1T"), (9.99e14, "999T"), (10**18, "1e+18"),
    ],
)  # fmt: skip
def test_three_digits_and_a_letter(amount, said):
    assert short(amount) == said


def test_a_list_says_how_many_it_leaves_out():
    names = [f"n{number}" for number in range(300)]
    assert listed(names, most=2, last=1) == "n0, n1, ... (297 more), n299"
    assert listed(["a", "b", "c"], most=1, last=1) == "a, ... (1 more), c"
    assert listed(names, most=1, between="; ") == "n0; ... (299 more)"


def test_a_list_that_fits_is_whole():
    assert listed(["a", "b", "c"], most=2, last=1) == "a, b, c"
    assert listed([], most=2) == ""
