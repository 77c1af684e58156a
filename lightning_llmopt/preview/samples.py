"""At which updates a curve is looked at, and what is seen there."""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..schedules import Schedule

_ALL = 2_000  # a run up to this long is sampled whole
_EVEN = 1_000  # updates spread over a longer one
_TURNS = 500  # beginnings of phases looked at from both sides
ONLY_MULTIPLIER = (("rate", 1.0),)


@dataclass(frozen=True)
class Stretch:
    """The part of the run that belongs to one phase.

    Args:
        name: Name of the phase.
        begin: Its first update.
        end: One past its last update within the run.
    """

    name: str
    begin: int
    end: int

    def __str__(self) -> str:
        return f"{self.name} {self.begin:,}" + (f" to {self.end - 1:,}" if self.end - self.begin > 1 else "")


@dataclass(frozen=True)
class Curves:
    """Everything that is drawn, as plain numbers; equal if the numbers are.

    Args:
        total_steps: Length of the run [updates].
        steps: The updates looked at, rising; 0 and the last one among them.
        phases: The phases of the run in order; none for a plain function.
        multipliers: Multiplier of the base rate at each of ``steps`` [1].
        groups: Name and base rate of every group.
        values: Name and values at ``steps`` of every further curve.
        tokens_per_update: Tokens of one update, if there is to be an axis of tokens.
        unit: What the run is counted in.
        warnings: What a reader would want to know.
    """

    total_steps: int
    steps: tuple[int, ...]
    phases: tuple[Stretch, ...]
    multipliers: tuple[float, ...]
    groups: tuple[tuple[str, float], ...]
    values: tuple[tuple[str, tuple[float, ...]], ...]
    tokens_per_update: float | None
    unit: str
    warnings: tuple[str, ...]

    def rates(self, base: float) -> list[float]:
        """Rates at ``steps`` of a group with this base rate."""
        return [base * multiplier for multiplier in self.multipliers]

    def phase_at(self, step: int) -> str:
        """Name of the phase of an update; empty for a plain function."""
        index = bisect_right(self.phases, step, key=lambda phase: phase.begin) - 1
        return self.phases[index].name if index >= 0 else ""

    def has_rates(self) -> bool:
        """Whether base rates are known; else the multiplier itself is shown."""
        return self.groups != ONLY_MULTIPLIER

    def label(self) -> str:
        """What the curve of the first group shows."""
        return "learning rate" if self.has_rates() else "multiplier of the base rate"


def stretches(schedule: Callable[[int], float], total_steps: int) -> tuple[Stretch, ...]:
    """The phases of a schedule as far as the run goes; the last one holds to its end. None for a plain function.

    Example:
        >>> from lightning_llmopt.schedules import wsd
        >>> [str(phase) for phase in stretches(wsd(warmup=2, decay=3).resolve(total_steps=10), 6)]
        ['warmup 0 to 1', 'stable 2 to 5']
    """
    if not isinstance(schedule, Schedule):
        return ()
    found, begin = [], 0
    for number, phase in enumerate(schedule.phases, start=1):
        end = total_steps if number == len(schedule.phases) else min(begin + phase.steps, total_steps)
        if begin < end:
            found.append(Stretch(phase.name, begin, end))
            begin = end
    return tuple(found)


def sampled(total_steps: int, phases: tuple[Stretch, ...]) -> tuple[int, ...]:
    """The updates to look at: all of a short run, else even ones and both sides of where phases meet.

    Of more than 500 such places 500 are taken, spread evenly: more cannot be told apart in a picture.

    Example:
        >>> steps = sampled(10**12, (Stretch("warmup", 0, 7), Stretch("stable", 7, 10**12)))
        >>> len(steps), steps[0], 6 in steps, 7 in steps, steps[-1]
        (1002, 0, True, True, 999999999999)
    """
    if total_steps <= _ALL:
        return tuple(range(total_steps))
    turns = [phase.begin for phase in phases[1:]]
    near = [turns[index] for index in _even(len(turns), _TURNS)]
    return tuple(sorted({*_even(total_steps, _EVEN), *near, *(turn - 1 for turn in near)}))


def _even(length: int, most: int) -> Iterator[int]:
    """At most ``most`` of the numbers below ``length``, the first and the last among them."""
    if length <= most:
        return iter(range(length))
    return (number * (length - 1) // (most - 1) for number in range(most))
