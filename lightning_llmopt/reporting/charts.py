"""Which curves go on which chart."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .log import Log, Points

_OURS = re.compile(
    r"(?:^|-)(lr[/-]|lr$|grad_norm/|param_norm/|update_norm/|update_ratio/|angular_update/|moment_norm/|schedule/|skipped/)"
)
_MOST_LINES, _MOST_LAYERS, _MOST_OTHERS = 8, 60, 8
_LOG_FROM = 20.0  # largest over smallest value


@dataclass(frozen=True)
class Line:
    """A curve with its name."""

    name: str
    points: Points


@dataclass(frozen=True)
class Chart:
    """Curves that share their axes.

    Attributes:
        title: What is shown.
        lines: The curves.
        log: Whether the y axis is logarithmic.
        scale: Whether the lines are many of one kind, in order.
        smooth: Whether noisy lines get a mean drawn over them.
        zero: Whether the y axis begins at 0.
        stairs: Whether a value holds until the next one.
        note: What a reader has to know.
    """

    title: str
    lines: tuple[Line, ...]
    log: bool = False
    scale: bool = False
    smooth: bool = False
    zero: bool = False
    stairs: bool = False
    note: str = ""


@dataclass(frozen=True)
class Stretch:
    """A phase of the schedule: its name, its first update and one past its last."""

    name: str
    begin: int
    end: int


def charts(log: Log) -> list[Chart]:
    """Loss, rate, norms, skipped updates, layers, and what else the module has logged; only what is there."""
    points = log.points
    losses = {tag: points[tag] for tag in points if "loss" in tag.lower() and not _OURS.search(tag)}
    others = {tag: points[tag] for tag in points if tag not in losses and not _OURS.search(tag)}
    found = [
        _chart("Loss", losses, smooth=True),
        _chart("Learning rate", _alike(_ours(points, r"lr[/-](.*)|(lr)")), zero=True),
        _chart("Gradient norm", _norms(points), log=True, smooth=True),
        _skipped(points) if skips(log) else None,
        _chart("Gradient norm by layer", _ours(points, r"grad_norm/layer/(.*)"), log=True, scale=True, smooth=True),
        _chart("Update norm over weight norm", _ours(points, r"update_ratio/(total.*)"), log=True, smooth=True),
        *(_chart(tag, {tag: values}) for tag, values in list(others.items())[:_MOST_OTHERS]),
    ]
    return [chart for chart in found if chart is not None]


def left_out(log: Log) -> int:
    """Metrics of the module's own beyond those that get a chart."""
    others = [tag for tag in log.points if "loss" not in tag.lower() and not _OURS.search(tag)]
    return max(0, len(others) - _MOST_OTHERS)


def skips(log: Log) -> tuple[tuple[int, int], ...]:
    """Logging steps with updates that were skipped since the one before, and how many."""
    found, before = [], 0.0
    for step, total in next(iter(_ours(log.points, r"skipped/(total)").values()), ()):
        if total > before:
            found.append((step, round(total - before)))
        before = total
    return tuple(found)


def stretches(log: Log) -> tuple[Stretch, ...]:
    """The phases that were logged, and where one begins as planned; without a log of them, the planned ones."""
    kept = log.summary.get("phases")
    planned = [one for one in (kept if isinstance(kept, list) else ()) if _is_phase(one)]
    names = {one.get("number", at): str(one.get("name", "")) for at, one in enumerate(planned)}
    starts = {one["begin"] for one in planned}
    logged = next(iter(_ours(log.points, r"schedule/(phase.*)").values()), ())
    if not logged:
        return tuple(Stretch(str(one["name"]), one["begin"], one["end"]) for one in planned)
    begins = [(0, int(logged[0][1]))]
    for (step, number), (later, now) in pairwise(logged):
        if now != number and math.isfinite(now):
            begin = next((start for start in sorted(starts) if step < start <= later), later)
            begins.append((begin, int(now)))
    ends = [begin for begin, _ in begins[1:]] + [log.last + 1]
    return tuple(
        Stretch(names.get(number, f"phase {number}"), begin, end)
        for (begin, number), end in zip(begins, ends, strict=True)
    )


def _is_phase(kept: Any) -> bool:
    """Whether it is what ``RunSummary`` writes of a phase; the file may be anybody's."""
    return isinstance(kept, dict) and all(isinstance(kept.get(end), int) for end in ("begin", "end")) and "name" in kept


def _chart(
    title: str,
    found: Mapping[str, Points],
    *,
    log: bool = False,
    scale: bool = False,
    smooth: bool = False,
    zero: bool = False,
) -> Chart | None:
    most = _MOST_LAYERS if scale else _MOST_LINES
    lines = [Line(name, points) for name, points in found.items() if points]
    if not lines:
        return None
    note = f"{len(lines) - most} more are not shown." if len(lines) > most else ""
    values = [value for line in lines[:most] for _, value in line.points if math.isfinite(value)]
    positive = [value for value in values if value > 0]
    spread = bool(positive) and max(positive) / min(positive) >= _LOG_FROM
    return Chart(title, tuple(lines[:most]), log and spread, scale and len(lines) > 1, smooth, zero, note=note)


def _ours(points: Mapping[str, Points], pattern: str) -> dict[str, Points]:
    """Tags of ours by what the pattern finds in them; a logger's prefix before a tag is passed over."""
    whole = re.compile(rf"(?:.*?-)?(?:{pattern})")
    matches = ((whole.fullmatch(tag), values) for tag, values in points.items())
    return {next(filter(None, match.groups()), ""): values for match, values in matches if match is not None}


def _skipped(points: Mapping[str, Points]) -> Chart:
    """Totals as stairs."""
    lines = (Line(name, values) for name, values in _ours(points, r"skipped/(.*)").items())
    return Chart("Skipped updates, in all", tuple(lines), zero=True, stairs=True)


def _norms(points: Mapping[str, Points]) -> dict[str, Points]:
    """Before and after clipping; one line where nothing was clipped."""
    before, after = _ours(points, r"grad_norm/total(.*)"), _ours(points, r"grad_norm/clipped(.*)")
    found = {}
    for which, values in before.items():  # "", or "/Adam-1" where there are several optimizers
        clipped = after.get(which, ())
        same = clipped in ((), values)
        found["norm" + which if same else "before clipping" + which] = values
        if not same:
            found["after clipping" + which] = clipped
    return found


def _alike(found: Mapping[str, Points]) -> dict[str, Points]:
    """Groups with the very same rates share a line."""
    names: dict[Points, list[str]] = {}
    for name, values in found.items():
        names.setdefault(values, []).append(name)
    return {_and_more(some): values for values, some in names.items()}


def _and_more(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def facts(log: Log) -> Iterator[tuple[str, str]]:
    """Name and value of the numbers to show first."""
    for chart in charts(log):
        if chart.title == "Loss":
            for line in chart.lines[:2]:
                finite = [value for _, value in line.points if math.isfinite(value)]
                if finite:
                    yield f"{line.name}, last", f"{finite[-1]:.4g}"
                    yield f"{line.name}, lowest", f"{min(finite):.4g}"
        if chart.title == "Learning rate":
            yield "learning rate, last logged", f"{chart.lines[0].points[-1][1]:.3g}"
    factors = [value for _, value in next(iter(_ours(log.points, r"grad_norm/(clip_coefficient.*)").values()), ())]
    if factors:
        yield "clipped, of logged updates", f"{sum(value < 1 - 1e-6 for value in factors) / len(factors):.1%}"
    skipped = next(iter(_ours(log.points, r"skipped/(total)").values()), ())
    if skipped:
        yield "skipped", f"{skipped[-1][1]:,.0f}"
