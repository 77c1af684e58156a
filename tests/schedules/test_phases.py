"""Phases and schedules: counting, edges, values."""

import copy
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_llmopt.schedules import SHAPES, Phase, Schedule

multipliers = st.floats(0, 10, allow_subnormal=False)
ANYWHERE = sorted(
    SHAPES.keys() - {"exponential", "lowered_linear", "power_law", "halving"}
)  # from any start to any end
phases = st.builds(Phase, st.just("phase"), st.integers(0, 2**63), multipliers, multipliers, st.sampled_from(ANYWHERE))


def test_a_rise_wastes_no_update_and_ends_at_its_end():
    rise = Phase("warmup", 4, 0.0, 1.0)
    assert [rise(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_a_fall_starts_at_its_start_and_reaches_its_end_one_update_after_the_last():
    schedule = Schedule(Phase("decay", 4, 1.0, 0.2))
    assert [schedule(step) for step in range(6)] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2, 0.2])


def test_phases_are_half_open():
    schedule = Schedule(Phase("a", 2, 1.0, 1.0), Phase("b", 0, 9.0, 9.0), Phase("c", 2, 3.0, 3.0))
    assert [schedule(step) for step in range(5)] == [1.0, 1.0, 3.0, 3.0, 3.0]
    assert [schedule.phase_at(step).name for step in range(5)] == ["a", "a", "c", "c", "c"]
    assert schedule.total_steps == 4


@given(phases, st.integers(0, 2**64))
def test_stays_between_start_and_end(phase, step):
    value = Schedule(phase)(step)
    assert min(phase.start, phase.end) <= value <= max(phase.start, phase.end)


@given(st.lists(phases, min_size=1, max_size=4), st.integers(0, 2**64))
def test_holds_the_end_value_for_ever(parts, extra):
    schedule = Schedule(*parts)
    assert schedule(schedule.total_steps + extra) == parts[-1].end


@given(phases)
def test_moves_only_one_way(phase):
    step = max(1, phase.steps // 50)
    values = [phase(at) for at in range(0, phase.steps, step)][:60]
    assert values == sorted(values, reverse=phase.end < phase.start)


def test_finds_its_phase_among_thousands():
    schedule = Schedule(*(Phase(str(number), number % 3, float(number), float(number)) for number in range(3_000)))
    played = [phase.start for phase in schedule.phases for _ in range(phase.steps)]
    assert [schedule(step) for step in range(0, 3_000, 7)] == played[::7]


def test_is_a_value():
    schedule = Schedule(Phase("warmup", 2, 0.0, 1.0), Phase("decay", 3, 1.0, 0.1, "cosine"))
    assert schedule == pickle.loads(pickle.dumps(schedule)) == copy.deepcopy(schedule)
    assert hash(schedule) == hash(copy.deepcopy(schedule))
    assert schedule != Schedule(*schedule.phases[:1])


def test_repr_spells_out_the_curve():
    schedule = Schedule(Phase("warmup", 2, 0.0, 1.0), Phase("decay", 3, 1.0, 0.1, "cosine"))
    assert eval(repr(schedule)) == schedule


def test_accepts_any_integer_and_nothing_else():
    numpy = pytest.importorskip("numpy")
    schedule = Schedule(Phase("decay", 4, 1.0, 0.0))
    assert schedule(numpy.int64(1)) == 0.75
    with pytest.raises(TypeError):
        schedule(1.0)
    with pytest.raises(ValueError, match="step must be >= 0, got -1"):
        schedule(-1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": 3}, "Phase.name must be a string, got 3"),
        ({"steps": -1}, "Phase.steps must be a whole number of updates >= 0, got -1"),
        ({"steps": 2.0}, "Phase.steps must be a whole number of updates >= 0, got 2.0"),
        ({"steps": True}, "Phase.steps must be a whole number of updates >= 0, got True"),
        ({"start": "0"}, "Phase.start must be a finite number >= 0, got '0'"),
        ({"start": -0.1}, "Phase.start must be a finite number >= 0, got -0.1"),
        ({"end": math.nan}, "Phase.end must be a finite number >= 0, got nan"),
        ({"end": math.inf}, "Phase.end must be a finite number >= 0, got inf"),
        ({"shape": "banana"}, r"Phase.shape must be one of \['cosine', .*, got 'banana'"),
        (
            {"shape": "exponential"},
            r"Phase.shape 'exponential' needs start and end above 0 \(a floor\), got 0.0 and 1.0",
        ),
    ],
)
def test_refuses_bad_values_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        Phase(**{"name": "phase", "steps": 1, "start": 0.0, "end": 1.0, **settings})


def test_refuses_what_is_no_phase():
    with pytest.raises(ValueError, match="Schedule takes Phases, one after the other, got 'warmup'"):
        Schedule("warmup")


def test_refuses_an_empty_schedule():
    with pytest.raises(ValueError, match="Schedule needs at least one phase, got none"):
        Schedule()
