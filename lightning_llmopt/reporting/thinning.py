"""Fewer points, and ticks: what a curve needs to look the same."""

import math
from collections.abc import Sequence

from .log import Points


def thinned(points: Points, *, most: int = 1_000) -> Points:
    """At most ``most`` points, among them the lowest and the highest of every stretch, so that no spike is lost.

    Example:
        >>> thinned(tuple((step, float(step == 500)) for step in range(1_000)), most=4)
        ((0, 0.0), (1, 0.0), (500, 1.0), (501, 0.0))
    """
    if len(points) <= most:
        return points
    stretches, kept = most // 2, []
    for number in range(stretches):
        stretch = points[number * len(points) // stretches : (number + 1) * len(points) // stretches]
        low, high = min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])
        if low == high and len(stretch) > 1:
            low, high = stretch[0], stretch[1]
        kept += sorted({low, high})
    return tuple(kept)


def smoothed(points: Points, *, part: float) -> Points:
    """Mean over ``part`` of the points around each, each point weighing the same; the ends over what is there."""
    half = max(1, round(len(points) * part / 2))
    sums = [0.0]
    for _, value in points:
        sums.append(sums[-1] + value)
    found = []
    for at, (step, _) in enumerate(points):
        low, high = max(0, at - half), min(len(points), at + half + 1)
        found.append((step, (sums[high] - sums[low]) / (high - low)))
    return tuple(found)


def ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``.

    Example:
        >>> ticks(0.0, 0.004)
        [0.0, 0.001, 0.002, 0.003, 0.004]
    """
    if not high > low:
        return [low]
    size = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next((size * factor for factor in (1, 2, 5, 10) if (high - low) / (size * factor) <= most), size * 10)
    first = math.ceil(low / step - 1e-9)
    return [
        round(number * step, 12 - math.floor(math.log10(step)))
        for number in range(first, math.floor(high / step + 1e-9) + 1)
    ]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten from ``low`` to ``high``, with 2 and 5 between them where there are few.

    Example:
        >>> log_ticks(0.3, 40.0)
        [0.5, 1.0, 2.0, 5.0, 10.0, 20.0]
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors: Sequence[int] = (1, 2, 5) if len(decades) <= 4 else (1,)
    found = [float(f"{factor}e{decade}") for decade in decades for factor in factors]
    inside = [number for number in found if low <= number <= high]
    return inside[:: max(1, len(inside) // 7)] if len(inside) > 7 else inside


def number(value: float) -> str:
    """As an axis says it.

    Example:
        >>> [number(value) for value in (0.0, 0.0001, 0.25, 1500.0, 2e6, 3e-7, 2e20)]
        ['0', '1e-4', '0.25', '1.5k', '2M', '3e-7', '2e20']
    """
    size = abs(value)
    if size and size < 1e-3:
        mantissa, _, exponent = f"{value:.3g}".partition("e") if size < 1e-4 else f"{value:.2e}".partition("e")
        short = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{short}e{int(exponent)}"
    if size >= 1e13:
        mantissa, _, exponent = f"{value:.3g}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    for limit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if size >= limit:
            return f"{value / limit:.4g}{letter}"
    return f"{value:.4g}"
