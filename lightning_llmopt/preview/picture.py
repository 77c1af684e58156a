"""The curves as a picture, drawn by matplotlib's Agg canvas: no pyplot, no window, nothing global."""

import io
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .amounts import short
from .samples import Curves, Stretch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _RATES_HEIGHT, _PANEL_HEIGHT, _CAPTION_HEIGHT = 9.0, 4.2, 1.3, 0.16  # inches; the caption's are for a line
_DPI = 100
_SHADE, _SHADES = "tab:blue", (0.05, 0.14)
_LINES_WITH_NAMES = 12  # more lines than this get a colour scale
_MOST_LINES = 60  # more cannot be told apart
_PHASES_WITH_NAMES = 12  # of more, a name is shown only where it fits
_HEADROOM = 1.12  # above the highest rate: the row of the phases' names
_GAP = 8  # pixels between two names
_LONGEST_NAME = 28
_PLACES = (0.5, 0.75, 0.25, 1.0, 0.0)  # of the room a name has over its phase, best first
_CAPTION_WIDTH, _MOST_WARNINGS = 150, 5


def png(curves: Curves) -> bytes:
    """The picture as a PNG file."""
    file = io.BytesIO()
    _drawn(curves).print_png(file)
    return file.getvalue()


def rgb(curves: Curves) -> Any:
    """The picture as a numpy array of bytes, shape ``(height, width, 3)``."""
    import numpy

    canvas = _drawn(curves)
    canvas.draw()
    return numpy.asarray(canvas.buffer_rgba())[..., :3].copy()


def _drawn(curves: Curves) -> Any:
    """An Agg canvas with all panels; matplotlib leaves its methods untyped."""
    caption = _caption(curves.warnings)
    ratios = [_RATES_HEIGHT, *(_PANEL_HEIGHT for _ in curves.values)]
    canvas = _canvas(height=sum(ratios) + _CAPTION_HEIGHT * len(caption))
    figure = canvas.figure
    panels = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    for axes in panels:
        _shade(axes, curves)
    _draw_rates(panels[0], curves)
    for axes, (name, points) in zip(panels[1:], curves.values, strict=True):
        _draw_value(axes, curves, name, points)
    _draw_time(panels[0], panels[-1], curves)
    if caption:
        figure.supxlabel("\n".join(caption), x=0.01, ha="left", fontsize=7.5, color="tab:red", parse_math=False)
    figure.draw_without_rendering()  # settles how wide the panels are
    _name_phases(panels[0], canvas, curves)
    return canvas


def _canvas(*, height: float) -> Any:
    """An empty picture of this height [inches]."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "A picture of a schedule needs matplotlib: pip install 'lightning-llmopt[plot]'."
        ) from error
    return FigureCanvasAgg(Figure(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained", facecolor="white"))


def _caption(warnings: Sequence[str]) -> list[str]:
    more = [f"... and {len(warnings) - _MOST_WARNINGS} more warnings."] if len(warnings) > _MOST_WARNINGS else []
    return [line for text in [*warnings[:_MOST_WARNINGS], *more] for line in textwrap.wrap(text, _CAPTION_WIDTH)]


def _shade(axes: "Axes", curves: Curves) -> None:
    """Phases in two shades by turns."""
    spans = [(float(phase.begin), float(phase.end - phase.begin)) for phase in curves.phases]
    for shade, turn in zip(_SHADES, (spans[::2], spans[1::2]), strict=True):
        if turn:
            axes.broken_barh(turn, (0, 1), transform=axes.get_xaxis_transform(), color=_SHADE, alpha=shade, lw=0)


def _draw_rates(axes: "Axes", curves: Curves) -> None:
    """One line for every base rate."""
    import matplotlib as mpl

    lines = _lines(curves.groups)
    few = len(lines) <= _LINES_WITH_NAMES
    shown = lines if few else [lines[number * (len(lines) - 1) // (_MOST_LINES - 1)] for number in range(_MOST_LINES)]
    colors = [f"C{number}" for number in range(len(lines))] if few else mpl.colormaps["viridis"]
    drawn = []
    for number, (_, base) in enumerate(shown):
        color = colors[number] if isinstance(colors, list) else colors(0.9 * number / (len(shown) - 1))
        drawn += _line(axes, curves, curves.rates(base), color)
    if len(curves.groups) > 1:
        named = list(range(len(shown))) if few else [0, len(shown) - 1]
        _legend(axes, [drawn[at] for at in named], [shown[at][0] for at in named], len(curves.groups))
    top = max(map(max, map(curves.rates, (base for _, base in lines))))
    name = f" of {_shortened(curves.groups[0][0])}" if len(curves.groups) == 1 and curves.has_rates() else ""
    axes.set_ylim(0, _HEADROOM * (top or 1.0))
    axes.set_ylabel(curves.label() + name, parse_math=False)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")


def _lines(groups: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """Label and base rate of every line, highest first; groups with the same base rate share one."""
    names: dict[float, list[str]] = {}
    for name, base in groups:
        names.setdefault(base, []).append(_shortened(name))
    return [(f"{_joined(names[base])}: {base:.3g}", base) for base in sorted(names, reverse=True)]


def _joined(names: list[str]) -> str:
    label = ", ".join(names)
    return label if len(label) <= _LONGEST_NAME else f"{names[0]}" + f" and {len(names) - 1:,} more" * (len(names) > 1)


def _line(axes: "Axes", curves: Curves, points: Sequence[float], color: Any) -> list[Any]:
    """A stair: every update keeps its value up to the next, the last one too; of a long run, the samples joined."""
    steps = [float(step) for step in (*curves.steps, curves.total_steps)]
    style = "steps-post" if len(curves.steps) == curves.total_steps else "default"
    return axes.plot(steps, [*points, points[-1]], drawstyle=style, color=color, lw=1.5)


def _legend(axes: "Axes", lines: list[Any], names: list[str], groups: int) -> None:
    title = f"base rates of {groups:,} groups"
    legend = axes.legend(
        lines, ["line"] * len(names), title=title, fontsize=8, title_fontsize=8, frameon=False, loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
    )  # fmt: skip
    for text, name in zip(legend.get_texts(), names, strict=True):  # as it stands: "_" hides no line, "$" is no formula
        text.set_text(name)
        text.set_parse_math(False)


def _draw_value(axes: "Axes", curves: Curves, name: str, points: Sequence[float]) -> None:
    _line(axes, curves, points, "black")
    axes.set_title(_shortened(name), loc="left", fontsize=9, parse_math=False)
    axes.margins(y=0.15)
    axes.locator_params(axis="y", nbins=4)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.5g}")


def _draw_time(top: "Axes", bottom: "Axes", curves: Curves) -> None:
    """Updates below the last panel, tokens above the first."""
    bottom.set_xlim(0, float(curves.total_steps))
    bottom.locator_params(axis="x", nbins=10, integer=True)
    bottom.xaxis.set_major_formatter(lambda value, _: short(value))
    bottom.set_xlabel(curves.unit, parse_math=False)
    if tokens := curves.tokens_per_update:
        second = top.secondary_xaxis("top", functions=(_times(tokens), _times(1 / tokens)))
        second.locator_params(axis="x", nbins=10)
        second.xaxis.set_major_formatter(lambda value, _: short(value))
        second.set_xlabel("tokens")


def _times(factor: float) -> Callable[[Any], Any]:
    return lambda numbers: numbers * factor


def _name_phases(axes: "Axes", canvas: Any, curves: Curves) -> None:
    """The names in a row above the curve, each over its phase if there is room; never one over the other."""
    frame = axes.get_window_extent()
    taken: list[tuple[float, float]] = []
    for phase in _by_weight(curves.phases):
        text = axes.text(
            0, 0.985, _shortened(phase.name), transform=axes.get_xaxis_transform(), va="top", ha="center", fontsize=8,
            color=_SHADE, parse_math=False,
        )  # fmt: skip
        text.set_in_layout(False)
        half = (text.get_window_extent(canvas.get_renderer()).width + _GAP) / 2 / frame.width  # of the panel's width
        begin, end = phase.begin / curves.total_steps, phase.end / curves.total_steps
        middle = _free_place(begin, end, half, taken) if _is_named(phase, curves, 2 * half) else None
        if middle is None:
            text.remove()
        else:
            taken.append((middle - half, middle + half))
            text.set_x(middle * curves.total_steps)


def _free_place(begin: float, end: float, half: float, taken: Sequence[tuple[float, float]]) -> float | None:
    """Where a name of twice ``half`` may have its middle: over the phase's own, else beside it, else nowhere."""
    for part in _PLACES:
        place = begin + half + part * (end - begin - 2 * half) if end - begin > 2 * half else (begin + end) / 2
        middle = min(max(place, half), 1 - half)
        if all(middle + half <= low or high <= middle - half for low, high in taken):
            return middle
    return None


def _is_named(phase: Stretch, curves: Curves, width: float) -> bool:
    """Of many phases only those with room for their names, and the first and the last."""
    fits = width <= (phase.end - phase.begin) / curves.total_steps
    return fits or len(curves.phases) <= _PHASES_WITH_NAMES or phase in (curves.phases[0], curves.phases[-1])


def _by_weight(phases: Sequence[Stretch]) -> list[Stretch]:
    """The first and the last phase, then the longest ones; as many as could have room."""
    ends = {0, len(phases) - 1}
    order = sorted(range(len(phases)), key=lambda at: (at not in ends, phases[at].begin - phases[at].end))
    return [phases[at] for at in order[:100]]


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
