"""Schedules whose lengths still wait for the length of the run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from fractions import Fraction
from typing import Any, TypeVar

from .durations import Duration, clock_ticks
from .phases import Phase, Schedule
from .shapes import halving, power_law

_MOST_CYCLES = 10_000
Value = TypeVar("Value")
_ONE_UPDATE = Duration(Fraction(1))


@dataclass(frozen=True)
class PhaseSpec:
    """A phase without its number of updates.

    Args:
        name: Name of the phase.
        duration: Its length; ``None`` for whatever the other phases leave over.
        until: Whether ``duration`` is not its length but where it ends, counted from the beginning of the run.
        start: Multiplier where it begins [1]; ``None`` for where the phase before it ends.
        end: Multiplier where it ends [1].
        shape: Name of the curve between them, a key of ``SHAPES`` with its settings.
    """

    name: str
    duration: Duration | None
    start: float | None
    end: float
    shape: str = "linear"
    until: bool = False

    @property
    def unit(self) -> str:
        """Unit in which the phase moves on; ``"run"`` if it is that of the run's own length."""
        return "run" if self.duration is None else self.duration.unit

    def of_length(self, steps: int, *, total_steps: int, before: float) -> Phase:
        """This phase, ``steps`` updates long, after one that ended at ``before``."""
        return Phase(self.name, steps, before if self.start is None else self.start, self.end, self.shape)


@dataclass(frozen=True)
class HalfLifeSpec(PhaseSpec):
    """A fall that halves every ``half_life``, from where the phase before it ends; ``end`` is not used."""

    half_life: Duration = _ONE_UPDATE

    @property
    def unit(self) -> str:
        """That of the half-life."""
        return self.half_life.unit

    def of_length(self, steps: int, *, total_steps: int, before: float) -> Phase:
        """This phase, ``steps`` updates long."""
        half_life = self.half_life.steps(total_steps)
        if half_life < 1:
            raise ValueError(
                f"half_life must be at least 1 update, got {self.half_life} of {total_steps}. Write it in updates."
            )
        end = halving(before, 0.0, steps, steps, half_life)
        return Phase(self.name, steps, before, end, f"halving({half_life})")


@dataclass(frozen=True)
class PowerLawSpec(PhaseSpec):
    """A power of the time since training began, in which the phase begins at ``knee``; ``end`` is not used."""

    knee: Duration = _ONE_UPDATE
    exponent: float = -0.5

    @property
    def unit(self) -> str:
        """That of the knee."""
        return self.knee.unit

    def of_length(self, steps: int, *, total_steps: int, before: float) -> Phase:
        """This phase, ``steps`` updates long."""
        knee = self.knee.steps(total_steps)
        if knee < 1:
            raise ValueError(
                f"{self.name}: the power of time needs a warmup, timescale or knee of at least 1 update, got "
                f"{self.knee} of {total_steps}. Write it in updates, such as warmup=10."
            )
        end = power_law(before, 0.0, steps, steps, knee, self.exponent)
        return Phase(self.name, steps, before, end, f"power_law({knee}, {self.exponent!r})")


class Description:
    """A schedule that still waits for the length of the run: what every recipe returns.

    It has no fields, so that whoever reads YAML by type hints does not take a dict of settings for those of a
    ``ScheduleSpec``, which nobody writes by hand.
    """


@dataclass(frozen=True, repr=False)
class ScheduleSpec(Description):
    """A schedule described by its phases, no numbers yet. The recipes (``wsd``, ``cosine``, ...) return these.

    Args:
        recipe: Name of the recipe, for messages.
        phases: The phases in order; at most one has no duration and takes what the others leave over.
        settings: What the recipe was called with, by name; ``None`` if no recipe made this. No part of its value.
    """

    recipe: str
    phases: tuple[PhaseSpec, ...]
    settings: tuple[tuple[str, Any], ...] | None = field(default=None, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        if sum(phase.duration is None for phase in self.phases) > 1:
            open_ones = [phase.name for phase in self.phases if phase.duration is None]
            raise ValueError(f"{self.recipe}: at most one phase may be without a duration, got {open_ones}.")

    def __repr__(self) -> str:
        values = vars(self) if self.settings is None else dict(self.settings)
        name = type(self).__name__ if self.settings is None else self.recipe
        return f"{name}({', '.join(f'{key}={value!r}' for key, value in values.items())})"

    def resolve(self, *, total_steps: int | None, unit: str = "updates") -> Schedule:
        """The schedule for a run of ``total_steps`` updates.

        Args:
            total_steps: Length of the run [updates], >= 1; ``None`` if nobody knows it, which suits only
                schedules that do not depend on it (such as ``constant(warmup=2000)``).
            unit: What ``total_steps``, and the resolved schedule, count instead: ``"tokens"``, ``"samples"``,
                or ``"seconds"`` (in microseconds).

        Raises:
            ValueError: If ``total_steps`` is not a whole number >= 1, if the phases do not fit into it
                (the message shows the sum), if it is ``None`` and the schedule needs it, or if a length is in
                another unit (``LRSchedule`` plays those: it knows how long an epoch is, and counts tokens).

        Example:
            >>> from lightning_llmopt.schedules import wsd
            >>> schedule = wsd(warmup=2, decay="40%", shape="linear").resolve(total_steps=10)
            >>> [schedule(step) for step in range(11)]
            [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
        """
        if total_steps is not None:
            check_total_steps(total_steps)
        return self._on_clock(unit)._resolve(total_steps, unit)

    @property
    def open_at(self) -> int:
        """Position of the phase that takes what the others leave over; one past the last if there is none."""
        return next((at for at, phase in enumerate(self.phases) if phase.duration is None), len(self.phases))

    def lengths(self) -> Iterator[Duration]:
        """Every length in the description that is more than nothing: nothing has no unit."""
        yield from (length for length in _durations_in(self) if length.amount)

    def with_lengths(self, convert: Callable[[Duration], Duration]) -> "ScheduleSpec":
        """The same description with every length converted."""
        return _converted(self, convert)

    def _on_clock(self, unit: str) -> "ScheduleSpec":
        """All lengths as bare numbers of that clock's ticks, or as parts of the run."""

        def ticks(length: Duration) -> Duration:
            if length.relative or not length.amount:
                return length if length.relative else Duration(length.amount)
            if length.unit != unit:
                raise ValueError(
                    f"{self.recipe}: a length of {length} cannot be told in a run that is counted in {unit}. Write it "
                    f"in {unit} or as a part of the run (LRSchedule counts other units as the run goes)."
                )
            return Duration(Fraction(length.ticks()))

        return self.with_lengths(ticks)

    def _resolve(self, total_steps: int | None, unit: str) -> Schedule:
        if total_steps is None:
            return self._resolve_open()
        return chain(self.phases, self._lengths(total_steps, unit), total_steps=total_steps)

    def needs_total_steps(self) -> bool:
        """Whether the curve depends on the length of the run."""
        *head, last = self.phases
        endless = last.duration is None and (last.start == last.end or isinstance(last, PowerLawSpec))
        lengths = [phase.duration for phase in head]
        lengths += [phase.knee for phase in self.phases if isinstance(phase, PowerLawSpec)]
        return not endless or any(length is None or length.relative for length in lengths)

    def _resolve_open(self) -> Schedule:
        """The schedule of a run without a known end: its last phase has no end either."""
        if self.needs_total_steps():
            raise ValueError(f"{self.recipe} needs total_steps, the length of the run in updates; got None.")
        *head, last = self.phases
        lengths = [phase.duration.steps(0) for phase in head if phase.duration]
        endless = 2**63 if isinstance(last, PowerLawSpec) else 0  # a flat phase of no length holds its value for ever
        return chain(self.phases, [*lengths, endless], total_steps=0)

    def _lengths(self, total_steps: int, unit: str) -> list[int]:
        """Ticks of each phase."""
        lengths: list[int] = []
        for phase in self.phases:
            steps = phase.duration.steps(total_steps) if phase.duration else 0
            if phase.until and steps < sum(lengths):
                raise ValueError(
                    f"{self.recipe} does not fit together: {phase.name} is to end at {_place(steps, unit)} "
                    f"({phase.duration}), but the phases before it end at {_place(sum(lengths), unit)}. Shorten them "
                    "or let it end later."
                )
            lengths.append(steps - sum(lengths) if phase.until else steps)
        rest = total_steps - sum(lengths)
        if rest < 0:
            parts = [(phase.name, steps, phase.duration) for phase, steps in zip(self.phases, lengths, strict=True)]
            raise ValueError(does_not_fit(self.recipe, parts, total_steps, unit))
        return [steps if phase.duration else rest for phase, steps in zip(self.phases, lengths, strict=True)]


@dataclass(frozen=True, repr=False)
class FilledSpec(ScheduleSpec):
    """Phases that have to add up to the whole run; what rounding leaves over goes to the last."""

    def _lengths(self, total_steps: int, unit: str) -> list[int]:
        lengths = super()._lengths(total_steps, unit)
        missing = total_steps - sum(lengths)
        if missing >= len(lengths):
            raise ValueError(
                f"{self.recipe} does not fill the run: its periods end at {_place(sum(lengths), unit)}, but "
                f"total_steps is {total_steps}. Let the last one end with the run."
            )
        return [*lengths[:-1], lengths[-1] + missing]


@dataclass(frozen=True, repr=False)
class CyclesSpec(ScheduleSpec):
    """A warmup, then falls that start again from the top, each ``factor`` times as long as the one before.

    The last cycle is as long as all are: a run that ends within it ends on its way down.
    """

    first: Duration = _ONE_UPDATE
    factor: int = 1

    def _resolve(self, total_steps: int | None, unit: str) -> Schedule:
        """As many cycles as it takes to fill the run."""
        if total_steps is None:
            raise ValueError(f"{self.recipe} needs total_steps to know its number of cycles; got None.")
        warmup, cycle = self.phases
        length = self.first.steps(total_steps)
        covered = warmup.duration.steps(total_steps) if warmup.duration else 0
        if covered > total_steps or not length >= 1:
            parts = [("warmup", covered, warmup.duration), ("first_cycle", length, self.first)]
            raise ValueError(does_not_fit(self.recipe, parts, total_steps, unit))
        lengths = [covered]
        while covered < total_steps:
            lengths.append(length)
            covered, length = covered + length, length * self.factor
            if len(lengths) > _MOST_CYCLES + 1:
                raise ValueError(
                    f"{self.recipe}: first_cycle must leave at most {_MOST_CYCLES} cycles in a run of {total_steps} "
                    f"updates, got {self.first}."
                )
        phases = [warmup, *(replace(cycle, name=f"cycle {number}") for number in range(1, len(lengths)))]
        return chain(phases, lengths, total_steps=total_steps)

    def needs_total_steps(self) -> bool:
        """Always: it says how many cycles there are."""
        return True


@dataclass(frozen=True, repr=False)
class SequenceSpec(ScheduleSpec):
    """Whole schedules one after the other, each in a run of its own length."""

    parts: tuple[tuple[ScheduleSpec, Duration | None], ...] = ()

    def _resolve(self, total_steps: int | None, unit: str) -> Schedule:
        """Every part in its own length; the one without a length takes what is left over."""
        if total_steps is None:
            raise ValueError(f"{self.recipe} needs total_steps, the length of the run in updates; got None.")
        fixed = [length.steps(total_steps) if length else 0 for _, length in self.parts]
        rest = total_steps - sum(fixed)
        if rest < 0:
            named = [(spec.recipe, steps, length) for (spec, length), steps in zip(self.parts, fixed, strict=True)]
            raise ValueError(does_not_fit(self.recipe, named, total_steps, unit))
        if rest >= len(self.parts) and all(length for _, length in self.parts):
            raise ValueError(
                f"{self.recipe} does not fill the run: its parts end at {_place(sum(fixed), unit)}, but total_steps is "
                f"{total_steps}. Give one part the length None: it takes what is left over."
            )
        phases: list[Phase] = []
        for (spec, length), steps in zip(self.parts, fixed, strict=True):
            own = steps if length else rest
            if own:
                phases.extend(spec._resolve(own, unit).phases)
        return Schedule(*phases)

    def needs_total_steps(self) -> bool:
        """Always."""
        return True


def chain(specs: Sequence[PhaseSpec], lengths: Sequence[int], *, total_steps: int) -> Schedule:
    """The phases of these lengths, one after the other; empty ones are left out, but for an endless last one."""
    phases: list[Phase] = []
    before = 1.0
    for spec, steps in zip(specs, lengths, strict=True):
        if steps > 0 or (total_steps == 0 and spec is specs[-1]):
            phases.append(spec.of_length(steps, total_steps=total_steps, before=before))
            before = phases[-1].end
    return Schedule(*phases)


def check_total_steps(total_steps: int) -> None:
    """Refuse what is no length of a run.

    Raises:
        ValueError: If it is not a whole number >= 1.
    """
    if isinstance(total_steps, bool) or not isinstance(total_steps, int) or total_steps < 1:
        raise ValueError(f"total_steps must be a whole number of updates >= 1, got {total_steps!r}.")


def does_not_fit(
    recipe: str, parts: Sequence[tuple[str, int, Duration | None]], total_steps: int, unit: str = "updates"
) -> str:
    """Why the parts (name, length, as written) do not fit into the run, with the sum written out."""
    known = [(name, steps, length) for name, steps, length in parts if length is not None]
    per = clock_ticks(unit)
    terms = " + ".join(
        f"{name} {steps / per if per > 1 else steps}" + (f" ({length})" if length.relative else "")
        for name, steps, length in known
    )
    needed = sum(steps for _, steps, _ in known)
    total = total_steps if unit == "updates" else in_words(total_steps, unit)
    return (
        f"{recipe} does not fit into the run: {terms} = {in_words(needed, unit)}, but total_steps is {total}. "
        "Shorten the phases or lengthen the run."
    )


def in_words(ticks: int, unit: str) -> str:
    """A length on a clock, to be read: ``12 updates``, ``2.5 seconds``."""
    per = clock_ticks(unit)
    return f"{ticks / per:g} {unit}" if per > 1 else f"{ticks} {unit}"


def _place(ticks: int, unit: str) -> str:
    return f"update {ticks}" if unit == "updates" else in_words(ticks, unit)


def _durations_in(value: Any) -> Iterator[Duration]:
    if isinstance(value, Duration):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _durations_in(part)
    elif isinstance(value, ScheduleSpec | PhaseSpec):
        for name in _parts(value):
            yield from _durations_in(getattr(value, name))


def _converted(value: Value, convert: Callable[[Duration], Duration]) -> Value:
    """A copy of a description, of a part of one, or of a tuple of them, with other lengths."""
    if isinstance(value, Duration):
        return convert(value)  # type: ignore[return-value]
    if isinstance(value, tuple):
        return tuple(_converted(part, convert) for part in value)  # type: ignore[return-value]
    if isinstance(value, ScheduleSpec | PhaseSpec) and is_dataclass(value):
        return replace(value, **{name: _converted(getattr(value, name), convert) for name in _parts(value)})
    return value


def _parts(value: ScheduleSpec | PhaseSpec) -> list[str]:
    """Names of what a description is made of; its settings only say how it was written."""
    return [part.name for part in fields(value) if part.name != "settings"]
