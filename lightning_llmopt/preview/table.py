"""The curves as a table that a spreadsheet opens."""

import csv
from pathlib import Path

from .samples import Curves

COLUMNS = ("update", "phase", "multiplier", "tokens")  # names no group and no further curve may take


def write_csv(curves: Curves, path: Path) -> None:
    """One line for every update looked at; numbers are written so that reading them gives the same bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [name for name, _ in (*curves.groups, *curves.values)]
    tokens = curves.tokens_per_update
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["update", "phase", "multiplier", *names, *(["tokens"] if tokens else [])])
        for index, step in enumerate(curves.steps):
            multiplier = curves.multipliers[index]
            numbers = [multiplier, *(base * multiplier for _, base in curves.groups)]
            numbers += [points[index] for _, points in curves.values]
            # The update's first token is where it stands on the axis.
            numbers += [step * tokens] if tokens else []
            writer.writerow([step, curves.phase_at(step), *map(repr, numbers)])
