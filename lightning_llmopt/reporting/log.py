"""What a run has logged, read back from its folder: TensorBoard's event files and Lightning's ``metrics.csv``."""

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

EVENTS, CSV, SUMMARY = "events.out.tfevents.*", "metrics.csv", "run_summary.json"
_NO_METRICS = ("epoch", "step", "hp_metric")
Points = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Log:
    """The numbers of a run.

    Attributes:
        points: For each tag the updates and values, in order of the updates.
        files: What was read.
        summary: What ``RunSummary`` has kept, empty if it was not there.
    """

    points: Mapping[str, Points]
    files: tuple[Path, ...]
    summary: Mapping[str, Any]

    @property
    def last(self) -> int:
        """The last update of all."""
        return max(points[-1][0] for points in self.points.values())


def read_log(folder: Path) -> Log:
    """Everything below ``folder``.

    A run that went on in a second log (``version_1`` after ``version_0``) is joined: where both have an update, the
    later log counts. Where TensorBoard and CSV have a tag, TensorBoard's points count.

    Raises:
        ValueError: If there is no log, no number in it, or several runs that begin at the same update.
    """
    if not folder.is_dir():
        raise ValueError(f"report needs the folder of a run, got {str(folder)!r}, which is no folder.")
    parts = [_joined(folder, _event_runs(folder)), _joined(folder, _csv_runs(folder))]
    files = tuple(file for _, found in parts for file in found)
    if not files:
        raise ValueError(
            f"report needs a folder with TensorBoard's event files ({EVENTS}) or a {CSV}, found neither in "
            f"{str(folder)!r}. Give the logger's folder, or train with a TensorBoardLogger or CSVLogger."
        )
    (of_events, _), (of_csv, _) = parts
    points = {**of_csv, **of_events}
    if not points:
        raise ValueError(
            f"report needs at least one logged number, found none in {', '.join(map(str, files))}. Give another "
            "folder, or log more often: Trainer(log_every_n_steps=...) is 50 if nobody says otherwise."
        )
    return Log(points, files, _summary(folder))


@dataclass(frozen=True)
class _Run:
    """One log: where it lies, its files and its points."""

    folder: Path
    files: tuple[Path, ...]
    points: dict[str, Points]

    @property
    def first(self) -> int:
        return min((points[0][0] for points in self.points.values()), default=0)


def _joined(folder: Path, runs: list[_Run]) -> tuple[dict[str, Points], tuple[Path, ...]]:
    """The points of runs that go on one another, and their files."""
    runs = sorted(runs, key=lambda run: run.first)
    full = [run for run in runs if run.points]
    for earlier, later in pairwise(full):
        if earlier.first == later.first:
            names = ", ".join(str(run.folder.relative_to(folder)) for run in full)
            raise ValueError(
                f"report shows one run, and {folder} has logs of several that begin at the same update: {names}. "
                f"Give one of them, such as {str(full[-1].folder)!r}."
            )
    together: dict[str, dict[int, float]] = {}
    for run in full:
        for tag, points in run.points.items():
            known = together.setdefault(tag, {})
            kept = {step: value for step, value in known.items() if step < run.first}  # what it was resumed over
            together[tag] = {**kept, **dict(points)}
    files = tuple(file for run in runs for file in run.files)
    return {tag: _sorted(points.items()) for tag, points in together.items()}, files


def _event_runs(folder: Path) -> list[_Run]:
    """One run for each folder with event files; folders inside it belong to it."""
    homes: dict[Path, list[Path]] = {}
    for file in sorted(folder.rglob(EVENTS), key=lambda path: (len(path.parts), path)):
        if file.is_file():
            home = next((known for known in homes if known in file.parents), file.parent)
            homes.setdefault(home, []).append(file)
    return [_Run(home, tuple(files), _scalars({file.parent for file in files}, home)) for home, files in homes.items()]


def _scalars(folders: Iterable[Path], home: Path) -> dict[str, Points]:
    """All scalars of event files, none left out; those of folders inside have their name behind the tag."""
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    found = {}
    for folder in folders:
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 1, "histograms": 1}).Reload()
        for tag in events.Tags()["scalars"]:
            name = tag if folder == home else f"{tag} ({folder.relative_to(home)})"
            if tag not in _NO_METRICS:
                found[name] = _sorted((event.step, event.value) for event in events.Scalars(tag))
    return found


def _csv_runs(folder: Path) -> list[_Run]:
    return [_Run(file.parent, (file,), _columns(file)) for file in sorted(folder.rglob(CSV)) if file.is_file()]


def _columns(file: Path) -> dict[str, Points]:
    """The columns of a ``metrics.csv``; cells that are empty or no number are no points."""
    found: dict[str, dict[int, float]] = {}
    with file.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            step = _number(row.get("step"))
            if step is None or not math.isfinite(step):
                continue
            for tag, cell in row.items():
                if tag and tag not in _NO_METRICS and (value := _number(cell)) is not None:
                    found.setdefault(tag, {})[int(step)] = value
    return {tag: _sorted(points.items()) for tag, points in found.items()}


def _number(cell: Any) -> float | None:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None


def _sorted(points: Iterable[tuple[int, float]]) -> Points:
    """One value an update, the last that was written."""
    return tuple(sorted(dict(points).items()))


def _summary(folder: Path) -> dict[str, Any]:
    """The newest one; what is no such file counts as none."""
    files = sorted((file for file in folder.rglob(SUMMARY) if file.is_file()), key=lambda file: file.stat().st_mtime)
    for file in reversed(files):
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(kept, dict):
            return kept
    return {}
