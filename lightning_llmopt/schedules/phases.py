"""Schedules as frozen values: an update number goes in, a multiplier of the base rate comes out."""

import math
import operator
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

from .shapes import shape_named


@dataclass(frozen=True)
class Phase:
    """A stretch of training in which the multiplier moves from ``start`` to ``end``.

    No update is wasted at the low end. A rise of ``steps`` updates gives its first update
    ``1 / steps`` of the way and its last update ``end``; a fall gives its first update ``start`` and
    reaches ``end`` one update after its last.

    Args:
        name: What the phase is called in progress bars and pictures, such as ``"warmup"``.
        steps: Length [updates], >= 0.
        start: Multiplier of the base rate where the phase begins [1], >= 0.
        end: Multiplier of the base rate where it ends [1], >= 0.
        shape: Name of the curve between them, a key of ``SHAPES`` with its settings, such as
            ``"cosine"`` or ``"lowered_linear(0.7)"``.

    Raises:
        ValueError: If ``name`` is no string, a number is negative or not finite, ``shape`` is unknown, or it is
            ``"exponential"`` and an end is 0.

    Example:
        >>> rise, fall = Phase("warmup", 4, 0.0, 1.0), Phase("decay", 4, 1.0, 0.0)
        >>> [rise(step) for step in range(4)], [fall(step) for step in range(4)]
        ([0.25, 0.5, 0.75, 1.0], [1.0, 0.75, 0.5, 0.25])
    """

    name: str
    steps: int
    start: float
    end: float
    shape: str = "linear"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ValueError(f"Phase.name must be a string, got {self.name!r}.")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 0:
            raise ValueError(f"Phase.steps must be a whole number of updates >= 0, got {self.steps!r}.")
        for name in ("start", "end"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"Phase.{name} must be a finite number >= 0, got {value!r}.")
        function, _ = shape_named("Phase.shape", self.shape)
        if function.__name__ == "exponential" and self.steps and not min(self.start, self.end) > 0:
            raise ValueError(
                f"Phase.shape 'exponential' needs start and end above 0 (a floor), got {self.start!r} and {self.end!r}."
            )

    def __call__(self, step: int, width: int = 1) -> float:
        """Multiplier of the update that takes the phase from ``step`` to ``step + width``, 0 <= step < steps.

        An update is 1 wide on a clock that counts updates. On one that counts tokens it is as wide as its
        batch: a rise looks at where the update ends, a fall at where it begins.
        """
        if self.start == self.end:
            return self.end
        function, settings = shape_named("Phase.shape", self.shape)
        over = min(step + width, self.steps) if self.end > self.start else step
        return function(self.start, self.end, over, self.steps, *settings)


@dataclass(frozen=True, init=False, repr=False)
class Schedule:
    """Multiplier of the base rate as a function of the update number alone.

    A value, not a process: schedules with the same phases are equal, ``repr`` spells out the curve,
    pickling is safe, and nothing has to be saved to resume a run. Update numbers are Python integers
    of any size.

    Args:
        phases: Played one after the other, at least one. After the last one its end value holds.

    Raises:
        ValueError: If there is no phase.

    Example:
        >>> schedule = Schedule(Phase("warmup", 2, 0.0, 1.0), Phase("decay", 2, 1.0, 0.1))
        >>> [schedule(step) for step in range(6)]
        [0.5, 1.0, 1.0, 0.55, 0.1, 0.1]
    """

    phases: tuple[Phase, ...]
    _ends: ClassVar[list[int]]  # first update after each phase; set for every instance, no part of its value

    def __init__(self, *phases: Phase) -> None:
        if not phases:
            raise ValueError("Schedule needs at least one phase, got none.")
        for phase in phases:
            if not isinstance(phase, Phase):
                raise ValueError(f"Schedule takes Phases, one after the other, got {phase!r}.")
        object.__setattr__(self, "phases", phases)
        object.__setattr__(self, "_ends", list(accumulate(phase.steps for phase in phases)))

    def __repr__(self) -> str:
        return f"Schedule({', '.join(map(repr, self.phases))})"

    @property
    def total_steps(self) -> int:
        """Length of all phases together [updates]."""
        return self._ends[-1]

    def __call__(self, step: int, width: int = 1) -> float:
        """Multiplier of update number ``step``, counted from 0; after the last phase, its end value.

        A schedule that was resolved on another clock is asked for what lies behind the update on that clock
        (such as 375,000,000 tokens), and for the update's ``width`` there.

        Raises:
            TypeError: If ``step`` is not a whole number.
            ValueError: If ``step`` is negative.
        """
        step = operator.index(step)
        if step < 0:
            raise ValueError(f"step must be >= 0, got {step}.")
        index = bisect_right(self._ends, step)
        if index == len(self.phases):
            return self.phases[-1].end
        phase = self.phases[index]
        return phase(step - self._ends[index] + phase.steps, width)

    def phase_at(self, step: int) -> Phase:
        """The phase that update number ``step`` belongs to; after the end, the last one."""
        return self.phases[min(bisect_right(self._ends, step), len(self.phases) - 1)]
