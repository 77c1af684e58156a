"""From a schedule and its settings to a value that can be drawn, printed and written."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real
from pathlib import Path
from typing import Any

from ..schedules import Duration, Schedule, ScheduleSpec
from .hints import schedule_warnings
from .picture import png, rgb
from .samples import ONLY_MULTIPLIER, Curves, sampled, stretches
from .table import COLUMNS, write_csv
from .terminal import plot

_LONGEST_RUN = 10**24
_MOST_VALUES = 20
_OPEN_RUN = 10  # a run without an end is shown for this many times its phases that have one


@dataclass(frozen=True)
class Preview(Curves):
    """A schedule as plain numbers at chosen updates, which ``preview`` makes; ``print`` shows the plot.

    At most 2,000 updates or so are looked at: every one of a shorter run; of a longer one 1,000 spread evenly and both
    sides of where phases meet. What a plain function does between them is not seen.
    """

    def png(self, path: str | Path) -> Path:
        """Draw the rates, phases and further curves into a PNG file; missing folders are made.

        Raises:
            ModuleNotFoundError: If matplotlib is not installed.
        """
        path, picture = Path(path), png(self)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
        return path

    def rgb(self) -> Any:
        """The same picture as a numpy array of bytes, shape ``(height, width, 3)``: TensorBoard's ``HWC``.

        Raises:
            ModuleNotFoundError: If matplotlib is not installed.
        """
        return rgb(self)

    def text(self, width: int = 72, height: int = 14) -> str:
        """The rate of the first group as a plot in plain characters.

        Args:
            width: Longest line [characters], >= 40.
            height: Rows of the plot itself, >= 4; phases, further curves and warnings stand below it.

        Raises:
            ValueError: If that leaves no room for a plot.
        """
        return plot(self, width=width, height=height)

    def csv(self, path: str | Path) -> Path:
        """Write ``update,phase,multiplier,<group>...,<value>...[,tokens]``; missing folders are made."""
        write_csv(self, Path(path))
        return Path(path)

    def __str__(self) -> str:
        return self.text()


def preview(
    schedule: ScheduleSpec | Schedule | Callable[[int], float],
    *,
    total_steps: int | None = None,
    groups: Mapping[str, float] | None = None,
    values: Mapping[str, Callable[[int], float]] | None = None,
    tokens_per_update: float | None = None,
    unit: str = "updates",
) -> Preview:
    """A schedule before the run: as a picture, in the terminal, as a table, with what looks unintended.

    Args:
        schedule: A recipe such as ``wsd()``, a schedule, or a function from the update number to the multiplier.
        total_steps: Length of the run [updates]. By default that of a resolved schedule; a recipe that does not depend
            on it is shown for ten times its phases that have an end.
        groups: Base rate of each group by name; by default the multiplier itself is shown.
        values: Further curves by name, functions of the update number, such as those of beta2 or weight decay.
        tokens_per_update: Tokens of one update, > 0, for a second axis, and for lengths in tokens.
        unit: What the run is counted in, as it stands below the axis.

    Raises:
        ValueError: If an argument is not of this kind, ``total_steps`` is missing, the schedule does not fit into it,
            or a function returns something else than a finite number.

    Example:
        >>> from lightning_llmopt.schedules import wsd
        >>> print(preview(wsd(warmup=1, decay=4, shape="linear"), total_steps=10).text(width=40, height=4))
        multiplier of the base rate by updates
          1 ┤█████████████████████████
            │████████████████████████████
        0.5 ┤████████████████████████████████
            │███████████████████████████████████
          0 └───────────────────────────────────
             0                5               10
        warmup 0; stable 1 to 5; decay 6 to 9
    """
    _check_settings(tokens_per_update, unit)
    schedule, total_steps = _resolved(schedule, total_steps, tokens_per_update)
    groups = dict(ONLY_MULTIPLIER) if groups is None else groups
    values = {} if values is None else values
    _check_names(groups, values)
    phases = stretches(schedule, total_steps)
    steps = sampled(total_steps, phases)
    return Preview(
        total_steps=total_steps,
        steps=steps,
        phases=phases,
        multipliers=_seen("schedule", schedule, steps, least=0.0),
        groups=tuple((name, float(base)) for name, base in groups.items()),
        values=tuple((name, _seen(name, value, steps)) for name, value in values.items()),
        tokens_per_update=tokens_per_update,
        unit=unit,
        warnings=schedule_warnings(schedule, total_steps=total_steps, groups=groups),
    )


def _resolved(
    schedule: ScheduleSpec | Schedule | Callable[[int], float],
    total_steps: int | None,
    tokens_per_update: float | None,
) -> tuple[Callable[[int], float], int]:
    """The curve itself and the length of the run."""
    if not callable(schedule) and not isinstance(schedule, ScheduleSpec):
        raise ValueError(f"schedule must be a recipe, a Schedule or a function of the update number, got {schedule!r}.")
    if total_steps is not None:
        _check_length(total_steps)
    if isinstance(schedule, ScheduleSpec) and tokens_per_update:
        schedule = schedule.with_lengths(lambda length: _in_updates(length, tokens_per_update))
    curve = schedule.resolve(total_steps=total_steps) if isinstance(schedule, ScheduleSpec) else schedule
    if total_steps is None and isinstance(curve, Schedule):
        open_end = isinstance(schedule, ScheduleSpec)
        total_steps = _OPEN_RUN * sum(phase.steps for phase in curve.phases[:-1]) if open_end else curve.total_steps
    if not total_steps:
        raise ValueError(
            "total_steps must be a whole number of updates >= 1 where the schedule itself has no length, got None."
        )
    _check_length(total_steps)
    return curve, total_steps


def _in_updates(length: Duration, tokens_per_update: float) -> Duration:
    """A length in tokens as the updates that hold them."""
    if length.unit != "tokens":
        return length
    return Duration(Fraction(math.ceil(length.amount / Fraction(tokens_per_update))))


def _check_length(total_steps: int) -> None:
    whole = isinstance(total_steps, int) and not isinstance(total_steps, bool)
    if not whole or not 1 <= total_steps <= _LONGEST_RUN:
        raise ValueError(f"total_steps must be a whole number of updates in [1, 1e24], got {total_steps!r}.")


def _check_names(groups: Mapping[str, float], values: Mapping[str, Callable[[int], float]]) -> None:
    """Every curve has a column of its own."""
    for argument, given in (("groups", groups), ("values", values)):
        if not isinstance(given, Mapping) or (argument == "groups" and not given):
            raise ValueError(f"{argument} must be a mapping with names as keys, got {given!r}.")
    for name, base in groups.items():
        if not _is_number(base) or not 0 <= base < math.inf:
            raise ValueError(f"groups[{name!r}] must be a finite base rate >= 0, got {base!r}.")
    for name in (*groups, *values):
        if not isinstance(name, str) or not name.strip() or not name.isprintable() or name in COLUMNS:
            raise ValueError(f"names of groups and values must be printable and none of {COLUMNS}, got {name!r}.")
    if shared := sorted(groups.keys() & values.keys()):
        raise ValueError(f"names of groups and values must differ, got {shared} in both.")
    if len(values) > _MOST_VALUES:
        raise ValueError(f"values must be at most {_MOST_VALUES} curves, got {len(values)}.")


def _check_settings(tokens_per_update: float | None, unit: str) -> None:
    if tokens_per_update is not None and not (_is_number(tokens_per_update) and 0 < tokens_per_update < math.inf):
        raise ValueError(f"tokens_per_update must be a finite number > 0, got {tokens_per_update!r}.")
    if not isinstance(unit, str) or not unit.strip() or not unit.isprintable():
        raise ValueError(f"unit must be a printable word, got {unit!r}.")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)  # numpy's numbers are Real too


def _seen(
    name: str, function: Callable[[int], float], steps: Iterable[int], *, least: float = -math.inf
) -> tuple[float, ...]:
    """The function at each of these updates."""
    if not callable(function):
        raise ValueError(f"values[{name!r}] must be a function of the update number, got {function!r}.")
    seen = []
    for step in steps:
        value = function(step)
        if not _is_number(value) or not math.isfinite(value) or value < least:
            rule = "a finite number" if least < 0 else "a finite number >= 0"
            raise ValueError(f"{name} must be {rule} at every update, got {value!r} at update {step}.")
        seen.append(float(value))
    return tuple(seen)
