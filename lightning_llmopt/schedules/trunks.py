"""Schedules with a stable trunk that decays can be taken from, and going on with a finished run.

Lengths, multipliers and the warmup are written as in ``named``.
"""

import math
import reprlib
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from .arguments import Length, between_ends, falling, rise_and_fall, rising, share_of
from .durations import Duration, parse_duration
from .registry import recipe
from .spec import FilledSpec, HalfLifeSpec, PhaseSpec, ScheduleSpec

_MOST_PERIODS = 10_000


@recipe
def wsd(
    *,
    warmup: Length = 0,
    decay: Length = "20%",
    shape: str = "sqrt",
    floor: float = 0.0,
    warmup_shape: str = "linear",
    warmup_start: float = 0.0,
) -> ScheduleSpec:
    """Warm up, hold, decay: a run can be extended by moving only the decay.

    Args:
        warmup: Length of the rise.
        decay: Length of the fall from 1 to ``floor``, which ends with the run.
        shape: Curve of the fall, a key of ``SHAPES`` with its settings.
        floor: Multiplier at the end [1].
        warmup_shape: Curve of the rise, a key of ``SHAPES``.
        warmup_start: Multiplier where the rise begins [1].

    Raises:
        ValueError: If a length, shape or multiplier is out of range.

    Source:
        Hu et al. 2024 (MiniCPM), https://arxiv.org/abs/2404.06395; the "1-sqrt" fall and its length of
        20 %: Hägele et al. 2024, https://arxiv.org/abs/2405.18392.

    Example:
        >>> schedule = wsd(warmup="2%", decay="20%", shape="linear").resolve(total_steps=100)
        >>> [schedule(step) for step in (0, 1, 2, 79, 80, 90, 99, 100)]
        [0.5, 1.0, 1.0, 1.0, 1.0, 0.5, 0.05, 0.0]
    """
    fall = falling("decay", parse_duration("decay", decay), floor, shape)
    rise = rising(warmup, warmup_shape, warmup_start)
    return ScheduleSpec("wsd", (rise, PhaseSpec("stable", None, 1.0, 1.0), fall))


@recipe
def wsd_s(
    *,
    periods: int | Sequence[Length] = 4,
    decay: float = 0.1,
    warmup: Length = 0,
    shape: str = "linear",
    floor: float = 0.0,
    warmup_shape: str = "linear",
    warmup_start: float = 0.0,
) -> ScheduleSpec:
    """One trunk with a decay at the end of each period, after which the rate is back at its peak at once (WSD-S).

    Args:
        periods: How many of equal length, or the length of each; their decays are included.
        decay: Part of each period that is its decay [1], in [0, 1].
        warmup: Length of the rise, taken from the first period.
        shape: Curve of each decay, a key of ``SHAPES`` with its settings.
        floor: Multiplier at the end of each decay [1].
        warmup_shape: Curve of the rise, a key of ``SHAPES``.
        warmup_start: Multiplier where the rise begins [1].

    Raises:
        ValueError: If a length, shape or multiplier is out of range, or the periods do not fill the run.

    Source:
        Wen et al. 2024, https://arxiv.org/abs/2410.05192.

    Example:
        >>> schedule = wsd_s(periods=2, decay=0.5).resolve(total_steps=8)
        >>> [schedule(step) for step in range(9)]
        [1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 0.5, 0.0]
    """
    share = Fraction(repr(share_of("decay", decay)))
    phases, end = [rising(warmup, warmup_shape, warmup_start)], Fraction(0)
    for number, length in enumerate(_periods(periods), start=1):
        end += length.amount
        turn = end - length.amount * share
        if length.unit in ("updates", "tokens", "samples"):
            turn = Fraction(math.floor(turn))
        stable = replace(length, amount=turn)
        phases.append(PhaseSpec(f"stable {number}", stable, 1.0, 1.0, until=True))
        phases.append(replace(falling(f"decay {number}", replace(length, amount=end), floor, shape), until=True))
    return FilledSpec("wsd_s", tuple(phases))


@recipe
def half_life(
    *,
    warmup: Length = 0,
    decay: Length = "10%",
    half_life: Length = 5_000,
    warmup_shape: str = "linear",
    warmup_start: float = 0.0,
) -> ScheduleSpec:
    """Warm up, hold, then halve the rate every ``half_life``: MiniCPM's decay.

    Args:
        warmup: Length of the rise.
        decay: Length of the fall, which ends with the run.
        half_life: Length after which the rate is half of what it was; 5,000 updates in MiniCPM.
        warmup_shape: Curve of the rise, a key of ``SHAPES``.
        warmup_start: Multiplier where the rise begins [1].

    Raises:
        ValueError: If a length or shape is out of range.

    Source:
        Hu et al. 2024 (MiniCPM), https://arxiv.org/abs/2404.06395, with the exponent counted from the
        start of the decay (as printed it would be above 1).

    Example:
        >>> schedule = half_life(decay=4, half_life=2).resolve(total_steps=6)
        >>> [round(schedule(step), 4) for step in range(7)]
        [1.0, 1.0, 1.0, 0.7071, 0.5, 0.3536, 0.25]
    """
    half = parse_duration("half_life", half_life)
    if half.amount == 0:
        raise ValueError(f"half_life must be > 0, got {half_life!r}.")
    fall = HalfLifeSpec("decay", parse_duration("decay", decay), None, 0.0, half_life=half)
    rise = rising(warmup, warmup_shape, warmup_start)
    return ScheduleSpec("half_life", (rise, PhaseSpec("stable", None, 1.0, 1.0), fall))


@recipe
def rewarm(
    *,
    first_warmup: Length,
    share: float = 0.3,
    start: float = 0.1,
    floor: float = 0.1,
    shape: str = "cosine",
    warmup_shape: str = "linear",
) -> ScheduleSpec:
    """For continued pretraining: a second, shorter rise from where the first run ended, then a fall.

    Args:
        first_warmup: Length of the first run's warmup [updates].
        share: Length of the second over that of the first [1]; 0.2 to 0.5 is usual.
        start: Multiplier where the rise begins, the end of the first run [1].
        floor: Multiplier at the end of the run [1].
        shape: Curve of the fall, a key of ``SHAPES`` with its settings.
        warmup_shape: Curve of the rise, a key of ``SHAPES`` with its settings.

    Raises:
        ValueError: If a length, shape or multiplier is out of range.

    Source:
        Ibrahim et al. 2024, https://arxiv.org/abs/2403.08763 (re-warming and re-decaying).

    Example:
        >>> schedule = rewarm(first_warmup=10, share=0.2, shape="linear").resolve(total_steps=5)
        >>> [round(schedule(step), 3) for step in range(6)]
        [0.55, 1.0, 1.0, 0.7, 0.4, 0.1]
    """
    first = parse_duration("first_warmup", first_warmup)
    shorter = first.amount * Fraction(repr(share_of("share", share)))
    whole = first.unit in ("updates", "tokens", "samples")
    length = replace(first, amount=Fraction(math.floor(shorter)) if whole else shorter)
    between_ends("warmup_shape", warmup_shape)
    rise = PhaseSpec("warmup", length, share_of("start", start), 1.0, warmup_shape)
    return rise_and_fall("rewarm", rise, floor, shape)


def _periods(periods: int | Sequence[Length]) -> list[Duration]:
    """The length of each period."""
    listed = isinstance(periods, list | tuple)
    counted = isinstance(periods, int) and not isinstance(periods, bool) and 1 <= periods <= _MOST_PERIODS
    if not (listed or counted):
        raise ValueError(
            f"periods must be a number in [1, {_MOST_PERIODS}] or a list of lengths, got {reprlib.repr(periods)}."
        )
    if isinstance(periods, int):
        return [Duration(Fraction(1, periods), "run")] * periods
    lengths = [parse_duration("periods", length) for length in periods]
    if not lengths or len({length.unit for length in lengths if length.amount}) > 1:
        raise ValueError(f"periods must all be in one unit, updates or parts of the run or another, got {periods!r}.")
    return lengths
