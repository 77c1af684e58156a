"""Cycles, drops, sequences and points."""

import math

import pytest

from lightning_llmopt.schedules import constant, cosine, cosine_restarts, linear, multi_step, piecewise, sequence


def test_restarts_after_a_warmup_and_past_the_end():
    schedule = cosine_restarts(first_cycle=4, warmup=2, floor=0.2).resolve(total_steps=8)
    assert [schedule(step) for step in (0, 1, 2, 5, 6, 9, 10, 11)] == pytest.approx(
        [0.5, 1, 1, 0.2 + 0.8 * math.sin(math.pi / 8) ** 2, 1, 0.2 + 0.8 * math.sin(math.pi / 8) ** 2, 0.2, 0.2]
    )
    assert [phase.name for phase in schedule.phases] == ["warmup", "cycle 1", "cycle 2"]


def test_restarts_refuse_what_cannot_be():
    with pytest.raises(ValueError, match="at most 10000 cycles in a run of 1000000 updates, got 10 updates"):
        cosine_restarts(first_cycle=10).resolve(total_steps=1_000_000)
    with pytest.raises(ValueError, match="needs total_steps"):
        cosine_restarts(first_cycle=10).resolve(total_steps=None)
    for factor in (0, 1.5, True):
        with pytest.raises(ValueError, match=f"cycle_factor must be a whole number >= 1, got {factor!r}"):
            cosine_restarts(first_cycle=10, cycle_factor=factor)
    with pytest.raises(ValueError, match="first_cycle must be > 0, got 0"):
        cosine_restarts(first_cycle=0)


def test_deepseeks_drops():
    """DeepSeek LLM: 2,000 updates of warmup, 31.6 % after 80 % of the run, 10 % after 90 %."""
    schedule = multi_step(warmup=2_000).resolve(total_steps=100_000)
    assert [schedule(step) for step in (0, 1_999, 79_999)] == [1 / 2_000, 1.0, 1.0]
    assert [schedule(step) for step in (80_000, 89_999)] == [math.sqrt(0.1)] * 2
    assert [schedule(step) for step in (90_000, 10**9)] == [0.1] * 2


def test_drops_anywhere():
    schedule = multi_step(milestones={3: 0.5, "60%": 0.25}).resolve(total_steps=10)
    assert [schedule(step) for step in range(10)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]
    with pytest.raises(ValueError, match=r"step 1 is to end at update 2 \(2 updates\), .* end at update 3"):
        multi_step(milestones={3: 0.5, 2: 0.1}).resolve(total_steps=10)
    with pytest.raises(ValueError, match=r"stable is to end at update 8 \(80%\), .* end at update 9"):
        multi_step(warmup=9).resolve(total_steps=10)
    with pytest.raises(ValueError, match="milestones must come in order and after 0, got 0"):
        multi_step(milestones={0: 0.5})


def test_a_sequence_plays_each_part_in_its_own_run():
    schedule = sequence(parts=[(linear(warmup="50%"), 4), (cosine(floor=0.5), None)]).resolve(total_steps=8)
    alone = linear(warmup="50%").resolve(total_steps=4), cosine(floor=0.5).resolve(total_steps=4)
    assert [schedule(step) for step in range(8)] == [part(step) for part in alone for step in range(4)]
    assert schedule(100) == 0.5


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "parts must be pairs"),
        (5, "parts must be pairs"),
        (["a"], "parts must be pairs"),
        ([(linear(), None), (constant(), None)], "at most one of them None"),
        ([(5, 4)], "parts must be a recipe, its name or a dict with both, got 5"),
        ([("linaer", 4)], "got 'linaer'. Did you mean 'linear'"),
        ([(linear(), -4)], "parts must be >= 0, got -4"),
    ],
)
def test_a_sequence_refuses_what_is_no_part(parts, message):
    with pytest.raises(ValueError, match=message):
        sequence(parts=parts)


def test_a_sequence_must_fit():
    with pytest.raises(
        ValueError, match="sequence does not fill the run: its parts end at update 5, but total_steps is 10"
    ):
        sequence(parts=[(constant(), "50%")]).resolve(total_steps=10)
    with pytest.raises(ValueError, match=r"linear 4 \+ constant 7 = 11 updates, but total_steps is 10"):
        sequence(parts=[(linear(), 4), (constant(), 7)]).resolve(total_steps=10)


def test_points_are_joined_and_the_last_one_holds():
    schedule = piecewise(points={0: 0.0, 2: 1.0, "60%": 1.0, 8: 0.5}).resolve(total_steps=10)
    assert [schedule(step) for step in range(11)] == [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ({}, "points must begin at 0, got {}"),
        ({"10%": 1.0}, "points must begin at 0"),
        ({0: -1.0}, "points must have finite multipliers >= 0, got -1.0"),
        ({0: 1.0, 5: math.inf}, "points must have finite multipliers >= 0, got inf"),
    ],
)
def test_points_that_are_none_are_refused(points, message):
    with pytest.raises(ValueError, match=message):
        piecewise(points=points)


@pytest.mark.parametrize("points", [None, 5, "x", [0, 1]])
def test_points_that_are_no_dict_are_refused(points):
    with pytest.raises(ValueError, match="points must be a dict from points of the run to multipliers, got"):
        piecewise(points=points)


def test_a_point_named_twice_is_refused():
    with pytest.raises(ValueError, match="points must not name a point twice, got 4 again"):
        piecewise(points={0: 1.0, "4": 0.5, 4: 0.3})
    with pytest.raises(ValueError, match="milestones must not name a point twice, got 0.5 again"):
        multi_step(milestones={"50%": 0.5, 0.5: 0.1})


def test_points_out_of_order_are_refused_when_their_places_are_known():
    with pytest.raises(ValueError, match="piece 2 is to end at update 3"):
        piecewise(points={0: 1.0, "50%": 0.5, 3: 0.1}).resolve(total_steps=10)
