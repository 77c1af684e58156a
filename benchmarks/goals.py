"""What the numbers must not exceed, read from ``goals.toml``."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .tables import Table

FILE = Path(__file__).with_name("goals.toml")


@dataclass(frozen=True)
class Goal:
    """A ratio between two variants of one table.

    Args:
        row: Name of the row.
        table: Title of the table.
        variant: The one that must be fast.
        reference: What it is compared to.
        at_most: Largest ratio.
        device: Where the goal holds; ``None`` for everywhere.
    """

    row: str
    table: str
    variant: str
    reference: str
    at_most: float
    device: str | None = None

    def verdict(self, table: Table) -> tuple[bool, str]:
        """Whether the goal is met, and a line that says so with the numbers.

        Missed means that even the lower quartile is over the goal: one bad minute is no verdict.
        """
        ratio = table.ratio(self.variant, self.reference)
        met = ratio.lower <= self.at_most
        numbers = f"{ratio.median:.3f} [{ratio.lower:.3f}, {ratio.upper:.3f}], goal {self.at_most:g}"
        return met, f"{'met   ' if met else 'MISSED'} {self.row}: {self.table}: {self.variant}: {numbers}"


def read(path: Path = FILE) -> list[Goal]:
    """All goals in the file.

    Raises:
        SystemExit: If this Python has no TOML reader.
    """
    return [Goal(**entry) for entry in _toml(path)["goal"]]


def of_row(goals: Iterable[Goal], row: str, *, device: str) -> list[Goal]:
    """The goals of one row that hold on ``device``."""
    return [goal for goal in goals if goal.row == row and goal.device in (None, device)]


def verdicts(goals: Iterable[Goal], tables: Iterable[Table]) -> list[tuple[bool, str]]:
    """The verdict on each goal.

    Raises:
        ValueError: If a goal names a table that was not made.
    """
    by_title = {table.title: table for table in tables}
    found = []
    for goal in goals:
        if goal.table not in by_title:
            raise ValueError(f"goals.toml: table must be one of {sorted(by_title)}, got {goal.table!r}.")
        found.append(goal.verdict(by_title[goal.table]))
    return found


def _toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ModuleNotFoundError:
            raise SystemExit("--check reads TOML: use Python 3.11 or newer, or pip install tomli.") from None
    return tomllib.loads(path.read_text(encoding="utf-8"))
