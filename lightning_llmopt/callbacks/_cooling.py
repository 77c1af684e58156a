"""How long a cooldown is that somebody asks for in the middle of a run."""

import math
from fractions import Fraction
from typing import Any

from .._lightning import MisconfigurationException, Trainer, training_timer
from ..schedules import Anneal, Duration, ScheduleSpec
from ._horizon import updates_in_epochs, updates_per_optimizer
from ._playing import Playing

_USUAL = Duration(Fraction(1, 5), "run")


def cooldown_length(anneal: Anneal, schedule: Any, playing: Playing, index: int, trainer: Trainer) -> tuple[int, str]:
    """Length of the fall in ticks, and the clock that it is played on.

    Raises:
        MisconfigurationException: If that clock is not counted in this run, or the Trainer ends before the fall.
    """
    duration = anneal.length() or _own_decay(schedule) or _USUAL
    if duration.unit == "epochs":
        duration = Duration(Fraction(updates_in_epochs(trainer, duration.amount)))
    if duration.relative:
        unit = playing.plan.horizon.unit if playing.plan.horizon.ticks is not None else playing.plan.unit
        behind = playing.clock.before(index)[unit]
        length = max(1, math.ceil(behind * duration.amount / (1 - duration.amount)))  # a part of what it will have been
    else:
        unit, length = duration.unit, duration.ticks()
    clock = playing.clock
    if unit != "updates" and unit not in clock.contents and not (unit == "seconds" and clock.timed):
        raise MisconfigurationException(
            f"anneal_now: a length of {duration} cannot be counted in this run. Write it in updates, or say "
            f"LRSchedule(..., anneal=Anneal(duration='{duration}')) from the start, so that {unit} are counted."
        )
    timer = training_timer(trainer)
    if unit == "seconds" and timer is not None and length > (left_over := int((timer.time_remaining() or 0) * 1e6)):
        raise MisconfigurationException(
            f"anneal_now: the fall takes {length / 1e6:g} s, and max_time leaves {max(0, left_over) / 1e6:.1f} s. "
            "Shorten it, or give the Trainer more max_time."
        )
    left = _updates_left(trainer, playing, index)
    if unit == "updates" and left is not None and length > left:
        raise MisconfigurationException(
            f"anneal_now: the fall takes {length} updates, and the Trainer stops after {left}. Shorten it, or give the "
            "Trainer more max_steps or max_epochs."
        )
    return length, unit


def _own_decay(schedule: Any) -> Duration | None:
    """Length of the fall that the schedule itself ends with, if it has one of known length."""
    if not isinstance(schedule, ScheduleSpec) or not schedule.phases:
        return None
    last = schedule.phases[-1]
    if last.duration is None or last.until or last.duration.amount == 0:
        return None
    return None if last.duration.relative and last.duration.amount == 1 else last.duration


def _updates_left(trainer: Trainer, playing: Playing, index: int) -> int | None:
    length = updates_per_optimizer(trainer)
    return None if length is None else max(0, length - playing.clock.counts[index])
