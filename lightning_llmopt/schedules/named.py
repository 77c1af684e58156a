"""Schedules by their usual names, each spelled out as its phases.

Every recipe takes keyword arguments and returns a description; ``.resolve(total_steps=N)`` turns it into
a ``Schedule``. Lengths are updates (``2000``, ``"2000 steps"``) or parts of the run (``0.02``, ``"2%"``).
"""

from .durations import parse_duration
from .phases import check_shape
from .spec import PhaseSpec, ScheduleSpec

Length = int | float | str


def constant(*, warmup: Length = 0, warmup_shape: str = "linear") -> ScheduleSpec:
    """Rise to the base rate and stay there. The only recipe that runs without a known end.

    Args:
        warmup: Length of the rise from 0 to 1; update ``s`` of ``w`` gets ``(s + 1) / w`` when linear.
        warmup_shape: Curve of the rise, a key of ``SHAPES``.

    Raises:
        ValueError: If ``warmup`` is no length or ``warmup_shape`` is unknown.

    Example:
        >>> schedule = constant(warmup=4).resolve(total_steps=100)
        >>> [schedule(step) for step in (0, 1, 2, 3, 99)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return ScheduleSpec("constant", (_warmup(warmup, warmup_shape), PhaseSpec("stable", None, 1.0, 1.0)))


def linear(*, warmup: Length = 0, warmup_shape: str = "linear", floor: float = 0.0) -> ScheduleSpec:
    """Rise, then fall in a straight line to ``floor`` at the end of the run.

    Args:
        warmup: Length of the rise from 0 to 1.
        warmup_shape: Curve of the rise, a key of ``SHAPES``.
        floor: Multiplier at the end [1], in [0, 1].

    Raises:
        ValueError: If a length, shape or ``floor`` is out of range.

    Example:
        >>> schedule = linear(warmup=1, floor=0.5).resolve(total_steps=5)
        >>> [schedule(step) for step in range(6)]
        [1.0, 1.0, 0.875, 0.75, 0.625, 0.5]
    """
    decay = PhaseSpec("decay", None, 1.0, _checked_floor(floor))
    return ScheduleSpec("linear", (_warmup(warmup, warmup_shape), decay))


def cosine(*, warmup: Length = 0, warmup_shape: str = "linear", floor: float = 0.0) -> ScheduleSpec:
    """Rise, then fall along half a cosine wave to ``floor`` at the end of the run.

    Args:
        warmup: Length of the rise from 0 to 1.
        warmup_shape: Curve of the rise, a key of ``SHAPES``.
        floor: Multiplier at the end [1], in [0, 1]; 0.1 in GPT-3 and LLaMA.

    Raises:
        ValueError: If a length, shape or ``floor`` is out of range.

    Source:
        Loshchilov & Hutter 2017 (SGDR), https://arxiv.org/abs/1608.03983, eq. 5, one cycle.

    Example:
        >>> schedule = cosine(warmup="10%", floor=0.1).resolve(total_steps=20)
        >>> [round(schedule(step), 3) for step in (0, 1, 2, 11, 20)]
        [0.5, 1.0, 1.0, 0.55, 0.1]
    """
    decay = PhaseSpec("decay", None, 1.0, _checked_floor(floor), "cosine")
    return ScheduleSpec("cosine", (_warmup(warmup, warmup_shape), decay))


def wsd(
    *,
    warmup: Length = 0,
    decay: Length = "20%",
    shape: str = "sqrt",
    floor: float = 0.0,
    warmup_shape: str = "linear",
) -> ScheduleSpec:
    """Warm up, hold, decay: a run can be extended by moving only the decay.

    Args:
        warmup: Length of the rise from 0 to 1.
        decay: Length of the fall from 1 to ``floor``, which ends with the run.
        shape: Curve of the fall, a key of ``SHAPES``.
        floor: Multiplier at the end [1], in [0, 1].
        warmup_shape: Curve of the rise, a key of ``SHAPES``.

    Raises:
        ValueError: If a length, shape or ``floor`` is out of range.

    Source:
        Hu et al. 2024 (MiniCPM), https://arxiv.org/abs/2404.06395; the "1-sqrt" fall and its length of
        20 %: Hägele et al. 2024, https://arxiv.org/abs/2405.18392.

    Example:
        >>> schedule = wsd(warmup="2%", decay="20%", shape="linear").resolve(total_steps=100)
        >>> [schedule(step) for step in (0, 1, 2, 79, 80, 90, 99, 100)]
        [0.5, 1.0, 1.0, 1.0, 1.0, 0.5, 0.05, 0.0]
    """
    check_shape("shape", shape)
    return ScheduleSpec(
        "wsd",
        (
            _warmup(warmup, warmup_shape),
            PhaseSpec("stable", None, 1.0, 1.0),
            PhaseSpec("decay", parse_duration("decay", decay), 1.0, _checked_floor(floor), shape),
        ),
    )


def _warmup(warmup: Length, shape: str) -> PhaseSpec:
    check_shape("warmup_shape", shape)
    return PhaseSpec("warmup", parse_duration("warmup", warmup), 0.0, 1.0, shape)


def _checked_floor(floor: float) -> float:
    if isinstance(floor, bool) or not isinstance(floor, int | float) or not 0 <= floor <= 1:
        raise ValueError(f"floor must be a number in [0, 1] (a share of the base rate), got {floor!r}.")
    return float(floor)
