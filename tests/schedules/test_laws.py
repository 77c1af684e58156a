"""Laws over every recipe, whatever it is. ``make laws`` puts 100,000 cases to them and says how long that took."""

import copy
import gc
import json
import os
import pickle
import time
from itertools import pairwise

import hypothesis
import pytest
import yaml
from hypothesis import strategies as st

from lightning_llmopt.schedules import (
    RECIPES,
    by_name,
    constant,
    from_plain,
    linear,
    spec_from_plain,
    spec_to_plain,
    to_plain,
)

ALL_CASES = int(os.environ.get("LAWS_CASES", "0"))  # over the whole registry; 0 for the few of `make test`
CASES = -(-ALL_CASES // len(RECIPES)) if ALL_CASES else 200

# One draw a setting: Hypothesis takes longer over a draw than we do over a law.
shares = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)
lengths = st.integers(-400, 40).map(lambda number: number if number >= 0 else -number / 1000)
SHAPES = ["linear", "cosine", "mirror_cosine", "square", "sqrt", "polynomial(3)", "polynomial(0.5)"]
shapes = st.sampled_from([*SHAPES, "piecewise(0.5, 0.2)"])
falls = st.sampled_from([*SHAPES, "piecewise(0.5, 0.2)", "lowered_linear(0.7)"])
runs = st.integers(200, 2**63)
WARMUP = {"warmup": lengths, "warmup_shape": shapes}
ANY_WARMUP = {**WARMUP, "warmup_start": shares}
SETTINGS = {
    "constant": ANY_WARMUP,
    "linear": {**ANY_WARMUP, "floor": shares},
    "cosine": {**ANY_WARMUP, "floor": shares},
    "polynomial": {**ANY_WARMUP, "floor": shares, "power": st.integers(1, 100).map(lambda tenths: tenths / 10)},
    "inverse_sqrt": {
        "warmup": st.integers(1, 40),
        "cooldown": lengths,
        "shape": falls,
        "timescale": st.integers(1, 99),
    },
    "power": {"warmup": st.integers(1, 9), "knee": st.integers(9, 40), "decay": lengths, "shape": falls},
    "cosine_restarts": {
        **ANY_WARMUP,
        "floor": shares,
        "first_cycle": st.integers(10, 100).map(lambda percent: f"{percent}%"),
        "cycle_factor": st.integers(1, 4),
    },
    "one_cycle": {"warmup": lengths, "start": shares, "floor": shares, "shape": shapes},
    "wsd": {**ANY_WARMUP, "decay": lengths, "shape": falls, "floor": shares},
    "wsd_s": {"periods": st.integers(1, 6), "decay": shares, "shape": falls, "floor": shares, "warmup_shape": shapes},
    "multi_step": {
        **WARMUP,
        "milestones": st.tuples(shares, shares).map(lambda to: {"45%": max(to), "50%": min(to)}),
    },
    "half_life": {**WARMUP, "decay": lengths, "half_life": st.integers(1, 99)},
    "rewarm": {"first_warmup": lengths, "share": shares, "start": shares, "floor": shares, "shape": falls},
    "sequence": {
        "parts": st.tuples(lengths, lengths, shares).map(
            lambda of: [(linear(warmup=of[0], floor=of[2]), "45%"), (constant(warmup=of[1]), None)]
        )
    },
    "piecewise": {
        "points": st.tuples(shares, shares, shares).map(lambda to: {0: to[0], "30%": to[1], "60%": to[2]}),
        "shape": shapes,
    },
}
JUMPS = ["multi_step", "sequence", "wsd_s", "cosine_restarts"]
FALLS_ONCE = ["constant", "linear", "cosine", "polynomial", "inverse_sqrt", "power", "one_cycle", "wsd", "multi_step"]
FALLS_ONCE += ["half_life", "rewarm"]


def points(schedule, total_steps):
    """Both sides of every join, and places between."""
    joins = [0]
    for phase in schedule.phases:
        joins.append(joins[-1] + phase.steps)
    near = {join + side for join in joins for side in (-1, 0, 1)} - {-1}
    return sorted(near | {total_steps * part // 7 for part in range(8)})


def in_yaml(plain):
    """``plain`` written and read again, by the parser in C where there is one: it is ten times as fast."""
    text = yaml.dump(plain, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper))
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def stays_between_its_lowest_multiplier_and_one(name, settings, schedule, curve):
    lowest = {"warmup": settings.get("warmup_start", settings.get("start", 0.0))}
    floor = settings.get("floor", 0.0)
    assert all(lowest.get(schedule.phase_at(step).name, floor) <= value <= 1.0 for step, value in curve)


def goes_one_way_in_each_phase(name, settings, schedule, curve):
    pairs = list(pairwise((schedule.phase_at(step), value) for step, value in curve))
    for (phase, here), (next_phase, there) in pairs:
        if phase is next_phase:
            assert here <= there if phase.end > phase.start else here >= there
        if name in FALLS_ONCE and phase.name != "warmup":
            assert here >= there


def goes_through_its_joins(name, settings, schedule, curve):
    """A rise ends at its last update; everything else begins at its first, where the phase before it ended."""
    values, begin = dict(curve), 0
    for phase in schedule.phases:
        if phase.end > phase.start:
            assert values[begin + phase.steps - 1] == phase.end
        elif not phase.shape.startswith("lowered_linear"):
            assert values[begin] == phase.start
        begin += phase.steps
    if name not in JUMPS:
        assert all(before.end == after.start for before, after in pairwise(schedule.phases))


def holds_its_last_value(name, settings, schedule, curve):
    end = schedule.total_steps
    assert {schedule(step) for step in (end, end + 1, 2 * end, 2**70)} == {schedule.phases[-1].end}


def is_a_value(name, settings, schedule, curve):
    assert schedule == pickle.loads(pickle.dumps(schedule)) == copy.copy(schedule)
    assert schedule == from_plain(json.loads(json.dumps(to_plain(schedule))))


def is_a_description(name, settings):
    spec = RECIPES[name](**settings)
    assert spec == by_name(name, **settings) == pickle.loads(pickle.dumps(spec)) == copy.deepcopy(spec)
    assert spec == spec_from_plain(in_yaml(spec_to_plain(spec)))
    return spec


LAWS = [
    stays_between_its_lowest_multiplier_and_one,
    goes_one_way_in_each_phase,
    goes_through_its_joins,
    holds_its_last_value,
    is_a_value,
]


@pytest.fixture(scope="module")
def tally():
    """Cases and seconds of each recipe; summed up in one line when it was ``make laws``."""
    rows = {}
    gc.collect()
    gc.freeze()  # all of torch is there to be looked through otherwise, again and again
    yield rows
    if ALL_CASES:
        cases, seconds = (sum(column) for column in zip(*rows.values(), strict=True))
        print(f"\n{cases} cases over {len(rows)} recipes, {len(LAWS) + 1} laws, in {seconds:.1f} s")


def test_no_recipe_is_forgotten_here():
    assert SETTINGS.keys() == RECIPES.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_keeps_the_laws_of_a_schedule(name, tally):
    """A case is a recipe with its settings in a run of some length; each draw of settings is tried in two."""
    cases, began = 0, time.perf_counter()

    @hypothesis.settings(max_examples=-(-CASES // 2), deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(st.fixed_dictionaries(SETTINGS[name]), runs)
    def holds(settings, long_run):
        nonlocal cases
        spec = is_a_description(name, settings)
        for total_steps in (200 + long_run % 200, long_run):
            cases += 1
            schedule = spec.resolve(total_steps=total_steps)
            assert schedule.total_steps >= total_steps
            curve = [(step, schedule(step)) for step in points(schedule, total_steps)]
            for law in LAWS:
                law(name, settings, schedule, curve)

    holds()
    tally[name] = cases, time.perf_counter() - began
