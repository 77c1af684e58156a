"""Schedules as frozen values: an update number goes in, a multiplier of the base rate comes out."""

import math
import operator
from dataclasses import dataclass

from .shapes import SHAPES


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
        shape: Name of the curve between them, a key of ``SHAPES``.

    Raises:
        ValueError: If a number is negative or not finite, or ``shape`` is unknown.

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
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 0:
            raise ValueError(f"Phase.steps must be a whole number of updates >= 0, got {self.steps!r}.")
        for name in ("start", "end"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"Phase.{name} must be a finite number >= 0, got {value!r}.")
        check_shape("Phase.shape", self.shape)

    def __call__(self, step: int) -> float:
        """Multiplier of update ``step`` of this phase, 0 <= step < steps."""
        rising = self.end > self.start
        over = step + 1 if rising else step
        gone, to_go = SHAPES[self.shape](over / self.steps, (self.steps - over) / self.steps)
        if gone == 0 or to_go == 0:  # exactly, whatever the rounding of the sum below
            return self.start if gone == 0 else self.end
        # The low end plus a share of the way up: no cancellation, and as monotone as the share.
        value = self.start + (self.end - self.start) * gone if rising else self.end + (self.start - self.end) * to_go
        return min(value, max(self.start, self.end))


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

    def __init__(self, *phases: Phase) -> None:
        if not phases:
            raise ValueError("Schedule needs at least one phase, got none.")
        object.__setattr__(self, "phases", phases)

    def __repr__(self) -> str:
        return f"Schedule({', '.join(map(repr, self.phases))})"

    @property
    def total_steps(self) -> int:
        """Length of all phases together [updates]."""
        return sum(phase.steps for phase in self.phases)

    def __call__(self, step: int) -> float:
        """Multiplier of update number ``step``, counted from 0; after the last phase, its end value.

        Raises:
            TypeError: If ``step`` is not a whole number.
            ValueError: If ``step`` is negative.
        """
        step = operator.index(step)
        if step < 0:
            raise ValueError(f"step must be >= 0, got {step}.")
        for phase in self.phases:
            if step < phase.steps:
                return phase(step)
            step -= phase.steps
        return self.phases[-1].end

    def phase_at(self, step: int) -> Phase:
        """The phase that update number ``step`` belongs to; after the end, the last one."""
        for phase in self.phases:
            if step < phase.steps:
                return phase
            step -= phase.steps
        return self.phases[-1]


def check_shape(name: str, shape: str) -> None:
    """Refuse a ``shape`` that is not in ``SHAPES``; ``name`` is what the user called it."""
    if shape not in SHAPES:
        raise ValueError(f"{name} must be one of {sorted(SHAPES)}, got {shape!r}.")
