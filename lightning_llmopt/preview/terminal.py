"""The curve of the first group in plain characters."""

import textwrap
from bisect import bisect_left
from collections.abc import Iterator

from .amounts import listed, short
from .samples import Curves

_BLOCKS = " ▁▂▃▄▅▆▇█"
_SWING = "░"  # between the lowest and the highest value, where a column holds more than it can show
_SWINGS_FROM = 2.0  # rows
_LEAST_WIDTH, _LEAST_HEIGHT = 40, 4
_SPELLED_OUT = 10**7  # longer runs are 10M, not 10,000,000


def plot(curves: Curves, *, width: int, height: int) -> str:
    """The plot, the phases with their updates, the further curves in a line each, and the warnings.

    Args:
        curves: What to draw.
        width: Longest line [characters], >= 40.
        height: Rows of the plot itself, >= 4.

    Raises:
        ValueError: If there is no room for a plot.
    """
    _check("width", width, _LEAST_WIDTH)
    _check("height", height, _LEAST_HEIGHT)
    rates = curves.rates(curves.groups[0][1])
    top = max(rates) or 1.0
    labels = {height - 1: f"{top:.3g}", height // 2 - 1: f"{top * (height // 2) / height:.3g}"}
    gutter = max(map(len, labels.values()))
    columns = [(low / top * height, high / top * height) for low, high in _columns(curves, rates, width - gutter - 2)]
    lines = textwrap.wrap(_title(curves), width)
    for row in reversed(range(height)):
        cells = "".join(_cell(row, low, high) for low, high in columns)
        lines.append(f"{labels.get(row, ''):>{gutter}} {'┤' if row in labels else '│'}{cells}".rstrip())
    lines.append(f"{'0':>{gutter}} └{'─' * len(columns)}")
    lines += [" " * (gutter + 2) + axis for axis in _axes(curves, len(columns))]
    for paragraph in _words(curves):
        lines += textwrap.wrap(paragraph, width, subsequent_indent="  ")
    return "\n".join(lines)


def _check(name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of characters >= {least}, got {value!r}.")


def _title(curves: Curves) -> str:
    name, base = curves.groups[0]
    label = f"{curves.label()} by {curves.unit}"
    if not curves.has_rates():
        return label
    bases = [base for _, base in curves.groups]
    others = f", base rates of all {len(bases)} groups {min(bases):.3g} to {max(bases):.3g}" if len(bases) > 1 else ""
    return f"{label}: {name} (base rate {base:.3g}{others})"


def _columns(curves: Curves, rates: list[float], width: int) -> Iterator[tuple[float, float]]:
    """Lowest and highest rate of the updates in each column; of a short run, of the one update it shows a part of."""
    for column in range(width):
        begin, end = (at * curves.total_steps // width for at in (column, column + 1))
        first, last = (bisect_left(curves.steps, step) for step in (begin, max(end, begin + 1)))
        seen = rates[first:last] or [rates[first - 1]]
        yield min(seen), max(seen)


def _cell(row: int, low: float, high: float) -> str:
    """One character of a column that is filled up to its value; both ends in rows."""
    swings = high - low > _SWINGS_FROM
    level = low if swings else (low + high) / 2
    eighths = round(8 * min(max(level - row, 0.0), 1.0))
    return _SWING if swings and row < high and eighths < 8 else _BLOCKS[eighths]


def _axes(curves: Curves, width: int) -> Iterator[str]:
    """Numbers under the axis: beginning, middle, end of the run, and the same in tokens."""
    total = curves.total_steps
    yield _spread([_count(total // 2) if total > 1 else "", _count(total)], width)
    if (tokens := curves.tokens_per_update) is not None:
        yield _spread([short(total / 2 * tokens), f"{short(total * tokens)} tokens"], width)


def _spread(marks: list[str], width: int) -> str:
    middle, right = marks
    left = "0".ljust((width - len(middle)) // 2) + middle
    if len(left) + len(right) >= width:  # no room for the middle
        left = "0"
    return left.ljust(width - len(right)) + right


def _count(number: int) -> str:
    return f"{number:,}" if number < _SPELLED_OUT else short(number)


def _words(curves: Curves) -> Iterator[str]:
    """The lines below the plot."""
    if curves.phases:
        yield listed([str(phase) for phase in curves.phases], most=6, last=1, between="; ")
    for name, points in curves.values:
        span = f", between {min(points):.4g} and {max(points):.4g}" if min(points) < max(points) else ""
        yield f"{name}: {points[0]:.4g} at first, {points[-1]:.4g} at last{span}"
    for warning in curves.warnings:
        yield f"! {warning}"
