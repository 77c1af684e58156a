"""Descriptions, resolved against the length of a run."""

import copy
import pickle

import pytest

from lightning_llmopt.schedules import Phase, PhaseSpec, Schedule, ScheduleSpec, constant, cosine, sequence, wsd, wsd_s


def test_the_phase_without_a_length_takes_what_is_left():
    schedule = wsd(warmup="2%", decay="20%", shape="sqrt").resolve(total_steps=2_000)
    assert schedule == Schedule(
        Phase("warmup", 40, 0.0, 1.0), Phase("stable", 1_560, 1.0, 1.0), Phase("decay", 400, 1.0, 0.0, "sqrt")
    )


def test_empty_phases_are_left_out():
    assert [phase.name for phase in wsd(warmup=0, decay="10%").resolve(total_steps=5).phases] == ["stable"]


@pytest.mark.parametrize("total_steps", [1, 2, 3])
def test_parts_of_the_run_fit_into_the_shortest_runs(total_steps):
    assert wsd(warmup="50%", decay="50%").resolve(total_steps=total_steps).total_steps == total_steps


def test_pieces_that_do_not_fit_show_the_arithmetic():
    with pytest.raises(ValueError, match=r"warmup 6 \(2%\) \+ decay 500 = 506 updates, but total_steps is 300"):
        wsd(warmup="2%", decay=500).resolve(total_steps=300)
    with pytest.raises(ValueError, match="warmup 11 = 11 updates, but total_steps is 10"):
        cosine(warmup=11).resolve(total_steps=10)


def test_a_run_without_a_known_end_suits_a_constant_rate():
    schedule = constant(warmup=2).resolve(total_steps=None)
    assert [schedule(step) for step in (0, 1, 2, 10**12)] == [0.5, 1.0, 1.0, 1.0]
    assert [schedule.phase_at(step).name for step in (0, 5)] == ["warmup", "stable"]
    assert constant().resolve(total_steps=None)(7) == 1.0


@pytest.mark.parametrize("spec", [cosine(), wsd(decay=10), constant(warmup="1%")])
def test_a_run_without_a_known_end_suits_nothing_else(spec):
    assert spec.needs_total_steps()
    with pytest.raises(
        ValueError, match=f"{spec.recipe} needs total_steps, the length of the run in updates; got None"
    ):
        spec.resolve(total_steps=None)


@pytest.mark.parametrize("total_steps", [0, -1, 2.0, True, float("inf"), "10"])
def test_refuses_a_length_that_is_none(total_steps):
    with pytest.raises(ValueError, match="total_steps must be a whole number of updates >= 1, got"):
        wsd().resolve(total_steps=total_steps)


def test_only_one_phase_can_take_what_is_left():
    twice = PhaseSpec("a", None, 1.0, 1.0), PhaseSpec("b", None, 1.0, 0.0)
    with pytest.raises(ValueError, match=r"mine: at most one phase may be without a duration, got \['a', 'b'\]"):
        ScheduleSpec("mine", twice)


def test_is_a_value():
    spec = wsd(warmup="2%", decay=10)
    assert spec == pickle.loads(pickle.dumps(spec)) == copy.deepcopy(spec)
    assert spec != wsd(warmup="2%", decay=11)


def test_a_schedule_may_count_tokens():
    schedule = wsd(warmup="1k tokens", decay="20%", shape="linear").resolve(total_steps=10_000, unit="tokens")
    assert [schedule(at, 500) for at in (0, 500, 1_000, 7_500, 8_000, 9_000, 10_000)] == [0.5, 1, 1, 1, 1, 0.5, 0]


def test_a_length_on_another_clock_is_refused_by_name():
    message = "wsd: a length of 1000 tokens cannot be told in a run that is counted in updates"
    with pytest.raises(ValueError, match=message):
        wsd(warmup="1k tokens").resolve(total_steps=10_000)


def test_the_sum_is_written_in_the_unit():
    with pytest.raises(ValueError, match=r"warmup 60.0 \+ decay 60.0 = 120 seconds, but total_steps is 90 seconds"):
        wsd(warmup="1 min", decay="60 s").resolve(total_steps=90 * 10**6, unit="seconds")


def test_a_recipe_prints_as_it_was_written():
    assert repr(cosine()) == str(cosine()) == "cosine()"
    spec = sequence(parts=[(wsd(warmup="2%", decay=0.2), 40), (wsd_s(periods=[3]), None)])
    assert repr(spec) == "sequence(parts=[(wsd(warmup='2%', decay=0.2), 40), (wsd_s(periods=[3]), None)])"
    assert eval(repr(spec)) == spec


def test_a_description_that_no_recipe_made_prints_its_phases():
    by_hand = ScheduleSpec("mine", (PhaseSpec("stable", None, 1.0, 1.0),))
    assert repr(by_hand).startswith("ScheduleSpec(recipe='mine', phases=(PhaseSpec(name='stable', duration=None,")


def test_settings_are_no_part_of_the_value():
    assert wsd(warmup="2%") == wsd(warmup=0.02)
    assert hash(wsd_s(periods=[3, 4])) == hash(wsd_s(periods=["3", 4]))
    assert copy.deepcopy(wsd(warmup=2)).settings == pickle.loads(pickle.dumps(wsd(warmup=2))).settings
