"""Lengths as people write them: ``2000``, ``"2%"``, ``"3 epochs"``, ``"375M tokens"``, ``"45 min"``."""

import re
import reprlib
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from math import isfinite
from numbers import Integral, Real

CLOCKS = ("updates", "tokens", "samples", "seconds")
"""Units in which a run moves on and is counted."""

_WHOLE = r"(?:\d{1,3}(?:[,_]\d{3})+|\d{1,30})"  # thousands may be set off, and nothing else: 1,5 is no number
_NUMBER = re.compile(
    rf"(?P<number>[-+]?(?:{_WHOLE}(?:\.\d{{0,30}})?|\.\d{{1,30}})(?:[eE][-+]?\d{{1,2}})?)\s*"
    r"(?:(?P<scale>[kKMBGT])(?:\s+|$))?(?P<unit>[^\d\s]*(?: steps)?)"
)
_SCALES = {None: 1, "k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12}
_UNITS: list[tuple[str, Fraction, tuple[str, ...]]] = [
    ("updates", Fraction(1), ("", "step", "steps", "update", "updates", "optimizer steps")),
    ("run", Fraction(1, 100), ("%",)),
    ("epochs", Fraction(1), ("epoch", "epochs")),
    ("tokens", Fraction(1), ("token", "tokens")),
    ("samples", Fraction(1), ("sample", "samples", "sequence", "sequences", "example", "examples")),
    ("seconds", Fraction(1), ("s", "sec", "secs", "second", "seconds")),
    ("seconds", Fraction(60), ("min", "mins", "minute", "minutes")),
    ("seconds", Fraction(3600), ("h", "hour", "hours")),
    ("seconds", Fraction(86400), ("d", "day", "days")),
]
_WORDS = {word: (unit, worth) for unit, worth, words in _UNITS for word in words}
_TICKS = {"seconds": 10**6}  # a clock counts in whole numbers: time in microseconds


@dataclass(frozen=True)
class Duration:
    """A length that is known, in the unit it was written in.

    Args:
        amount: How much of ``unit``, exact; a part of the run is in [0, 1].
        unit: ``"updates"``, ``"run"`` (a part of it), ``"epochs"``, ``"tokens"``, ``"samples"`` or ``"seconds"``.
    """

    amount: Fraction
    unit: str = "updates"

    @property
    def relative(self) -> bool:
        """Whether it is a part of the run."""
        return self.unit == "run"

    def steps(self, total_steps: int) -> int:
        """Length in a run of ``total_steps`` [updates], both on the same clock.

        A part of the run is rounded down: so parts which add up to at most 100 % always fit.
        """
        return int(self.amount * total_steps) if self.relative else int(self.amount)

    def ticks(self) -> int:
        """Length on the clock of its own unit: updates, tokens, samples or microseconds."""
        return int(self.amount * _TICKS.get(self.unit, 1))

    def __str__(self) -> str:
        if self.relative:
            return f"{float(self.amount * 100):g}%"
        whole = self.amount.denominator == 1
        return f"{int(self.amount) if whole else float(self.amount)} {self.unit}"


def parse_duration(name: str, value: int | float | str | timedelta) -> Duration:
    """Read a length as a user writes it.

    Args:
        name: What the user called it, for the message.
        value: Updates as an ``int`` or as text (``2000``, ``"2000"``, ``"2000 steps"``); a part of the run as
            a ``float`` in [0, 1] or a percentage (``0.02``, ``"2%"``); ``"1.5 epochs"``; ``"375M tokens"`` or
            ``"1.2M samples"`` (k, M, B, T); a time (``"45 min"``, ``"8 h"``, a ``timedelta``).

    Returns:
        The length, exact: ``0.1`` is one tenth, not the nearest binary fraction.

    Raises:
        ValueError: If it is negative, not a number, of an unknown unit, not a whole number of
            updates, tokens or samples, or more than the whole run.

    Example:
        >>> parse_duration("warmup", "2%").steps(2_000), parse_duration("warmup", 300).steps(2_000)
        (40, 300)
        >>> parse_duration("decay", "375M tokens")
        Duration(amount=Fraction(375000000, 1), unit='tokens')
    """
    duration = _read(name, value)
    if duration.amount < 0:
        raise ValueError(f"{name} must be >= 0, got {reprlib.repr(value)}.")
    if duration.relative and duration.amount > 1:
        whole = isinstance(value, Real) and float(value).is_integer() and value < 1e15
        hint = f" For updates write {int(value)}." if whole else ""  # type: ignore[arg-type]
        raise ValueError(f"{name} must be at most the whole run (1.0 or '100%'), got {value!r}.{hint}")
    if duration.unit in ("updates", "tokens", "samples") and duration.amount.denominator != 1:
        raise ValueError(f"{name} must be a whole number of {duration.unit}, got {value!r}.")
    return duration


def clock_ticks(unit: str) -> int:
    """Ticks that one of ``unit`` has on its clock: a million for seconds, 1 for everything else."""
    return _TICKS.get(unit, 1)


def _read(name: str, value: int | float | str | timedelta) -> Duration:
    if isinstance(value, timedelta):
        return Duration(Fraction(value // timedelta(microseconds=1), 10**6), "seconds")
    return _read_text(name, value) if isinstance(value, str) else _read_number(name, value)


def _read_number(name: str, value: int | float) -> Duration:
    """An ``int`` is updates, a ``float`` is a part of the run."""
    if isinstance(value, bool) or not isinstance(value, Real):  # numpy's numbers are Real too
        raise _not_a_length(name, value)
    if isinstance(value, Integral):
        return Duration(Fraction(int(value)))
    if not isfinite(value):
        raise _not_a_length(name, value)
    return Duration(Fraction(repr(float(value))), "run")


def _read_text(name: str, value: str) -> Duration:
    """Text is a number and a unit, or a plain number as the command line and YAML hand it over."""
    match = _NUMBER.fullmatch(value.strip())
    word = match["unit"].lower() if match else ""
    if match is None or word not in _WORDS:
        raise _not_a_length(name, value)
    number = Fraction(match["number"].replace(",", "").replace("_", "")) * _SCALES[match["scale"]]
    unit, worth = _WORDS[word]
    if not (word or match["scale"]) and set(match["number"]) & set(".eE"):
        return Duration(number, "run")  # "0.02" from a command line means what 0.02 means
    return Duration(number * worth, unit)


def _not_a_length(name: str, value: object) -> ValueError:
    return ValueError(
        f"{name} must be updates (2000, '2000 steps'), a part of the run (0.02, '2%'), epochs ('1.5 epochs'), tokens "
        f"('375M tokens'), samples ('1.2M samples') or a time ('45 min', '8 h'), got {reprlib.repr(value)}."
    )
