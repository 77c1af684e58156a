"""What every recipe refuses, worded once."""

import inspect
import math

import pytest

from lightning_llmopt.schedules import RECIPES, constant, cosine, linear, one_cycle, piecewise, rewarm, sequence, wsd

NEEDED = {
    "piecewise": {"points": {0: 1.0, 5: 0.5}},
    "cosine_restarts": {"first_cycle": 10},
    "rewarm": {"first_warmup": 10},
    "sequence": {"parts": [(constant(), None)]},
}
BAD = {
    "warmup": [(-1, "warmup must be >= 0, got -1"), ("3 parsecs", "warmup must be updates .*, got '3 parsecs'")],
    "decay": [(-0.1, "decay must be"), ("banana", "decay must be")],
    "floor": [
        (1.5, r"floor must be a number in \[0, 1\] \(a share\), got 1.5"),
        (math.nan, "floor must be a number in .*, got nan"),
        ("10%", "floor must be a number in .*, got '10%'"),
        (True, "floor must be a number in .*, got True"),
    ],
    "shape": [("banana", r"shape must be one of \[.*\], got 'banana'")],
    "warmup_shape": [("banana", r"warmup_shape must be one of \[.*\], got 'banana'")],
    "warmup_start": [(-1, r"warmup_start must be a number in \[0, 1\]")],
}


def test_warmup_and_its_shape_are_arguments_of_every_recipe():
    for name in RECIPES:
        assert {"warmup", "warmup_shape"} <= takes(
            name
        ).keys() or name == "rewarm"  # its warmup is a share of the first
    assert "warmup_shape" in takes("rewarm")


def test_a_warmup_before_pieces_and_parts():
    curve = piecewise(points={0: 0.5, 8: 0.1}, warmup=4).resolve(total_steps=8)
    assert [round(curve(step), 3) for step in range(9)] == [0.125, 0.25, 0.375, 0.5, 0.5, 0.4, 0.3, 0.2, 0.1]
    joined = sequence(parts=[(linear(), 4), (constant(), None)], warmup=2, warmup_shape="square").resolve(
        total_steps=10
    )
    assert [joined(step) for step in range(7)] == [0.25, 1.0, 1.0, 0.75, 0.5, 0.25, 1.0]
    again = rewarm(first_warmup=8, share=0.5, start=0.2, warmup_shape="exponential").resolve(total_steps=10)
    assert again(0) == pytest.approx(0.2**0.75)


def takes(name):
    return inspect.signature(RECIPES[name]).parameters


@pytest.mark.parametrize(
    ("name", "argument", "value", "message"),
    [
        (name, argument, value, message)
        for name in RECIPES
        for argument, bad in BAD.items()
        if argument in takes(name)
        for value, message in bad
    ],
)
def test_every_recipe_refuses_it_by_name(name, argument, value, message):
    with pytest.raises(ValueError, match=message):
        RECIPES[name](**{**NEEDED.get(name, {}), argument: value})


def test_an_exponential_needs_both_ends_above_zero():
    with pytest.raises(ValueError, match=r"shape 'exponential' needs floor > 0, got 0.0"):
        wsd(shape="exponential")
    with pytest.raises(ValueError, match=r"warmup_shape 'exponential' needs warmup_start > 0, got 0.0"):
        cosine(warmup=5, warmup_shape="exponential")
    cosine(warmup_shape="exponential").resolve(total_steps=5)  # no warmup, no need
    schedule = wsd(warmup=4, decay=4, floor=0.01, shape="exponential", warmup_shape="exponential", warmup_start=0.01)
    values = [schedule.resolve(total_steps=10)(step) for step in (0, 3, 8, 10)]
    assert values == pytest.approx([0.01**0.75, 1.0, 0.1, 0.01])


@pytest.mark.parametrize(("law", "recipe"), [("halving(2)", "half_life"), ("power_law(5)", "inverse_sqrt or power")])
def test_a_law_in_updates_is_no_curve_between_two_ends(law, recipe):
    for make in (lambda: wsd(shape=law), lambda: cosine(warmup=4, warmup_shape=law), lambda: one_cycle(shape=law)):
        with pytest.raises(ValueError, match=f"shape must be a curve between two ends, .*; for that law use {recipe}"):
            make()


@pytest.mark.parametrize("shape", [[], {}, None, 3, set()])
def test_a_shape_that_is_no_text_is_refused(shape):
    with pytest.raises(ValueError, match="shape must be one of"):
        wsd(shape=shape)


def test_one_cycle_names_its_shape():
    with pytest.raises(ValueError, match="shape must be one of"):
        one_cycle(shape="banana")
