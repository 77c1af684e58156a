"""What several models from one trunk cost, against the formula of the paper."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_llmopt.planning import branch_cost


def test_the_papers_example():
    cost = branch_cost(totals=[1_000, 2_000, 3_000, 4_000], decay=0.2)
    assert (cost.separate, cost.branched, cost.trunk) == (10_000, 5_200, 3_200)
    assert cost.saved == pytest.approx(0.48)


@given(st.lists(st.integers(1, 10**6).map(lambda n: 100 * n), min_size=1, max_size=9, unique=True), st.integers(1, 99))
def test_is_the_formula(totals, percent):
    cost, q = branch_cost(totals=totals, decay=percent / 100), percent / 100
    assert cost.branched == pytest.approx(max(totals) * (1 - q) + q * sum(totals))
    assert 0 <= cost.saved < 1
    assert [run.total for run in cost.runs] == sorted(totals)


def test_the_table():
    assert str(branch_cost(totals=[200, 100], decay=0.2)).splitlines() == [
        "run  trunk until  cooldown  new updates  alone (cosine)",
        "-------------------------------------------------------",
        "100           80        20          100             100",
        "200          160        40          120             200",
        "-------------------------------------------------------",
        "all          160        60          220             300",
        "saved: 26.7%",
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"totals": []}, r"totals must be different whole numbers of updates >= 1, got \[\]"),
        ({"totals": [5, 5]}, "totals must be different"),
        ({"totals": [5, 0]}, "totals must be different"),
        ({"totals": [5.5]}, "totals must be different"),
        ({"totals": [5], "decay": 1.0}, r"decay must be a part of the run in \(0, 1\), got 1.0"),
        ({"totals": [5], "decay": "20%"}, r"decay must be a part of the run in \(0, 1\), got '20%'"),
    ],
)
def test_refuses_what_it_cannot_be(wrong, message):
    with pytest.raises(ValueError, match=message):
        branch_cost(**wrong)
