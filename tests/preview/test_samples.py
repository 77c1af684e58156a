from itertools import pairwise

import pytest

from lightning_llmopt.preview import preview
from lightning_llmopt.preview.samples import Stretch, sampled, stretches
from lightning_llmopt.schedules import RECIPES, Phase, Schedule, cosine_restarts, wsd, wsd_s

SETTINGS = {
    "cosine_restarts": {"first_cycle": 100},
    "rewarm": {"first_warmup": 10},
    "sequence": {"parts": [(wsd(), None)]},
    "piecewise": {"points": {0: 1.0, "100%": 0.5}},
    "half_life": {"half_life": 10},
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("total_steps", [100, 1_999, 100_003])
def test_phases_cover_the_run_and_are_those_of_the_schedule(recipe, total_steps):
    spec = RECIPES[recipe](**SETTINGS.get(recipe, {}))
    schedule = spec.resolve(total_steps=total_steps)
    seen = preview(schedule, total_steps=total_steps)
    ends = [0, *(phase.end for phase in seen.phases)]
    assert [phase.begin for phase in seen.phases] == ends[:-1]
    assert ends[-1] == total_steps
    assert all(seen.phase_at(step) == schedule.phase_at(step).name for step in seen.steps)


@pytest.mark.parametrize("total_steps", [1, 2, 1_999, 2_000])
def test_a_short_run_is_sampled_whole(total_steps):
    assert sampled(total_steps, ()) == tuple(range(total_steps))


@pytest.mark.parametrize("total_steps", [2_001, 10**6, 10**12, 10**24])
def test_a_long_run_is_sampled_at_its_ends_and_on_both_sides_of_every_turn(total_steps):
    phases = stretches(wsd_s(periods=7, warmup=3).resolve(total_steps=total_steps), total_steps)
    steps = sampled(total_steps, phases)
    assert len(steps) <= 1_000 + 2 * len(phases)
    assert list(steps) == sorted(set(steps))
    assert {0, total_steps - 1} <= set(steps)
    assert len(phases) == 15
    assert {phase.begin for phase in phases} | {phase.end - 1 for phase in phases} <= set(steps)


def test_samples_are_nowhere_far_apart():
    steps = sampled(10**9, ())
    assert max(after - before for before, after in pairwise(steps)) <= 10**9 // 999 + 1


def test_ten_thousand_phases_are_thinned_evenly():
    total_steps = 1_000_000
    seen = preview(cosine_restarts(first_cycle=100, floor=0.1), total_steps=total_steps)
    assert len(seen.phases) == 10_000
    assert len(seen.steps) <= 2_000
    tops = [step for step, multiplier in zip(seen.steps, seen.multipliers, strict=True) if multiplier == 1.0]
    assert max(after - before for before, after in pairwise(tops)) <= total_steps // 499 + 100


def test_phases_are_cut_by_the_run_and_the_last_holds_to_its_end():
    schedule = Schedule(Phase("warmup", 2, 0.0, 1.0), Phase("none", 0, 1.0, 1.0), Phase("decay", 3, 1.0, 0.0))
    assert stretches(schedule, 2) == (Stretch("warmup", 0, 2),)
    assert stretches(schedule, 4) == (Stretch("warmup", 0, 2), Stretch("decay", 2, 4))
    assert stretches(schedule, 9) == (Stretch("warmup", 0, 2), Stretch("decay", 2, 9))


def test_a_phase_without_updates_at_the_end_gets_what_is_left():
    schedule = Schedule(Phase("warmup", 2, 0.0, 1.0), Phase("stable", 0, 1.0, 1.0))
    assert stretches(schedule, 5) == (Stretch("warmup", 0, 2), Stretch("stable", 2, 5))
    assert stretches(schedule, 2) == (Stretch("warmup", 0, 2),)


def test_a_function_has_no_phases():
    seen = preview(lambda step: 1.0, total_steps=3)
    assert seen.phases == ()
    assert seen.phase_at(2) == ""


def test_a_stretch_says_its_updates():
    assert str(Stretch("warmup", 0, 1)) == "warmup 0"
    assert str(Stretch("stable", 1_000, 20_000)) == "stable 1,000 to 19,999"
