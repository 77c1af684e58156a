"""Laws that every shape keeps, and the values that the papers give."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lightning_llmopt.schedules import SHAPES
from lightning_llmopt.schedules.shapes import shape_named

from exact import EXACT, exact_value, ulps

SETTINGS = {
    "polynomial": (3.0,),
    "lowered_linear": (0.7,),
    "piecewise": (0.6, 0.1),
    "power_law": (100.0, -0.5),
    "halving": (7.0,),
}
UNIT = [name for name in SHAPES if name not in ("exponential", "lowered_linear", "power_law", "halving")]
every_shape = pytest.mark.parametrize("name", SHAPES)
unit_shape = pytest.mark.parametrize("name", UNIT)
GRID = range(65)


def value(name, start, end, over, steps):
    return SHAPES[name](start, end, over, steps, *SETTINGS.get(name, ()))


@unit_shape
@pytest.mark.parametrize(("start", "end"), [(1.0, 0.0), (0.0, 1.0), (1.0, 0.1), (0.3, 0.7)])
def test_starts_at_its_start_and_ends_at_its_end(name, start, end):
    assert value(name, start, end, 0, 64) == start
    assert value(name, start, end, 64, 64) == end


@every_shape
@pytest.mark.parametrize("end", [0.1, 0.5])
def test_never_turns_back(name, end):
    values = [value(name, 1.0, end, over, 64) for over in GRID]
    assert values == sorted(values, reverse=True)
    if name in UNIT:
        rising = [value(name, end, 1.0, over, 64) for over in GRID]
        assert rising == sorted(rising)


ends = st.floats(0.001, 1.0)
lengths = st.one_of(st.integers(1, 100), st.integers(1, 2**63))


@every_shape
@given(start=ends, end=ends, steps=lengths, part=st.floats(0, 1), near=st.integers(0, 3))
@example(start=1.0, end=0.001, steps=10**9, part=1.0, near=1)
@example(start=0.001, end=1.0, steps=2**63, part=0.0, near=1)
def test_is_exact_to_four_units_in_the_last_place(name, start, end, steps, part, near):
    inside = int(part * steps)
    for over in {inside, min(near, steps), max(0, steps - near)}:
        if not 0 <= over <= steps or (name == "lowered_linear" and end > start):
            continue
        exact = exact_value(name, start, end, over, steps, *SETTINGS.get(name, ()))
        if exact > 1e-300:  # far below, doubles have no digits left to be right in
            assert ulps(value(name, start, end, over, steps), exact) <= 4


@unit_shape
@given(steps=lengths, near=st.integers(1, 3))
def test_is_exact_near_zero_at_either_end(name, steps, near):
    """With an end at 0 the relative error counts: the usual cosine loses every digit here."""
    over = min(near, steps)
    rise, fall = value(name, 0.0, 1.0, over, steps), value(name, 1.0, 0.0, steps - over, steps)
    settings = SETTINGS.get(name, ())
    assert ulps(rise, exact_value(name, 0.0, 1.0, over, steps, *settings)) <= 4
    assert ulps(fall, exact_value(name, 1.0, 0.0, steps - over, steps, *settings)) <= 4


def test_every_shape_has_an_exact_formula_to_be_held_against():
    assert {*EXACT, "power_law", "halving"} == SHAPES.keys()


AT_QUARTERS = {  # Dremov et al. 2025, the authors' code: factor at x = 0.25, 0.5, 0.75
    "linear": (0.75, 0.5, 0.25),
    "cosine": (0.853553, 0.5, 0.146447),
    "mirror_cosine": (0.646447, 0.5, 0.353553),
    "square": (0.9375, 0.75, 0.4375),
    "sqrt": (0.5, 0.292893, 0.133975),
    "lowered_linear": (0.525, 0.35, 0.175),
}
AREAS = {
    "linear": 1 / 2,
    "cosine": 1 / 2,
    "mirror_cosine": 1 / 2,
    "square": 2 / 3,
    "sqrt": 1 / 3,
    "lowered_linear": 0.35,
}


@pytest.mark.parametrize("name", AT_QUARTERS)
def test_has_the_values_and_the_area_of_the_paper(name):
    quarters = [value(name, 1.0, 0.0, over, 4) for over in (1, 2, 3)]
    assert quarters == pytest.approx(AT_QUARTERS[name], abs=5e-7)
    fine = [value(name, 1.0, 0.0, 2 * over + 1, 20_000) for over in range(10_000)]
    assert math.fsum(fine) / 10_000 == pytest.approx(AREAS[name], abs=1e-5)


def test_identities_between_shapes():
    for over in GRID:
        line, wave, mirror = (value(name, 1.0, 0.0, over, 64) for name in ("linear", "cosine", "mirror_cosine"))
        assert wave + mirror == pytest.approx(2 * line, abs=1e-15)
        root = value("sqrt", 1.0, 0.0, over, 64)
        assert (1 - root) ** 2 == pytest.approx(over / 64, abs=1e-15)
        assert SHAPES["lowered_linear"](1.0, 0.0, over, 64, 1.0) == pytest.approx(line, abs=1e-15)
        assert SHAPES["piecewise"](1.0, 0.0, over, 64) == pytest.approx(line, abs=1e-15)
        assert SHAPES["polynomial"](1.0, 0.0, over, 64, 1.0) == pytest.approx(line, abs=1e-15)


@pytest.mark.parametrize(
    ("written", "name", "settings"),
    [
        ("sqrt", "sqrt", ()),
        ("lowered_linear", "lowered_linear", ()),
        ("lowered_linear(0.5)", "lowered_linear", (0.5,)),
        (" piecewise( 0.6, 0.1 ) ", "piecewise", (0.6, 0.1)),
        ("polynomial(3)", "polynomial", (3.0,)),
    ],
)
def test_is_named_with_its_settings(written, name, settings):
    assert shape_named("shape", written) == (SHAPES[name], settings)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("banana", r"shape must be one of \['cosine', .*'square'\], got 'banana'"),
        ("", "shape must be one of .*, got ''"),
        (None, "shape must be one of .*, got None"),
        ("sqrt(0.5)", r"shape must be 'sqrt', got 'sqrt\(0.5\)'"),
        (
            "lowered_linear(0.5, 0.2)",
            r"shape must be 'lowered_linear', with settings as lowered_linear\(height: float = 0.7\)",
        ),
        ("lowered_linear(two)", r"shape must be 'lowered_linear', with settings as .*, got 'lowered_linear\(two\)'"),
        ("lowered_linear(1.5)", r"shares of the gap must be in \[0, 1\], got 'lowered_linear\(1.5\)'"),
        ("piecewise(0.5, nan)", r"shares of the gap must be in \[0, 1\], got"),
        ("polynomial(-1)", r"a power must be finite and > 0, got 'polynomial\(-1\)'"),
        ("power_law", r"shape must be 'power_law', with settings as power_law\(knee: float"),
        ("halving(0.5)", r"a half-life must be a whole number of updates >= 1, got 'halving\(0.5\)'"),
        ("power_law(0)", r"knee must be >= 1 update and the exponent < 0, got 'power_law\(0\)'"),
    ],
)
def test_refuses_what_is_no_shape(written, message):
    with pytest.raises(ValueError, match=message):
        shape_named("shape", written)


@pytest.mark.parametrize("power", [0.1, 0.5, 5.0, 10.0, 20.0, 50.0])
@given(steps=lengths, share=st.integers(0, 10**6))
def test_high_powers_lose_no_digits(power, steps, share):
    over = steps * share // 10**6
    exact = exact_value("polynomial", 1.0, 0.0, over, steps, power)
    if exact > 1e-300:
        assert ulps(SHAPES["polynomial"](1.0, 0.0, over, steps, power), exact) <= 4


@pytest.mark.parametrize("floor", [1e-30, 1e-12, 1e-8, 0.1])
@given(steps=lengths, share=st.integers(0, 10**6))
def test_low_floors_lose_no_digits(floor, steps, share):
    over = steps * share // 10**6
    for start, end in ((1.0, floor), (floor, 1.0)):
        exact = exact_value("exponential", start, end, over, steps)
        assert ulps(SHAPES["exponential"](start, end, over, steps), exact) <= 4
