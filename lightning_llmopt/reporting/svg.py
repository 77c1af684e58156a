"""Charts as SVG, coloured by the page's style, so that one picture serves light and dark screens."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .charts import Chart, Line, Stretch
from .log import Points
from .thinning import log_ticks, number, smoothed, thinned, ticks

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 26, 34
_MOST_POINTS = 1_000
_SMOOTH_FROM, _SMOOTH_PART = 100, 0.03  # points of a line, and the part of them that a mean is over
_DOTS_UP_TO = 30
_LETTER = 7.0  # width of a character of the names of phases
_MARGIN = 0.05  # of the y axis, above and below


@dataclass(frozen=True)
class Axes:
    """Where numbers lie on the picture."""

    begin: float
    end: float
    low: float
    high: float
    log: bool

    def x(self, step: float) -> float:
        """Pixels from the left."""
        return LEFT + (step - self.begin) / ((self.end - self.begin) or 1.0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        low, high, at = (math.log10(one) if self.log else one for one in (self.low, self.high, value))
        return HEIGHT - BOTTOM - (at - low) / ((high - low) or 1.0) * (HEIGHT - TOP - BOTTOM)

    def shows(self, value: float) -> bool:
        """Whether the value has a place."""
        return math.isfinite(value) and (value > 0 or not self.log)


def axes_of(chart: Chart, *, begin: int, end: int) -> Axes:
    """Axes that hold every finite value of a chart; a linear one begins at 0 where that is near."""
    values = [value for line in chart.lines for _, value in line.points if math.isfinite(value)]
    if chart.log:
        values = [value for value in values if value > 0]
        room = (max(values) / min(values)) ** _MARGIN
        return Axes(begin, end, min(values) / room, max(values) * room, log=True)
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = (high - low) * _MARGIN or abs(high) * _MARGIN or 1.0
    near_zero = chart.zero or 0 <= low <= 0.3 * high
    return Axes(begin, end, 0.0 if near_zero else low - room, high + room, log=False)


def draw(chart: Chart, axes: Axes, phases: Sequence[Stretch], skips: Sequence[tuple[int, int]]) -> str:
    """The chart as an ``<svg>`` element."""
    label = escape(f"{chart.title}: {', '.join(line.name for line in chart.lines[:8])}", quote=True)
    order = reversed(range(len(chart.lines)))  # where lines meet, the first one is seen
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">',
        *_phases(axes, phases),
        *_grid(axes),
        *_skips(axes, skips),
        *(part for place in order for part in _line(chart, axes, chart.lines[place], colour(chart, place))),
        "</svg>",
    ]
    return "\n".join(parts)


def colour(chart: Chart, place: int) -> str:
    """A colour of the style; for many lines of one kind, one on a scale from first to last."""
    if chart.scale:
        return f"hsl({round(250 - 215 * place / (len(chart.lines) - 1))} 70% var(--scale))"
    return f"var(--c{place % 8})"


def _phases(axes: Axes, phases: Sequence[Stretch]) -> list[str]:
    parts = []
    for place, phase in enumerate(phases):
        left, right = (axes.x(min(max(at, axes.begin), axes.end)) for at in (phase.begin, phase.end))
        if right <= left:
            continue
        box = f'x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" height="{HEIGHT - TOP - BOTTOM}"'
        parts.append(f'<rect class="phase{place % 2}" {box}><title>{escape(phase.name)}</title></rect>')
        if len(phase.name) * _LETTER <= right - left:
            parts.append(f'<text class="name" x="{(left + right) / 2:.1f}" y="{TOP - 8}">{escape(phase.name)}</text>')
    return parts


def _grid(axes: Axes) -> list[str]:
    parts = []
    for value in log_ticks(axes.low, axes.high) if axes.log else ticks(axes.low, axes.high):
        y = axes.y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="y" x="{LEFT - 7}" y="{y + 4:.1f}">{number(value)}</text>')
    parts += [
        f'<text class="x" x="{axes.x(step):.1f}" y="{HEIGHT - BOTTOM + 17}">{number(step)}</text>'
        for step in ticks(axes.begin, axes.end, most=7)
        if step == int(step)
    ]
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>')
    parts.append(f'<text class="x unit" x="{WIDTH - RIGHT}" y="{HEIGHT - 3}">update</text>')
    return parts


def _skips(axes: Axes, skips: Sequence[tuple[int, int]]) -> list[str]:
    return [
        f'<line class="skip" x1="{axes.x(step):.1f}" x2="{axes.x(step):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}">'
        f"<title>{count} skipped up to update {step:,}</title></line>"
        for step, count in skips
    ]


def _line(chart: Chart, axes: Axes, line: Line, paint: str) -> list[str]:
    finite = tuple(point for point in line.points if axes.shows(point[1]))
    smooth = is_smoothed(chart, line)
    raw = _path(axes, line.points, paint, "raw" if smooth else "line", stairs=chart.stairs)
    parts = [] if smooth and chart.scale else [raw]  # many noisy lines hide one another
    if smooth:
        parts.append(_path(axes, smoothed(finite, part=_SMOOTH_PART), paint, "line"))
    if len(finite) <= _DOTS_UP_TO:
        parts += [
            f'<circle cx="{axes.x(step):.1f}" cy="{axes.y(value):.1f}" r="2.4" style="fill:{paint}"/>'
            for step, value in finite
        ]
    bad = [step for step, value in line.points if not math.isfinite(value)]
    parts += [
        f'<path class="bad" d="M{axes.x(step):.1f} {TOP + 9}l-4 -7h8z"><title>not finite at {step:,}</title></path>'
        for step in bad[:: max(1, len(bad) // 200)]
    ]
    return [part for part in parts if part]


def is_smoothed(chart: Chart, line: Line) -> bool:
    """Whether a mean is drawn over the line."""
    return chart.smooth and sum(math.isfinite(value) for _, value in line.points) >= _SMOOTH_FROM


def _path(axes: Axes, points: Points, paint: str, kind: str, *, stairs: bool = False) -> str:
    """A line that breaks where a value has no place."""
    words, pen = [], "M"
    for step, value in _thinned(axes, points):
        if not axes.shows(value):
            pen = "M"
            continue
        words += [f"H{axes.x(step):.1f}"] if stairs and pen == "L" else []
        words.append(f"{pen}{axes.x(step):.1f} {axes.y(value):.1f}")
        pen = "L"
    return f'<path class="{kind}" style="stroke:{paint}" d="{"".join(words)}"/>' if words else ""


def _thinned(axes: Axes, points: Points) -> Points:
    """Fewer points; those without a place stay, as many as there may be of the others."""
    shown = thinned(tuple(point for point in points if axes.shows(point[1])), most=_MOST_POINTS)
    gaps = [point for point in points if not axes.shows(point[1])]
    return tuple(sorted([*shown, *gaps[:: max(1, len(gaps) // _MOST_POINTS)]], key=lambda point: point[0]))
