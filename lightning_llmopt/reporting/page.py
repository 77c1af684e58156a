"""The page: one HTML file that asks nobody for anything."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import isfinite
from pathlib import Path
from typing import Any

from .charts import Chart, charts, facts, left_out, skips, stretches
from .log import Log
from .svg import LEFT, RIGHT, WIDTH, Axes, axes_of, colour, draw, is_smoothed
from .thinning import thinned

_NAMES_UP_TO = 8
_HOVER_POINTS = 600
_TERMINAL_CURVE = " ▁▂▃▄▅▆▇█"  # drawn properly above
_NEAR = 0.1  # of the run: a first update below it is shown from 0 on
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def page(log: Log, *, title: str) -> str:
    """All charts of a log, what ``RunSummary`` has kept, and which files were read."""
    phases, skipped = stretches(log), skips(log)
    first = min(points[0][0] for points in log.points.values())
    begin = 0 if first <= _NEAR * log.last else first
    figures = [
        _figure(chart, axes_of(chart, begin=begin, end=max(log.last, begin + 1)), phases, skipped)
        for chart in charts(log)
    ]
    module = log.summary.get("module")
    subtitle = f"{module}, logged up to update {log.last:,}" if module else f"logged up to update {log.last:,}"
    return "\n".join([
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{escape(title)}</title><style>{_beside('page.css')}</style></head><body>",
        f"<header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></header>",
        _tiles(facts(log)),
        f'<main>{"".join(figures)}</main>',
        _summary(log.summary),
        _footer(log, shaded=bool(phases), skipped=bool(skipped)),
        f'<div id="tip" hidden></div><script>{_beside("page.js")}</script></body></html>',
        "",
    ])  # fmt: skip


def _beside(name: str) -> str:
    """A file of this room."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _tiles(found: Iterable[tuple[str, str]]) -> str:
    cells = [f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in found]
    return f'<dl class="tiles">{"".join(cells)}</dl>' if cells else ""


def _figure(chart: Chart, axes: Axes, phases: Sequence[Any], skipped: Sequence[tuple[int, int]]) -> str:
    wide = ' class="log"' if chart.log else ""
    note = f'<p class="note">{escape(chart.note)}</p>' if chart.note else ""
    kind = "<small>log scale</small>" if chart.log else ""
    return (
        f"<figure{wide}><figcaption>{escape(chart.title)} {kind}{_legend(chart)}</figcaption>"
        f"{draw(chart, axes, phases, skipped)}{note}{_data(chart, axes)}</figure>"
    )


def _legend(chart: Chart) -> str:
    """Names of the lines; of many of one kind the first and the last."""
    places = list(range(len(chart.lines)))
    if chart.scale and len(places) > _NAMES_UP_TO:
        places = [places[0], places[-1]]
    keys = [
        f'<span><i style="background:{colour(chart, place)}"></i>{escape(chart.lines[place].name)}</span>'
        for place in places
    ]
    between = " to " if len(places) < len(chart.lines) else ""
    return f'<span class="legend">{between.join(keys)}</span>'


def _data(chart: Chart, axes: Axes) -> str:
    """What the pointer reads."""
    lines = [
        {
            "name": line.name,
            "points": [[step, _plain(value)] for step, value in thinned(line.points, most=_HOVER_POINTS)],
        }
        for line in chart.lines
    ]
    frame = {"begin": axes.begin, "end": axes.end, "left": LEFT / WIDTH, "right": 1 - RIGHT / WIDTH}
    text = json.dumps({"frame": frame, "lines": lines}, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json">{text}</script>'


def _plain(value: float) -> float | str:
    """In a form that JSON has."""
    return float(f"{value:.5g}") if value - value == 0 else str(value)


def _summary(summary: Mapping[str, Any]) -> str:
    """What was said at the start and at the end."""
    parts = [
        f"<section><h2>{title}</h2><dl>{_lines(summary[key])}</dl></section>"
        for key, title in (("start", "At the start"), ("end", "At the end"))
        if isinstance(summary.get(key), list)
    ]
    tables = [
        f"<section><h2>{escape(str(table.get('title', '')))}</h2>{_table(_list(table.get('rows')))}</section>"
        for table in _list(summary.get("groups"))
        if isinstance(table, dict)
    ]
    return f'<div class="summary">{"".join(parts + tables)}</div>' if parts or tables else ""


def _list(kept: Any) -> list[Any]:
    """What ``RunSummary`` writes as a list; the file may be anybody's."""
    return kept if isinstance(kept, list) else []


def _lines(lines: Sequence[Any]) -> str:
    pairs = [line for line in lines if isinstance(line, list) and len(line) == 2]
    texts = [(str(label), str(text)) for label, text in pairs if not set(str(text)) <= set(_TERMINAL_CURVE)]
    return "".join(f"<dt>{escape(label)}</dt><dd>{escape(text)}</dd>" for label, text in texts)


def _table(rows: Sequence[Any]) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("group", "parameters", "tensors", "rate", "decay", "blocks"))
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in _list(row)) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _footer(log: Log, *, shaded: bool, skipped: bool) -> str:
    points = sum(len(points) for points in log.points.values())
    faint = any(is_smoothed(chart, line) for chart in charts(log) for line in chart.lines)
    words = ["Faint lines are what was logged, strong ones a mean over 3 % of the points; of layers, the mean alone."]
    words = words if faint else []
    words += ["Shades are phases of the schedule."] if shaded else []
    words += ["Red lines are logging steps with skipped updates before them."] if skipped else []
    broken = any(not isfinite(value) for chart in charts(log) for line in chart.lines for _, value in line.points)
    words += ["Red triangles are values that are NaN or infinite."] if broken else []
    words += [f"{more} more metrics have no chart."] if (more := left_out(log)) else []
    files = "".join(f"<li>{escape(str(file))}</li>" for file in log.files)
    count = f"{points:,} points of {len(log.points):,} tags, read from:"
    return f"<footer><p>{' '.join(words)}</p><p>{count}</p><ul>{files}</ul></footer>"
