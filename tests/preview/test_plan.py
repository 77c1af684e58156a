import pickle

import numpy as np
import pytest

from lightning_llmopt.preview import Preview, preview, schedule_warnings
from lightning_llmopt.schedules import Phase, Schedule, constant, cosine, cosine_restarts, inverse_sqrt, wsd


def test_what_is_seen_is_the_schedule():
    spec = cosine(warmup="5%", floor=0.1)
    schedule = spec.resolve(total_steps=100_000)
    for given in (spec, schedule, schedule.__call__):
        seen = preview(given, total_steps=100_000)
        assert seen.multipliers == tuple(schedule(step) for step in seen.steps)
        assert seen.groups == (("rate", 1.0),)


def test_values_are_seen_at_the_same_updates():
    seen = preview(wsd(), total_steps=5_000, values={"beta2": lambda step: step / 5_000})
    assert seen.values == (("beta2", tuple(step / 5_000 for step in seen.steps)),)


def test_a_resolved_schedule_knows_its_length():
    seen = preview(wsd(warmup=5).resolve(total_steps=77))
    assert seen.total_steps == 77
    assert seen == preview(wsd(warmup=5), total_steps=77)


def test_a_recipe_without_an_end_is_shown_for_ten_times_what_has_one():
    assert preview(constant(warmup=20)).total_steps == 200
    seen = preview(inverse_sqrt(warmup=20))
    assert seen.total_steps == 200
    assert [str(phase) for phase in seen.phases] == ["warmup 0 to 19", "decay 20 to 199"]
    assert seen.warnings == ()


def test_warnings_are_those_of_the_schedule():
    schedule, groups = wsd().resolve(total_steps=100), {"all": 3e-4}
    seen = preview(schedule, total_steps=70, groups=groups)
    assert seen.warnings == schedule_warnings(schedule, total_steps=70, groups=groups) != ()


def test_a_preview_is_a_value():
    seen = preview(wsd(), total_steps=9, groups={"all": 1}, values={"beta2": lambda step: 1})
    assert isinstance(seen, Preview)
    assert pickle.loads(pickle.dumps(seen)) == seen
    assert hash(seen) == hash(preview(wsd(), total_steps=9, groups={"all": 1}, values={"beta2": lambda step: 1}))
    with pytest.raises(AttributeError):
        seen.total_steps = 3


def test_a_function_is_asked_for_few_of_many_updates():
    asked = []
    preview(lambda step: asked.append(step) or 1.0, total_steps=10**12)
    assert len(asked) < 2_100
    assert all(type(step) is int for step in asked)


def test_numbers_of_numpy_are_numbers():
    seen = preview(lambda step: np.float32(0.5), total_steps=2, groups={"all": np.float32(2.0)})
    assert seen.multipliers == (0.5, 0.5)
    assert {type(number) for number in (*seen.multipliers, seen.groups[0][1])} == {float}


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"schedule": 3}, "schedule must be a recipe, a Schedule or a function of the update number, got 3"),
        ({"schedule": "wsd"}, "schedule must be a recipe, a Schedule or a function of the update number, got 'wsd'"),
        ({"total_steps": None}, "wsd needs total_steps, the length of the run in updates; got None"),
        ({"schedule": cosine_restarts(first_cycle=3), "total_steps": None}, "needs total_steps to know its number"),
        ({"schedule": constant(), "total_steps": None}, "total_steps must be .* has no length, got None"),
        ({"schedule": lambda step: 1.0, "total_steps": None}, "total_steps must be .* has no length, got None"),
        ({"schedule": Schedule(Phase("a", 0, 1, 1)), "total_steps": None}, "total_steps must be .* got None"),
        ({"total_steps": 0}, r"total_steps must be a whole number of updates in \[1, 1e24\], got 0"),
        ({"total_steps": True}, r"total_steps must be a whole number of updates in \[1, 1e24\], got True"),
        ({"total_steps": 1e3}, r"total_steps must be a whole number of updates in \[1, 1e24\], got 1000.0"),
        ({"total_steps": 10**25}, r"total_steps must be a whole number of updates in \[1, 1e24\], got 1000"),
        ({"schedule": wsd(warmup=50)}, "does not fit into the run"),
        ({"groups": {}}, "groups must be a mapping with names as keys, got {}"),
        ({"groups": [1.0]}, r"groups must be a mapping with names as keys, got \[1.0\]"),
        ({"values": [len]}, "values must be a mapping with names as keys, got"),
        ({"groups": {0: 1.0}}, "names of groups and values must be printable .* got 0"),
        ({"groups": {"": 1.0}}, "names of groups and values must be printable .* got ''"),
        ({"values": {"a\x1b[2J": abs}}, r"names of groups and values must be printable .* got 'a\\x1b\[2J'"),
        ({"groups": {"a": 1.0}, "values": {"a": abs}}, r"names of groups and values must differ, got \['a'\] in both"),
        ({"values": {"rate": abs}}, r"names of groups and values must differ, got \['rate'\] in both"),
        ({"values": {str(n): abs for n in range(21)}}, "values must be at most 20 curves, got 21"),
        ({"groups": {"a": -1.0}}, r"groups\['a'\] must be a finite base rate >= 0, got -1.0"),
        ({"groups": {"a": float("nan")}}, r"groups\['a'\] must be a finite base rate >= 0, got nan"),
        ({"groups": {"a": True}}, r"groups\['a'\] must be a finite base rate >= 0, got True"),
        ({"groups": {"a": "1"}}, r"groups\['a'\] must be a finite base rate >= 0, got '1'"),
        ({"tokens_per_update": 0}, "tokens_per_update must be a finite number > 0, got 0"),
        ({"tokens_per_update": float("inf")}, "tokens_per_update must be a finite number > 0, got inf"),
        ({"tokens_per_update": "4M"}, "tokens_per_update must be a finite number > 0, got '4M'"),
        ({"unit": ""}, "unit must be a printable word, got ''"),
        ({"unit": "a\n"}, r"unit must be a printable word, got 'a\\n'"),
        ({"values": {"beta2": 0.9}}, r"values\['beta2'\] must be a function of the update number, got 0.9"),
        ({"values": {"beta2": lambda step: "x"}}, "beta2 must be a finite number at every update, got 'x' at update 0"),
        (
            {"schedule": lambda step: 2.0 - step},
            "schedule must be a finite number >= 0 at every update, got -1.0 at update 3",
        ),
        (
            {"schedule": lambda step: float("nan")},
            "schedule must be a finite number >= 0 at every update, got nan at update 0",
        ),
    ],
)
def test_bad_input_is_refused(arguments, rule):
    with pytest.raises(ValueError, match=rule):
        preview(**{"schedule": wsd(), "total_steps": 20, **arguments})
