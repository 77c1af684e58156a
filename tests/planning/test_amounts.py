import pytest

from lightning_llmopt.planning.amounts import parse_bytes, parse_count, shown, shown_count, unit_of


@pytest.mark.parametrize(
    ("amount", "expected"),
    [("80 GB", 80 * 10**9), ("80GiB", 80 * 2**30), ("0.5 TB", 5 * 10**11), (1, 1), ("79.1 GiB", 84_932_978_278)],
)
def test_gb_are_powers_of_1000_and_gib_of_1024(amount, expected):
    assert parse_bytes(amount) == expected


@pytest.mark.parametrize("amount", ["80", "80 gb", "GB", "-1 GB", "0 GB", 0, -5, True, 1.5, None, "0.1 B"])
def test_what_is_no_amount_is_refused(amount):
    with pytest.raises(ValueError, match=r"memory must be a number of bytes >= 1, or a number with one of B, kB"):
        parse_bytes(amount)


@pytest.mark.parametrize(
    "size",
    [
        "B", "70 X", "-3B", 0, True, None, "0.1", 0.5, 7.5, float("nan"), float("inf"),
        "1__0", "_1", "7e", "7,00", "1e-3", "1e99",
    ],
)  # fmt: skip
def test_what_is_no_size_is_refused(size):
    with pytest.raises(ValueError, match=r"model must be a number of parameters such as '70B', .*, got"):
        parse_count(size)


def test_sizes_are_exact():
    assert [parse_count(size) for size in ("0.1B", "1.1B", "7b", 12)] == [10**8, 11 * 10**8, 7 * 10**9, 12]
    assert [parse_count(size) for size in ("7e9", "7E+9", "1.3e9", 7e9, "70_000", "1,234,567")] == [
        7 * 10**9, 7 * 10**9, 13 * 10**8, 7 * 10**9, 70_000, 1_234_567,
    ]  # fmt: skip


def test_what_is_shown_is_rounded_once_and_never_looks_like_nothing():
    assert [shown(amount, "GB") for amount in (9_994_999_999, 9_996_000_000, 99_960_000_000, 1)] == [
        "9.99", "10.0", "100", "<.01",
    ]  # fmt: skip
    assert shown(2**30, "GiB") == "1.00"
    assert (shown_count(10**12), shown_count(6_738_415_616), shown_count(99_960_000)) == ("1.00 T", "6.74 B", "100 M")
    assert (unit_of("80GiB"), unit_of("80 GB")) == ("GiB", "GB")
