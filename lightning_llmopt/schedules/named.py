"""Schedules by their usual names: a rise, and one fall to the end of the run.

Every recipe takes keyword arguments and returns a description; ``.resolve(total_steps=N)`` turns it into
a ``Schedule``. Lengths are updates (``2000``, ``"2000 steps"``) or parts of the run (``0.02``, ``"2%"``);
``floor``, ``start`` and the like are multipliers of the base rate in [0, 1].

All recipes warm up by ``warmup`` from ``warmup_start`` to 1 along ``warmup_shape``: update ``s`` of ``w``
gets ``(s + 1) / w`` of the way when that is linear, so none is wasted.
"""

import math

from .arguments import Length, falling, rise_and_fall, rising
from .durations import parse_duration
from .registry import recipe
from .spec import PhaseSpec, PowerLawSpec, ScheduleSpec


@recipe
def constant(*, warmup: Length = 0, warmup_shape: str = "linear", warmup_start: float = 0.0) -> ScheduleSpec:
    """Rise to the base rate and stay there. Runs without a known end.

    Args:
        warmup: Length of the rise.
        warmup_shape: Curve of the rise, a key of ``SHAPES``.
        warmup_start: Multiplier where the rise begins [1].

    Raises:
        ValueError: If a length, shape or multiplier is out of range.

    Example:
        >>> schedule = constant(warmup=4).resolve(total_steps=100)
        >>> [schedule(step) for step in (0, 1, 2, 3, 99)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    rise = rising(warmup, warmup_shape, warmup_start)
    return ScheduleSpec("constant", (rise, PhaseSpec("stable", None, 1.0, 1.0)))


@recipe
def linear(
    *, warmup: Length = 0, floor: float = 0.0, warmup_shape: str = "linear", warmup_start: float = 0.0
) -> ScheduleSpec:
    """Rise, then fall in a straight line to ``floor`` at the end of the run.

    Args:
        warmup: Length of the rise.
        floor: Multiplier at the end [1].
        warmup_shape: Curve of the rise, a key of ``SHAPES``.
        warmup_start: Multiplier where the rise begins [1].

    Raises:
        ValueError: If a length, shape or multiplier is out of range.

    Example:
        >>> schedule = linear(warmup=1, floor=0.5).resolve(total_steps=5)
        >>> [schedule(step) for step in range(6)]
        [1.0, 1.0, 0.875, 0.75, 0.625, 0.5]
    """
    return rise_and_fall("linear", rising(warmup, warmup_shape, warmup_start), floor, "linear")


@recipe
def cosine(
    *, warmup: Length = 0, floor: float = 0.0, warmup_shape: str = "linear", warmup_start: float = 0.0
) -> ScheduleSpec:
    """Rise, then fall along half a cosine wave to ``floor`` at the end of the run.

    Args:
        warmup: Length of the rise.
        floor: Multiplier at the end [1]; 0.1 in GPT-3 and LLaMA.
        warmup_shape: Curve of the rise, a key of ``SHAPES``.
        warmup_start: Multiplier where the rise begins [1].

    Raises:
        ValueError: If a length, shape or multiplier is out of range.

    Source:
        Loshchilov & Hutter 2017 (SGDR), https://arxiv.org/abs/1608.03983, eq. 5, one cycle.

    Example:
        >>> schedule = cosine(warmup="10%", floor=0.1).resolve(total_steps=20)
        >>> [round(schedule(step), 3) for step in (0, 1, 2, 11, 20)]
        [0.5, 1.0, 1.0, 0.55, 0.1]
    """
    return rise_and_fall("cosine", rising(warmup, warmup_shape, warmup_start), floor, "cosine")


@recipe
def polynomial(
    *,
    power: float = 2.0,
    warmup: Length = 0,
    floor: float = 0.0,
    warmup_shape: str = "linear",
    warmup_start: float = 0.0,
) -> ScheduleSpec:
    """Rise, then fall as the straight line to a power, to ``floor`` at the end of the run.

    Args:
        power: Exponent [1], > 0; 1 is ``linear``.
        warmup: Length of the rise.
        floor: Multiplier at the end [1].
        warmup_shape: Curve of the rise, a key of ``SHAPES``.
        warmup_start: Multiplier where the rise begins [1].

    Raises:
        ValueError: If a length, shape, power or multiplier is out of range.

    Example:
        >>> schedule = polynomial(power=2.0).resolve(total_steps=4)
        >>> [schedule(step) for step in range(5)]
        [1.0, 0.5625, 0.25, 0.0625, 0.0]
    """
    if isinstance(power, bool) or not isinstance(power, int | float) or not 0 < power < math.inf:
        raise ValueError(f"power must be a finite number > 0, got {power!r}.")
    rise = rising(warmup, warmup_shape, warmup_start)
    return rise_and_fall("polynomial", rise, floor, f"polynomial({float(power)!r})")


@recipe
def inverse_sqrt(
    *,
    warmup: Length = "1%",
    timescale: Length | None = None,
    cooldown: Length = 0,
    floor: float = 0.0,
    shape: str = "linear",
    warmup_shape: str = "linear",
    warmup_start: float = 0.0,
) -> ScheduleSpec:
    """Rise, then fall with the square root of time: the Transformer's ("Noam") and T5's schedule.

    After the rise, update ``s`` gets ``sqrt(timescale / (timescale + s - warmup))``. The Transformer's own
    formula counts from 1 and reaches the peak once: its value at update ``s`` is ours at ``s`` while it
    warms up, and ours at ``s + 1`` afterwards. Runs without a known end if it has no cooldown.

    Args:
        warmup: Length of the rise.
        timescale: Updates after which the fall has come to 0.71; by default ``warmup``, as in the
            Transformer. T5 uses 10,000.
        cooldown: Length of a last fall to ``floor`` at the end of the run.
        floor: Multiplier at the end of the cooldown [1].
        shape: Curve of the cooldown, a key of ``SHAPES``.
        warmup_shape: Curve of the rise, a key of ``SHAPES``.
        warmup_start: Multiplier where the rise begins [1].

    Raises:
        ValueError: If a length, shape or multiplier is out of range.

    Source:
        Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, eq. 3; Raffel et al. 2020 (T5),
        https://arxiv.org/abs/1910.10683; with a cooldown, Zhai et al. 2022, https://arxiv.org/abs/2106.04560.

    Example:
        >>> schedule = inverse_sqrt(warmup=4).resolve(total_steps=None)
        >>> [round(schedule(step), 4) for step in (0, 3, 4, 8, 16)]
        [0.25, 1.0, 1.0, 0.7071, 0.5]
    """
    rise = rising(warmup, warmup_shape, warmup_start)
    knee = parse_duration("timescale", warmup if timescale is None else timescale)
    if knee.amount == 0:
        raise ValueError(f"timescale (by default warmup) must be > 0, got {str(knee)!r}.")
    decay = PowerLawSpec("decay", None, None, 0.0, knee=knee, exponent=-0.5)
    last = falling("cooldown", parse_duration("cooldown", cooldown), floor, shape, start=None)
    return ScheduleSpec("inverse_sqrt", (rise, decay, *_unless_empty(last)))


@recipe
def power(
    *,
    warmup: Length = "1%",
    knee: Length | None = None,
    exponent: float = -0.51,
    decay: Length = "10%",
    floor: float = 0.0,
    shape: str = "linear",
    warmup_shape: str = "linear",
    warmup_start: float = 0.0,
) -> ScheduleSpec:
    """Rise, hold, fall with a power of time, and anneal: agnostic to the length of the run before the last fall.

    The paper's rate is ``min(rate_max, a * batch * tokens ** exponent)``; ``knee`` is the update at which
    the two are equal, and the base rate is ``rate_max``. With the default knee it is OLMo-core's PowerLR.

    Args:
        warmup: Length of the rise.
        knee: Update from which the power law is in force; by default the end of the warmup.
        exponent: Of the power law [1], < 0.
        decay: Length of the last fall to ``floor`` at the end of the run.
        floor: Multiplier at the end [1].
        shape: Curve of the last fall, a key of ``SHAPES``.
        warmup_shape: Curve of the rise, a key of ``SHAPES``.
        warmup_start: Multiplier where the rise begins [1].

    Raises:
        ValueError: If a length, shape, exponent or multiplier is out of range, or ``knee`` lies in the warmup.

    Source:
        Shen et al. 2024 (Power scheduler), https://arxiv.org/abs/2408.13359.

    Example:
        >>> schedule = power(warmup=10, decay=0).resolve(total_steps=100)
        >>> round(schedule(20) / schedule(10), 4) == round(schedule(80) / schedule(40), 4) == 0.7022
        True
    """
    if isinstance(exponent, bool) or not isinstance(exponent, int | float) or not -math.inf < exponent < 0:
        raise ValueError(f"exponent must be a finite number < 0, got {exponent!r}.")
    rise = rising(warmup, warmup_shape, warmup_start)
    turn = parse_duration("knee", warmup if knee is None else knee)
    if turn.amount == 0:
        raise ValueError(f"knee (by default warmup) must be > 0, got {str(turn)!r}.")
    hold = PhaseSpec("stable", turn, 1.0, 1.0, until=True)
    law = PowerLawSpec("power", None, None, 0.0, knee=turn, exponent=float(exponent))
    last = falling("decay", parse_duration("decay", decay), floor, shape, start=None)
    return ScheduleSpec("power", (rise, hold, law, *_unless_empty(last)))


@recipe
def one_cycle(
    *,
    warmup: Length = "30%",
    start: float = 0.04,
    floor: float = 4e-6,
    shape: str = "cosine",
    warmup_shape: str | None = None,
) -> ScheduleSpec:
    """One long rise and one fall far below where it began; the base rate is the peak.

    The defaults are those of torch's ``OneCycleLR``: ``pct_start=0.3``, ``div_factor=25``,
    ``final_div_factor=1e4``. Its momentum cycle is a schedule of its own.

    Args:
        warmup: Length of the rise.
        start: Multiplier where the rise begins [1].
        floor: Multiplier at the end of the run [1].
        shape: Curve of the fall, a key of ``SHAPES``.
        warmup_shape: Curve of the rise, a key of ``SHAPES``; by default that of the fall.

    Raises:
        ValueError: If a length, shape or multiplier is out of range.

    Source:
        Smith & Topin 2018, https://arxiv.org/abs/1708.07120.

    Example:
        >>> schedule = one_cycle(warmup=2, start=0.5, floor=0.1, shape="linear").resolve(total_steps=5)
        >>> [round(schedule(step), 3) for step in range(6)]
        [0.75, 1.0, 1.0, 0.7, 0.4, 0.1]
    """
    rise = rising(warmup, warmup_shape or shape, start, shape_name="warmup_shape" if warmup_shape else "shape")
    return rise_and_fall("one_cycle", rise, floor, shape)


def _unless_empty(phase: PhaseSpec) -> tuple[PhaseSpec, ...]:
    """The phase, or nothing if it was given no length."""
    return (phase,) if phase.duration is None or phase.duration.amount else ()
