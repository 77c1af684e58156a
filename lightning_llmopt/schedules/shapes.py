"""Curves: how a phase goes from its start value to its end value.

A shape is a function ``(start, end, over, steps) -> value`` of a phase that is ``over`` of ``steps``
updates old; both are integers of any size. Values are computed without cancellation, so a rate keeps its
digits at either end of a run of any length. Shapes with settings take them after those four and are
named like a call: ``"lowered_linear(0.7)"``.

To add a shape, write a decorated function here and stop: recipes find it by name, the docs list this
module, and the tests hold every entry to the same laws.
"""

import inspect
import math
import re
import reprlib
from collections.abc import Callable
from functools import lru_cache

from .nearest import did_you_mean

SHAPES: dict[str, Callable[..., float]] = {}


def _shape(curve: Callable[..., float]) -> Callable[..., float]:
    """Enter ``curve`` into SHAPES under its own name."""
    SHAPES[curve.__name__] = curve
    return curve


@_shape
def linear(start: float, end: float, over: int, steps: int) -> float:
    """The same step every update.

    Example:
        >>> [linear(1.0, 0.0, over, 4) for over in range(5)]
        [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    return _between(start, end, over / steps, (steps - over) / steps)


@_shape
def cosine(start: float, end: float, over: int, steps: int) -> float:
    """Slow, fast, slow: half a cosine wave, in the sin² form that is exact near both ends.

    Source: Loshchilov & Hutter 2017 (SGDR), https://arxiv.org/abs/1608.03983, eq. 5.

    Example:
        >>> [round(cosine(1.0, 0.0, over, 4), 3) for over in range(5)]
        [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    return _between(start, end, _sin2(over, steps), _sin2(steps - over, steps))


@_shape
def mirror_cosine(start: float, end: float, over: int, steps: int) -> float:
    """Fast, slow, fast: the cosine mirrored at the straight line, so that the two add up to twice the line.

    Source: Dremov et al. 2025, https://arxiv.org/abs/2508.01483.

    Example:
        >>> [round(mirror_cosine(1.0, 0.0, over, 4), 3) for over in range(5)]
        [1.0, 0.646, 0.5, 0.354, 0.0]
    """
    left = steps - over
    return _between(start, end, 2 * (over / steps) - _sin2(over, steps), 2 * (left / steps) - _sin2(left, steps))


@_shape
def square(start: float, end: float, over: int, steps: int) -> float:
    """Slow, then faster and faster: the "1-square" cooldown.

    Source: Dremov et al. 2025, https://arxiv.org/abs/2508.01483.

    Example:
        >>> [square(1.0, 0.0, over, 4) for over in range(5)]
        [1.0, 0.9375, 0.75, 0.4375, 0.0]
    """
    return _between(start, end, (over / steps) ** 2, (steps - over) / steps * ((steps + over) / steps))


@_shape
def sqrt(start: float, end: float, over: int, steps: int) -> float:
    """Fast, then slower and slower: the "1-sqrt" cooldown.

    Source: Hägele et al. 2024, https://arxiv.org/abs/2405.18392.

    Example:
        >>> [sqrt(1.0, 0.0, over, 4) for over in (0, 1, 4)]
        [1.0, 0.5, 0.0]
    """
    root = math.sqrt(over / steps)
    return _between(start, end, root, (steps - over) / steps / (1.0 + root))


@_shape
def polynomial(start: float, end: float, over: int, steps: int, power: float = 2.0) -> float:
    """The straight line to a power: the gap still to go is ``((steps - over) / steps) ** power`` of it.

    Example:
        >>> [polynomial(1.0, 0.0, over, 4, 2.0) for over in range(5)]
        [1.0, 0.5625, 0.25, 0.0625, 0.0]
    """
    to_go = _power(steps - over, steps, power)
    gone = -math.expm1(power * math.log1p(-over / steps)) if 2 * over < steps else 1.0 - to_go
    return _between(start, end, gone, to_go)


@_shape
def exponential(start: float, end: float, over: int, steps: int) -> float:
    """The same factor every update. Needs both ends above 0.

    Example:
        >>> [round(exponential(1.0, 0.01, over, 4), 4) for over in range(5)]
        [1.0, 0.3162, 0.1, 0.0316, 0.01]
    """
    if 2 * over <= steps:  # from the nearer end: the smaller exponent carries the smaller error
        return start * _root_of(end / start, over, steps)
    return end * _root_of(start / end, steps - over, steps)


@_shape
def lowered_linear(start: float, end: float, over: int, steps: int, height: float = 0.7) -> float:
    """A drop to ``height`` of the gap at once, then a straight line. For a fall.

    Source: Dremov et al. 2025, https://arxiv.org/abs/2508.01483, where 0.7 is the pick.

    Example:
        >>> [round(lowered_linear(1.0, 0.0, over, 4, 0.7), 3) for over in range(5)]
        [0.7, 0.525, 0.35, 0.175, 0.0]
    """
    return _between(start, end, (1.0 - height) + height * (over / steps), height * ((steps - over) / steps))


@_shape
def piecewise(start: float, end: float, over: int, steps: int, *to_go: float) -> float:
    """Straight pieces of equal length through the given shares of the gap still to go.

    Source: Dremov et al. 2025, https://arxiv.org/abs/2508.01483.

    Example:
        >>> [round(piecewise(1.0, 0.0, over, 4, 0.2), 3) for over in range(5)]
        [1.0, 0.6, 0.2, 0.1, 0.0]
    """
    marks = (1.0, *to_go, 0.0)
    piece, within = divmod(over * (len(marks) - 1), steps)
    if piece == len(marks) - 1:
        return end
    here, there = marks[piece], marks[piece + 1]
    return _between(start, end, linear(1.0 - here, 1.0 - there, within, steps), linear(here, there, within, steps))


@_shape
def power_law(start: float, end: float, over: int, steps: int, knee: float, exponent: float = -0.5) -> float:
    """A power of the time since training began, ``knee`` updates before the phase did; ``end`` is where it leads.

    Example:
        >>> [power_law(1.0, 0.5, over, 12, 4) for over in (0, 12)]
        [1.0, 0.5]
    """
    began = int(knee)  # in integers throughout: large update numbers are exact
    return start * ((began + over) / began) ** exponent


@_shape
def halving(start: float, end: float, over: int, steps: int, half_life: float) -> float:
    """Half of what it was every ``half_life`` updates; ``end`` is where that leads.

    Source: Hu et al. 2024 (MiniCPM), https://arxiv.org/abs/2404.06395.

    Example:
        >>> [halving(1.0, 0.25, over, 4, 2) for over in (0, 2, 4)]
        [1.0, 0.5, 0.25]
    """
    halvings, rest = divmod(over, int(half_life))
    return math.ldexp(start * 0.5 ** (rest / int(half_life)), -halvings)


def shape_named(name: str, shape: str) -> tuple[Callable[..., float], tuple[float, ...]]:
    """The function that ``shape`` names, such as ``"sqrt"`` or ``"lowered_linear(0.7)"``, and its settings.

    Args:
        name: What the user called it, for the message.
        shape: Key of ``SHAPES``, with its settings in brackets where it takes any.

    Raises:
        ValueError: If there is no such shape, or its settings are not what it takes.

    Example:
        >>> shape_named("shape", "lowered_linear(0.5)")[1]
        (0.5,)
    """
    if not isinstance(shape, str):
        raise ValueError(f"{name} must be one of {sorted(SHAPES)}, got {reprlib.repr(shape)}.")
    return _parse(name, shape)


@lru_cache(maxsize=1024)
def _parse(name: str, shape: str) -> tuple[Callable[..., float], tuple[float, ...]]:
    match = re.fullmatch(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*", shape)
    function = SHAPES.get(match[1]) if match else None
    if match is None or function is None:
        meant = did_you_mean(shape.split("(")[0].strip(), SHAPES)
        raise ValueError(f"{name} must be one of {sorted(SHAPES)}, got {reprlib.repr(shape)}.{meant}")
    try:
        settings = tuple(float(part) for part in (match[2] or "").split(",") if part.strip())
        inspect.signature(function).bind(0.0, 0.0, 0, 1, *settings)
    except (ValueError, TypeError):
        raise ValueError(f"{name} must be {_usage(function)}, got {shape!r}.") from None
    _check_settings(name, shape, settings)
    return function, settings


def _check_settings(name: str, shape: str, settings: tuple[float, ...]) -> None:
    """Settings are shares of the gap in [0, 1]; powers, and laws in updates, have rules of their own."""
    kind = shape.split("(")[0].strip()
    for setting in settings:
        if kind == "polynomial" and not 0 < setting < math.inf:
            raise ValueError(f"{name}: a power must be finite and > 0, got {shape!r}.")
        if kind == "power_law" and not (
            1 <= settings[0] < math.inf and all(-math.inf < rest < 0 for rest in settings[1:])
        ):
            raise ValueError(f"{name}: knee must be >= 1 update and the exponent < 0, got {shape!r}.")
        if kind == "halving" and not (setting >= 1 and setting.is_integer()):
            raise ValueError(f"{name}: a half-life must be a whole number of updates >= 1, got {shape!r}.")
        if kind not in ("polynomial", "power_law", "halving") and not 0 <= setting <= 1:
            raise ValueError(f"{name}: shares of the gap must be in [0, 1], got {shape!r}.")


def _usage(function: Callable[..., float]) -> str:
    """How to write a shape with its settings."""
    names = [str(parameter) for parameter in list(inspect.signature(function).parameters.values())[4:]]
    return f"{function.__name__!r}" + (f", with settings as {function.__name__}({', '.join(names)})" if names else "")


def _between(start: float, end: float, gone: float, to_go: float) -> float:
    """The low end plus a share of the way up: no cancellation, and as monotone as the share."""
    if gone == 0 or to_go == 0:  # exactly, whatever the rounding of the sum below
        return start if gone == 0 else end
    value = start + (end - start) * gone if end > start else end + (start - end) * to_go
    return min(value, max(start, end))


def _power(part: int, whole: int, exponent: float) -> float:
    """``(part / whole) ** exponent``: what rounding took from the quotient would count ``exponent`` times."""
    if part == 0 or exponent == 1:
        return part / whole
    a, b = (part / whole).as_integer_ratio()
    return (part / whole) ** exponent * (1.0 + exponent * ((part * b - a * whole) / (a * whole)))


def _root_of(base: float, part: int, whole: int) -> float:
    """``base ** (part / whole)``, with what rounding took from the exponent."""
    a, b = (part / whole).as_integer_ratio()
    return base ** (part / whole) * (1.0 + math.log(base) * ((part * b - a * whole) / (b * whole)))


def _sin2(part: int, whole: int) -> float:
    """The square of the sine of that part of a right angle."""
    return math.sin(math.pi / 2 * (part / whole)) ** 2
