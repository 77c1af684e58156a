"""Laws that every shape keeps; the values of single shapes stand with their recipes."""

import pytest
from mpmath import mp, mpf

from lightning_llmopt.schedules import SHAPES

every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
GRID = [step / 64 for step in range(65)]

EXACT = {
    "linear": lambda x: x,
    "cosine": lambda x: (1 - mp.cos(mp.pi * x)) / 2,
    "sqrt": mp.sqrt,
}


@every_shape
def test_starts_with_all_to_go_and_ends_with_all_gone(shape):
    assert shape(0.0, 1.0) == (0.0, 1.0)
    assert shape(1.0, 0.0) == (1.0, 0.0)


@every_shape
def test_gone_and_to_go_add_up(shape):
    for over in GRID:
        assert sum(shape(over, 1 - over)) == pytest.approx(1.0, abs=4e-16)


@every_shape
def test_never_turns_back(shape):
    gone, to_go = zip(*(shape(over, 1 - over) for over in GRID), strict=True)
    assert list(gone) == sorted(gone)
    assert list(to_go) == sorted(to_go, reverse=True)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("steps", [7, 1_000, 10**9, 2**53 + 1, 2**63 - 1])
def test_is_exact_near_both_ends_of_a_run_of_any_length(name, steps):
    mp.dps = 100  # the oracle loses half of them to its own cancellation
    for over in (1, 2, steps // 3, steps // 2, steps - 2, steps - 1):
        gone, to_go = SHAPES[name](over / steps, (steps - over) / steps)
        exact = EXACT[name](mpf(over) / steps)
        assert abs(gone - exact) <= 4 * mpf(2) ** -53 * exact
        assert abs(to_go - (1 - exact)) <= 4 * mpf(2) ** -53 * (1 - exact)


def test_every_shape_has_an_exact_formula_to_be_held_against():
    assert EXACT.keys() == SHAPES.keys()
