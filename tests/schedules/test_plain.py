"""Schedules and recipes through YAML, JSON, checkpoints and Lightning's command line, and back."""

import json
from collections.abc import Callable

import numpy
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from lightning_llmopt.schedules import (
    Phase,
    Schedule,
    ScheduleSpec,
    constant,
    cosine,
    from_plain,
    inverse_sqrt,
    linear,
    multi_step,
    piecewise,
    sequence,
    spec_from_plain,
    spec_to_plain,
    to_plain,
    wsd,
    wsd_s,
)

SCHEDULES = [
    wsd(warmup=3, decay="20%", floor=1e-05).resolve(total_steps=2**63),
    inverse_sqrt(warmup=7).resolve(total_steps=None),
    Schedule(Phase("a: 'b'", 1, 0, 1), Phase("übung", 0, 0.1 + 0.2, 5e-324, "piecewise(0.5, 0.25)")),
]
SPECS = [
    (wsd(), {"recipe": "wsd"}),
    (wsd(warmup="2%"), {"recipe": "wsd", "warmup": "2%"}),
    (wsd_s(periods=(4, 6), decay=0.5), {"recipe": "wsd_s", "periods": [4, 6], "decay": 0.5}),
    (multi_step(milestones={3: 0.5, "60%": 0.2}), {"recipe": "multi_step", "milestones": {3: 0.5, "60%": 0.2}}),
    (piecewise(points={0: 1, 0.5: 0.1}), {"recipe": "piecewise", "points": {0: 1, 0.5: 0.1}}),
    (
        sequence(parts=[(linear(floor=0.5), "40%"), (sequence(parts=[(constant(), None)]), None)]),
        {
            "recipe": "sequence",
            "parts": [
                [{"recipe": "linear", "floor": 0.5}, "40%"],
                [{"recipe": "sequence", "parts": [[{"recipe": "constant"}, None]]}, None],
            ],
        },
    ),
]


def through_yaml(plain, path):
    return yaml.safe_load(yaml.safe_dump(plain))


def through_json(plain, path):
    return json.loads(json.dumps(plain))


def through_a_checkpoint(plain, path):
    torch.save({"schedule": plain}, path / "a.ckpt")
    return torch.load(path / "a.ckpt", weights_only=True)["schedule"]


every_way = pytest.mark.parametrize("way", [through_yaml, through_json, through_a_checkpoint])


@every_way
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_comes_back_as_it_was(schedule, way, tmp_path):
    back = from_plain(way(to_plain(schedule), tmp_path))
    assert back == schedule
    assert repr(back) == repr(schedule)


@every_way
@pytest.mark.parametrize(("spec", "plain"), SPECS)
def test_a_recipe_comes_back_as_it_was(spec, plain, way, tmp_path):
    assert spec_to_plain(spec) == plain
    assert spec_from_plain(way(plain, tmp_path)) == spec


def test_what_is_written_is_made_of_plain_types_only():
    numbers = cosine(warmup=numpy.int64(3), floor=numpy.float64(0.5), warmup_shape=numpy.str_("sqrt"))
    assert [type(value) for value in spec_to_plain(numbers).values()] == [str, int, float, str]
    (phase,) = to_plain(Schedule(Phase(numpy.str_("a"), 1, numpy.float64(0.5), 1)))
    assert [type(value) for value in phase.values()] == [str, int, float, int, str]


def test_a_list_that_changes_afterwards_does_not_change_the_recipe():
    periods, milestones = [4, 6], {"50%": 0.5}
    spec, drops = wsd_s(periods=periods), multi_step(milestones=milestones)
    periods.append(10)
    milestones["70%"] = 0.1
    assert spec_to_plain(spec)["periods"] == [4, 6]
    assert spec_to_plain(drops)["milestones"] == {"50%": 0.5}


PHASE = {"name": "a", "steps": 1, "start": 0.0, "end": 1.0, "shape": "linear"}


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        (None, "phases must be a list of at least one phase, got None"),
        ([], r"phases must be a list of at least one phase, got \[\]"),
        (PHASE, "phases must be a list of at least one phase, got {"),
        ([PHASE, 3], r"phases\[1\] must be a dict with the keys \['name', 'steps', 'start', 'end', 'shape'\], got 3"),
        ([{"name": "a"}], r"phases\[0\] must be a dict with the keys .*, got {'name': 'a'}"),
        ([{**PHASE, "extra": 1}], r"phases\[0\] must be a dict with the keys"),
        ([{**PHASE, "name": 3}], r"phases\[0\]\['name'\] must be a string, got 3"),
        ([{**PHASE, "steps": "1"}], "Phase.steps must be a whole number of updates >= 0, got '1'"),
        ([{**PHASE, "end": None}], "Phase.end must be a finite number >= 0, got None"),
        ([{**PHASE, "shape": ["linear"]}], r"Phase.shape must be one of .*, got \['linear'\]"),
    ],
)
def test_what_is_no_schedule_is_refused(phases, message):
    with pytest.raises(ValueError, match=message):
        from_plain(phases)


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ("wsd", "plain must be a dict with a recipe and its settings, got 'wsd'"),
        ({"warmup": 3}, "plain must be a dict with a recipe and its settings, got {'warmup': 3}"),
        ({"recipe": "wsd", 3: 4}, "plain must be a recipe, its name or a dict with both"),
        ({"recipe": "wsdd"}, "schedule must be one of .*, got 'wsdd'"),
        ({"recipe": "wsd", "warm_up": 3}, "wsd takes .*, got 'warm_up'"),
        ({"recipe": "sequence", "parts": [[{"recipe": "x"}, None]]}, "schedule must be one of .*, got 'x'"),
    ],
)
def test_what_is_no_recipe_is_refused(plain, message):
    with pytest.raises(ValueError, match=message):
        spec_from_plain(plain)


def test_what_no_recipe_made_cannot_be_written():
    by_hand = ScheduleSpec("wsd", wsd().phases)
    changed = ScheduleSpec("wsd", linear().phases, settings=())
    for spec in (by_hand, changed, None):
        with pytest.raises(ValueError, match=r"spec must come unchanged from one of \['constant', "):
            spec_to_plain(spec)
    with pytest.raises(ValueError, match=r"schedule must be a Schedule, got wsd\(\)"):
        to_plain(wsd())


COMMAND_LINE = {
    "constant": constant(),
    "wsd, init_args: {warmup: 2, decay: 50%}": wsd(warmup=2, decay="50%"),
    "wsd_s, init_args: {periods: [4, 6]}": wsd_s(periods=[4, 6]),
    "multi_step, init_args: {milestones: {3: 0.5, 60%: 0.2}}": multi_step(milestones={3: 0.5, "60%": 0.2}),
    "spec_from_plain, init_args: {plain: {recipe: wsd, warmup: 2}}": wsd(warmup=2),
    "from_plain, init_args: {phases: [{name: a, steps: 4, start: 1.0, end: 0.5, shape: linear}]}": Schedule(
        Phase("a", 4, 1.0, 0.5)
    ),
    "sequence, init_args: {parts: [[{class_path: lightning_llmopt.schedules.linear, init_args: {floor: 0.5}}, 4], "
    "[{class_path: lightning_llmopt.schedules.constant}, null]]}": sequence(
        parts=[(linear(floor=0.5), 4), (constant(), None)]
    ),
}


@pytest.mark.parametrize("text", COMMAND_LINE)
def test_lightnings_command_line_reads_recipes_and_what_it_saved(text):
    """The argument is annotated as that of ``LRSchedule``; ``LightningCLI`` saves what ``dump`` writes."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--schedule", type=ScheduleSpec | Schedule | Callable[[int], float])
    config = parser.parse_string(f"schedule: {{class_path: lightning_llmopt.schedules.{text}}}")
    again = parser.parse_string(parser.dump(config))
    assert parser.instantiate(config).schedule == parser.instantiate(again).schedule == COMMAND_LINE[text]
