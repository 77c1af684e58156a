"""Schedules joined from pieces: cycles, drops, whole schedules, points.

Lengths, multipliers and the warmup are written as in ``named``.
"""

import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from .arguments import Length, between_ends, point, rising, share_of
from .durations import parse_duration
from .reading import Written, read_spec
from .registry import recipe
from .spec import CyclesSpec, PhaseSpec, ScheduleSpec, SequenceSpec


@recipe
def cosine_restarts(
    *,
    first_cycle: Length,
    cycle_factor: int = 1,
    floor: float = 0.0,
    warmup: Length = 0,
    warmup_shape: str = "linear",
    warmup_start: float = 0.0,
) -> ScheduleSpec:
    """Cosine falls that start again from the top (SGDR); each is ``cycle_factor`` times as long as the last.

    A run that ends within a cycle ends on its way down: choose lengths that add up to the run, such as
    ``first_cycle * (cycle_factor ** n - 1) / (cycle_factor - 1)``.

    Args:
        first_cycle: Length of the first cycle.
        cycle_factor: Each cycle's length over that of the one before [1], a whole number >= 1.
        floor: Multiplier at the end of a cycle [1].
        warmup: Length of a rise before the first cycle.
        warmup_shape: Curve of the rise, a key of ``SHAPES``.
        warmup_start: Multiplier where the rise begins [1].

    Raises:
        ValueError: If a length, shape, factor or multiplier is out of range.

    Source:
        Loshchilov & Hutter 2017 (SGDR), https://arxiv.org/abs/1608.03983.

    Example:
        >>> schedule = cosine_restarts(first_cycle=10, cycle_factor=2).resolve(total_steps=70)
        >>> [round(schedule(step), 5) for step in (0, 5, 9, 10, 20, 29, 30, 50, 69)]
        [1.0, 0.5, 0.02447, 1.0, 0.5, 0.00616, 1.0, 0.5, 0.00154]
    """
    if isinstance(cycle_factor, bool) or not isinstance(cycle_factor, int) or cycle_factor < 1:
        raise ValueError(f"cycle_factor must be a whole number >= 1, got {cycle_factor!r}.")
    first = parse_duration("first_cycle", first_cycle)
    if first.amount == 0:
        raise ValueError(f"first_cycle must be > 0, got {first_cycle!r}.")
    phases = (
        rising(warmup, warmup_shape, warmup_start),
        PhaseSpec("cycle", None, 1.0, share_of("floor", floor), "cosine"),
    )
    return CyclesSpec("cosine_restarts", phases, first, cycle_factor)


@recipe
def multi_step(
    *,
    milestones: Mapping[Length, float] | None = None,
    warmup: Length = 0,
    warmup_shape: str = "linear",
    warmup_start: float = 0.0,
) -> ScheduleSpec:
    """Rise, then a constant rate that drops at milestones; by default DeepSeek-LLM's two drops.

    Args:
        milestones: Multiplier from each point of the run on, points counted from its beginning; by
            default ``{"80%": 10 ** -0.5, "90%": 0.1}``, which is 31.6 % and 10 %.
        warmup: Length of the rise.
        warmup_shape: Curve of the rise, a key of ``SHAPES``.
        warmup_start: Multiplier where the rise begins [1].

    Raises:
        ValueError: If a length, shape or multiplier is out of range, or milestones are not in order.

    Source:
        DeepSeek-AI 2024 (DeepSeek LLM), https://arxiv.org/abs/2401.02954.

    Example:
        >>> schedule = multi_step(warmup=1).resolve(total_steps=10)
        >>> [round(schedule(step), 3) for step in (0, 7, 8, 9, 10)]
        [1.0, 1.0, 0.316, 0.1, 0.1]
    """
    chosen = dict(_in_order("milestones", {"80%": math.sqrt(0.1), "90%": 0.1} if milestones is None else milestones))
    ends = [point("milestones", at) for at in chosen]
    levels = [1.0, *(share_of("milestones", level) for level in chosen.values())]
    phases = [rising(warmup, warmup_shape, warmup_start)]
    for number, (level, end) in enumerate(zip(levels, [*ends, None], strict=True)):
        name = f"step {number}" if number else "stable"
        phases.append(PhaseSpec(name, end, level, level, until=end is not None))
    return ScheduleSpec("multi_step", tuple(phases))


@recipe
def sequence(
    *,
    parts: Sequence[tuple[Written, Length | None]],
    warmup: Length = 0,
    warmup_shape: str = "linear",
    warmup_start: float = 0.0,
) -> ScheduleSpec:
    """Whole schedules one after the other, each in a run of its own length.

    Args:
        parts: Pairs of a recipe (or its name, or its dict) and its length; at most one length is ``None`` and takes
            what is left over.
        warmup: Length of a rise before them.
        warmup_shape: Curve of the rise, a key of ``SHAPES``.
        warmup_start: Multiplier where the rise begins [1].

    Raises:
        ValueError: If there is no part, several have no length, or a length is out of range.

    Example:
        >>> from lightning_llmopt.schedules import constant, linear
        >>> schedule = sequence(parts=[(linear(floor=0.5), 4), (constant(), None)]).resolve(total_steps=6)
        >>> [schedule(step) for step in range(6)]
        [1.0, 0.875, 0.75, 0.625, 1.0, 1.0]
    """
    pairs = isinstance(parts, list | tuple) and all(isinstance(part, list | tuple) and len(part) == 2 for part in parts)
    if not pairs or not parts or sum(length is None for _, length in parts) > 1:
        raise ValueError(
            f"parts must be pairs of a recipe and its length, at most one of them None, got {reprlib.repr(parts)}."
        )
    read = []
    for written, length in parts:
        read.append((read_spec("parts", written), None if length is None else parse_duration("parts", length)))
    rise = rising(warmup, warmup_shape, warmup_start)
    if rise.duration is not None and rise.duration.amount:
        read.insert(0, (ScheduleSpec("warmup", (replace(rise, duration=None),)), rise.duration))
    return SequenceSpec("sequence", (), tuple(read))


@recipe
def piecewise(
    *,
    points: Mapping[Length, float],
    shape: str = "linear",
    warmup: Length = 0,
    warmup_shape: str = "linear",
    warmup_start: float = 0.0,
) -> ScheduleSpec:
    """A curve through points that you choose, for anything that has no name.

    Args:
        points: Multiplier at each point of the run, in order, the first at 0. The last value holds.
        shape: Curve between neighbours, a key of ``SHAPES`` with its settings.
        warmup: Length of a rise to the first value, from where the curve goes on to the second point.
        warmup_shape: Curve of the rise, a key of ``SHAPES``.
        warmup_start: Multiplier where the rise begins [1].

    Raises:
        ValueError: If the first point is not at 0, two are the same, or a value is negative; when it is
            resolved, if they are not in order.

    Example:
        >>> schedule = piecewise(points={0: 1.0, "50%": 0.2, "100%": 0.1}).resolve(total_steps=8)
        >>> [round(schedule(step), 3) for step in (0, 2, 4, 6, 8)]
        [1.0, 0.6, 0.2, 0.15, 0.1]
    """
    places = list(_in_order("points", points))
    if not places or parse_duration("points", places[0][0]).amount != 0:
        raise ValueError(f"points must begin at 0, got {points!r}.")
    for _, value in places:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"points must have finite multipliers >= 0, got {value!r}.")
    between_ends("shape", shape)
    phases = [
        PhaseSpec(f"piece {number}", point("points", at), float(here), float(there), shape, until=True)
        for number, ((_, here), (at, there)) in enumerate(pairwise(places), start=1)
    ]
    last = float(places[-1][1])
    rise = replace(rising(warmup, warmup_shape, warmup_start), end=float(places[0][1]))
    return ScheduleSpec("piecewise", (rise, *phases, PhaseSpec("end", None, last, last)))


def _in_order(name: str, points: Mapping[Length, float]) -> list[tuple[Length, float]]:
    """The points as pairs; no two of them the same, however they are written."""
    if not isinstance(points, Mapping):
        raise ValueError(f"{name} must be a dict from points of the run to multipliers, got {reprlib.repr(points)}.")
    read = [parse_duration(name, at) for at in points]
    for index, duration in enumerate(read):
        if duration in read[:index]:
            raise ValueError(f"{name} must not name a point twice, got {list(points)[index]!r} again.")
    return list(points.items())
