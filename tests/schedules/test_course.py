"""Lengths in several units, against the same schedule on one clock."""

import json
from itertools import pairwise

import pytest

from lightning_llmopt.schedules import (
    Course,
    constant,
    cosine,
    cosine_restarts,
    half_life,
    inverse_sqrt,
    linear,
    multi_step,
    power,
    wsd,
)

TOKENS, SAMPLES, MICROSECONDS = 40, 4, 500_000


def place(update):
    return {
        "updates": update, "tokens": update * TOKENS, "samples": update * SAMPLES, "seconds": update * MICROSECONDS
    }  # fmt: skip


def played(course, updates, start=0):
    return [course(place(update), place(update + 1)) for update in range(start, updates)]


SAME = [
    (wsd(warmup="400 tokens", decay="20%"), wsd(warmup=10, decay="20%")),
    (wsd(warmup="40 samples", decay="800 tokens", shape="linear"), wsd(warmup=10, decay=20, shape="linear")),
    (wsd(warmup="5 s", decay="10 s", floor=0.1), wsd(warmup=10, decay=20, floor=0.1)),
    (cosine(warmup="400 tokens"), cosine(warmup=10)),
    (linear(warmup="0.05 min", floor=0.1), linear(warmup=6, floor=0.1)),
    (multi_step(milestones={"2000 tokens": 0.5, "80%": 0.1}), multi_step(milestones={50: 0.5, 80: 0.1})),
    (inverse_sqrt(warmup="400 tokens"), inverse_sqrt(warmup=10)),
    (inverse_sqrt(warmup=10, cooldown="800 tokens"), inverse_sqrt(warmup=10, cooldown=20)),
    (power(warmup=5, knee="400 tokens", decay="40 samples"), power(warmup=5, knee=10, decay=10)),
    (half_life(warmup="400 tokens", decay=20, half_life="80 tokens"), half_life(warmup=10, decay=20, half_life=2)),
]


@pytest.mark.parametrize(("mixed", "plain"), SAME, ids=lambda spec: spec.recipe)
@pytest.mark.parametrize("unit", ["updates", "tokens", "samples", "seconds"])
def test_even_updates_get_what_one_clock_would_give(mixed, plain, unit):
    course = Course(mixed, total=place(100)[unit], unit=unit)
    schedule = plain.resolve(total_steps=100)
    assert played(course, 110) == pytest.approx([schedule(update) for update in range(110)], rel=1e-12)


@pytest.mark.parametrize("stop", range(0, 100, 7))
@pytest.mark.parametrize("mixed", [SAME[0][0], SAME[1][0], SAME[7][0], SAME[9][0]], ids=lambda spec: spec.recipe)
def test_goes_on_from_its_state(mixed, stop):
    whole = played(Course(mixed, total=100, unit="updates"), 100)
    first, rest = (Course(mixed, total=100, unit="updates") for _ in range(2))
    played(first, stop)
    rest.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert played(rest, 100, stop) == whole[stop:]


def test_the_decay_ends_with_the_time_although_updates_become_slower():
    course, seconds, values = (
        Course(wsd(warmup=10, decay=200, shape="linear"), total=100 * 10**6, unit="seconds"),
        0,
        [],
    )
    update = 0
    while seconds < 100 * 10**6:
        here = {"updates": update, "tokens": 0, "samples": 0, "seconds": seconds}
        values.append(course(here, here | {"updates": update + 1}))
        update, seconds = update + 1, seconds + 50_000 + 50 * update
    assert values[:10] == [n / 10 for n in range(1, 11)]
    assert 0 < values[-1] < 0.02
    assert 150 < sum(value < 1 for value in values[10:]) < 201  # counted at the pace before they began
    assert values[10:] == sorted(values[10:], reverse=True)


def test_a_slow_start_is_no_pace():
    course, seconds = Course(wsd(decay=500), total=100 * 10**6, unit="seconds"), 0
    for update in range(40):
        here = {"updates": update, "tokens": 0, "samples": 0, "seconds": seconds}
        assert course(here, here | {"updates": update + 1}) == 1.0
        seconds += 5 * 10**6 if update in (0, 1) else 20_000


def test_a_time_that_ends_in_the_warmup_goes_down_from_there():
    course = Course(wsd(warmup=1_000, decay="50%", shape="linear"), total=100 * MICROSECONDS, unit="seconds")
    values = played(course, 100)
    assert values[:50] == [n / 1_000 for n in range(1, 51)]
    assert values[50:] == pytest.approx([0.05 * (1 - n / 50) for n in range(50)])


def test_without_an_end_it_has_none():
    course = Course(constant(warmup="400 tokens"), total=None, unit="updates")
    assert played(course, 20) == [*[n / 10 for n in range(1, 11)], *[1.0] * 10]


def test_uneven_batches_move_a_rise_to_where_they_end_and_a_fall_from_where_they_begin():
    course = Course(wsd(warmup="100 tokens", decay="100 tokens", shape="linear"), total=300, unit="tokens")
    ends = [0, 30, 90, 130, 210, 250, 300]
    places = [{"updates": n, "tokens": end, "samples": 0, "seconds": 0} for n, end in enumerate(ends)]
    values = [course(here, there) for here, there in pairwise(places)]
    assert values == [0.3, 0.9, 1.0, 1.0, 0.9, 0.5]


def test_names_the_phase():
    course = Course(wsd(warmup="80 tokens", decay="200 tokens"), total=10, unit="updates")
    names = []
    for update in range(11):
        course(place(update), place(update + 1))
        names.append(course.phase)
    assert names == ["warmup"] * 2 + ["stable"] * 3 + ["decay"] * 6


def test_what_must_be_counted_on_one_clock_is_refused_on_two():
    message = r"cosine_restarts must be counted on one clock, got lengths in tokens and updates\. Write them in updates"
    with pytest.raises(ValueError, match=message):
        Course(cosine_restarts(first_cycle="400 tokens"), total=100, unit="updates")


def test_what_cannot_fit_is_refused_with_the_sum():
    with pytest.raises(
        ValueError, match=r"wsd does not fit into the run: warmup 3.0 \+ decay 8.0 = 11 seconds.*10 seco"
    ):
        Course(wsd(warmup="3 s", decay="8 s"), total=10 * 10**6, unit="seconds")
