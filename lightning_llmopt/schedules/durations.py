"""Lengths as people write them: ``2000``, ``"2000 steps"``, ``0.02``, ``"2%"``."""

import re
import reprlib
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from numbers import Integral, Real

_WHOLE = r"(?:\d{1,3}(?:[,_]\d{3})+|\d{1,30})"  # thousands may be set off, and nothing else: 1,5 is no number
_NUMBER = re.compile(
    rf"(?P<number>[-+]?(?:{_WHOLE}(?:\.\d{{0,30}})?|\.\d{{1,30}})(?:[eE][-+]?\d{{1,2}})?)\s*(?P<unit>\D*)"
)
_STEP_WORDS = {"", "step", "steps", "update", "updates"}


@dataclass(frozen=True)
class Duration:
    """A length that is known: so many updates, or such a part of the run.

    Args:
        amount: Updates (a whole number), or the part of the run in [0, 1]. Exact.
        relative: Whether ``amount`` is a part of the run.
    """

    amount: Fraction
    relative: bool = False

    def steps(self, total_steps: int) -> int:
        """Length in a run of ``total_steps`` [updates]; a part of the run is rounded down.

        Rounding down means that parts which add up to at most 100 % always fit.
        """
        return int(self.amount * total_steps) if self.relative else int(self.amount)

    def __str__(self) -> str:
        return f"{float(self.amount * 100):g}%" if self.relative else f"{int(self.amount)} updates"


def parse_duration(name: str, value: int | float | str) -> Duration:
    """Read a length as a user writes it.

    Args:
        name: What the user called it, for the message.
        value: Updates as an ``int`` or as text (``2000``, ``"2000"``, ``"2000 steps"``), or a part of the
            run as a ``float`` in [0, 1] or a percentage (``0.02``, ``"2%"``).

    Returns:
        The length, exact: ``0.1`` is one tenth, not the nearest binary fraction.

    Raises:
        ValueError: If it is negative, not a number, of an unknown unit, not a whole number of
            updates, or more than the whole run.

    Example:
        >>> parse_duration("warmup", "2%").steps(2_000), parse_duration("warmup", 300).steps(2_000)
        (40, 300)
    """
    duration = _read_text(name, value) if isinstance(value, str) else _read_number(name, value)
    if duration.amount < 0:
        raise ValueError(f"{name} must be >= 0, got {reprlib.repr(value)}.")
    if duration.relative and duration.amount > 1:
        whole = isinstance(value, Real) and float(value).is_integer() and value < 1e15
        hint = f" For updates write {int(value)}." if whole else ""
        raise ValueError(f"{name} must be at most the whole run (1.0 or '100%'), got {value!r}.{hint}")
    if not duration.relative and duration.amount.denominator != 1:
        raise ValueError(f"{name} must be a whole number of updates, got {value!r}.")
    return duration


def _read_number(name: str, value: int | float) -> Duration:
    """An ``int`` is updates, a ``float`` is a part of the run."""
    if isinstance(value, bool) or not isinstance(value, Real):  # numpy's numbers are Real too
        raise _not_a_length(name, value)
    if isinstance(value, Integral):
        return Duration(Fraction(int(value)))
    if not isfinite(value):
        raise _not_a_length(name, value)
    return Duration(Fraction(repr(float(value))), relative=True)


def _read_text(name: str, value: str) -> Duration:
    """Text is a number and a unit, or a plain number as the command line and YAML hand it over."""
    match = _NUMBER.fullmatch(value.strip())
    if match is None:
        raise _not_a_length(name, value)
    number, unit = Fraction(match["number"].replace(",", "").replace("_", "")), match["unit"].strip().lower()
    if unit == "%":
        return Duration(number / 100, relative=True)
    if unit not in _STEP_WORDS:
        raise _not_a_length(name, value)
    if unit == "" and set(match["number"]) & set(".eE"):  # "0.02" from a command line means what 0.02 means
        return Duration(number, relative=True)
    return Duration(number)


def _not_a_length(name: str, value: object) -> ValueError:
    return ValueError(
        f"{name} must be updates (2000, '2000 steps') or a part of the run (0.02, '2%'), got {reprlib.repr(value)}."
    )
