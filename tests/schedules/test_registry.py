"""Laws over every recipe, whatever it is, and recipes by name."""

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_llmopt import schedules
from lightning_llmopt.schedules import RECIPES, by_name, constant, linear

lengths = st.one_of(st.integers(0, 40), st.floats(0, 0.4).map(lambda share: round(share, 4)))
shapes = st.sampled_from(
    ["linear", "cosine", "mirror_cosine", "square", "sqrt", "polynomial(3)", "piecewise(0.5, 0.2)"]
)
floors = st.floats(0, 1)
WARMUP = {"warmup": lengths, "warmup_shape": shapes}
SETTINGS = {
    "constant": WARMUP,
    "linear": {**WARMUP, "floor": floors},
    "cosine": {**WARMUP, "floor": floors},
    "polynomial": {**WARMUP, "floor": floors, "power": st.floats(0.1, 10)},
    "inverse_sqrt": {
        "warmup": st.integers(1, 40),
        "cooldown": lengths,
        "shape": shapes,
        "timescale": st.integers(1, 99),
    },
    "power": {"warmup": st.integers(1, 9), "knee": st.integers(9, 40), "decay": lengths, "shape": shapes},
    "cosine_restarts": {
        **WARMUP,
        "floor": floors,
        "first_cycle": st.integers(1, 50),
        "cycle_factor": st.integers(2, 4),
    },
    "one_cycle": {"warmup": lengths, "start": floors, "floor": floors, "shape": shapes},
    "wsd": {**WARMUP, "decay": lengths, "shape": shapes, "floor": floors},
    "wsd_s": {"periods": st.integers(1, 9), "decay": floors, "shape": shapes, "floor": floors, "warmup_shape": shapes},
    "multi_step": WARMUP,
    "half_life": {**WARMUP, "decay": lengths, "half_life": st.integers(1, 99)},
    "rewarm": {"first_warmup": lengths, "share": floors, "start": floors, "floor": floors, "shape": shapes},
    "sequence": {"parts": st.just([(linear(warmup=3), "40%"), (constant(), None)])},
    "piecewise": {"points": st.just({0: 1.0, "30%": 0.2, "60%": 0.9}), "shape": shapes},
}
FALLS_ONCE = ["constant", "linear", "cosine", "polynomial", "inverse_sqrt", "power", "one_cycle", "wsd", "multi_step"]
FALLS_ONCE += ["half_life", "rewarm"]
every_recipe = pytest.mark.parametrize("name", RECIPES)


def some(name):
    return st.tuples(st.fixed_dictionaries(SETTINGS[name]), st.integers(200, 2**63))


def points(schedule, total_steps):
    """Both sides of every join, and places between."""
    joins = [0]
    for phase in schedule.phases:
        joins.append(joins[-1] + phase.steps)
    near = {max(0, join + side) for join in joins for side in (-1, 0, 1)}
    return sorted({*near, *(total_steps * share // 23 for share in range(23)), total_steps, 2 * total_steps, 2**70})


def test_none_is_forgotten_here():
    assert SETTINGS.keys() == RECIPES.keys()
    assert all(RECIPES[name] is getattr(schedules, name) for name in RECIPES)


@every_recipe
@given(data=st.data())
def test_keeps_the_laws_of_a_schedule(name, data):
    settings, total_steps = data.draw(some(name))
    schedule = RECIPES[name](**settings).resolve(total_steps=total_steps)
    steps = points(schedule, total_steps)
    values = [schedule(step) for step in steps]

    assert all(0 <= value <= 1 for value in values)
    assert schedule.total_steps >= total_steps
    assert len({value for step, value in zip(steps, values, strict=True) if step >= schedule.total_steps}) == 1
    if name in FALLS_ONCE:
        after = [v for s, v in zip(steps, values, strict=True) if schedule.phase_at(s).name != "warmup"]
        assert after == sorted(after, reverse=True)
        before = [v for s, v in zip(steps, values, strict=True) if schedule.phase_at(s).name == "warmup"]
        assert before == sorted(before)


@every_recipe
@given(data=st.data())
def test_is_a_value(name, data):
    settings, total_steps = data.draw(some(name))
    spec = RECIPES[name](**settings)
    assert spec == RECIPES[name](**settings) == pickle.loads(pickle.dumps(spec)) == copy.deepcopy(spec)
    schedule = spec.resolve(total_steps=total_steps)
    assert schedule == spec.resolve(total_steps=total_steps) == pickle.loads(pickle.dumps(schedule))
    assert by_name(name, **settings) == spec


@every_recipe
@given(data=st.data())
def test_is_continuous_at_joins_where_it_says_so(name, data):
    if name in ("multi_step", "sequence", "wsd_s", "cosine_restarts"):
        return  # these jump, by intent
    settings, total_steps = data.draw(some(name))
    schedule = RECIPES[name](**settings).resolve(total_steps=total_steps)
    for before, after in zip(schedule.phases, schedule.phases[1:], strict=False):
        assert before.end == after.start


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (["cosine"], {}, r"schedule must be one of .*, got \['cosine'\]"),
        ("cosine", {"name": 3}, r"cosine takes .*, got 'name'"),
        ("cosin", {}, r"schedule must be one of \['constant', .*\], got 'cosin'"),
        ("cosine", {"warm_up": 3}, r"cosine takes \['floor', 'warmup', .*\], got 'warm_up'"),
        ("cosine_restarts", {}, r"cosine_restarts needs \['first_cycle'\], got \[\]"),
        ("cosine", {"warmup": -3}, "warmup must be >= 0, got -3"),
    ],
)
def test_refuses_what_it_does_not_know(name, settings, message):
    with pytest.raises(ValueError, match=message):
        by_name(name, **settings)
