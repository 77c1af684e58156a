"""A schedule in a run: which multiplier each optimizer's coming update gets."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from .._lightning import MisconfigurationException, Trainer, time_limit
from ..schedules import (
    Course,
    Duration,
    Phase,
    Schedule,
    ScheduleSpec,
    from_plain,
    spec_from_plain,
    spec_to_plain,
    to_plain,
)
from ._clock import RunClock
from ._horizon import Horizon, epochs_are_alike, updates_in_epochs

Curve = Schedule | Callable[[int], float]


@dataclass(frozen=True)
class Plan:
    """A schedule made for a run: everything that decides its rates, and nothing that moves.

    Args:
        horizon: Where the run ends.
        curve: A schedule on the clock of ``unit``, or a function of update numbers; ``None`` if ``spec`` mixes units.
        spec: The description, where its units are mixed.
        unit: Clock of ``curve``.
        updates_per_epoch: What ``spec`` takes an epoch for.
        timed: The description once more, if ``max_time`` may end the run before its updates do.
        time_limit: That time [microseconds].
    """

    horizon: Horizon
    curve: Curve | None = None
    spec: ScheduleSpec | None = None
    unit: str = "updates"
    updates_per_epoch: int = 0
    timed: ScheduleSpec | None = None
    time_limit: int = 0

    @property
    def mixed(self) -> ScheduleSpec | None:
        """The description with epochs as the updates that they are."""
        return self._in_updates(self.spec)

    @property
    def by_the_time(self) -> ScheduleSpec | None:
        """The same of ``timed``."""
        return self._in_updates(self.timed)

    def _in_updates(self, spec: ScheduleSpec | None) -> ScheduleSpec | None:
        def converted(length: Duration) -> Duration:
            if length.unit != "epochs":
                return length
            return Duration(Fraction(int(length.amount * self.updates_per_epoch)))

        return spec and spec.with_lengths(converted)

    def units(self) -> set[str]:
        """Clocks that have to be counted."""
        mixed = _units_of(self.mixed) if self.mixed else set()
        clocks = {self.unit, self.horizon.unit, *mixed}
        timed = self.by_the_time
        return clocks if timed is None else clocks | {"seconds"} | _units_of(timed)

    def same_but_for_its_end(self, plain: dict[str, Any] | None) -> bool:
        """Whether ``plain`` is this plan in a run of another length, played phase by phase."""
        mine = self.to_plain()
        if mine is None or plain is None or "spec" not in mine:
            return False
        return {**mine, "total": 0, "time_limit": 0} == {**plain, "total": 0, "time_limit": 0}

    def to_plain(self) -> dict[str, Any] | None:
        """In plain types, for a checkpoint; ``None`` for what nobody can write down, such as a function."""
        where: dict[str, Any] = {"total": self.horizon.ticks, "total_unit": self.horizon.unit, "unit": self.unit}
        where["updates_per_epoch"] = self.updates_per_epoch
        if self.timed is not None and self.timed.settings is not None:
            where.update(timed=spec_to_plain(self.timed), time_limit=self.time_limit)
        if isinstance(self.curve, Schedule):
            return {"phases": to_plain(self.curve), **where}
        if self.spec is None or self.spec.settings is None:
            return None
        return {"spec": spec_to_plain(self.spec), **where}

    def with_time_limit(self, schedule: Any, limit: int | None, updates_per_epoch: int) -> "Plan":
        """This plan, with an eye on the time: a schedule whose last phases can begin earlier, in a run of updates."""
        if limit is None or self.horizon.unit != "updates" or not isinstance(schedule, ScheduleSpec):
            return self
        if type(schedule) is not ScheduleSpec or schedule.open_at + 1 >= len(schedule.phases):
            return self
        return replace(self, timed=schedule, time_limit=limit, updates_per_epoch=updates_per_epoch)

    @staticmethod
    def from_plain(plain: dict[str, Any]) -> "Plan":
        """What ``to_plain`` was made of."""
        curve = from_plain(plain["phases"]) if "phases" in plain else None
        spec = spec_from_plain(plain["spec"]) if "spec" in plain else None
        horizon = Horizon(plain["total"], plain["total_unit"])
        timed = spec_from_plain(plain["timed"]) if "timed" in plain else None
        limit = plain.get("time_limit", 0)
        return Plan(horizon, curve, spec, plain["unit"], plain.get("updates_per_epoch", 0), timed, limit)


def plan(
    who: str, schedule: ScheduleSpec | Curve, horizon: Horizon, trainer: Trainer, *, total_is_given: bool = False
) -> Plan:
    """The schedule for this run.

    A schedule that has phases which end with the run (``wsd``) lets them begin by the time, where ``max_time`` is
    the first limit to come and nobody said how long the run is.

    Under ``fast_dev_run``, where the run is shorter than anybody means it, a schedule that does not fit
    plays its first updates.

    Raises:
        MisconfigurationException: If the length of the run is needed and not known, or if the schedule
            does not fit into it.
    """
    if not isinstance(schedule, ScheduleSpec):
        return Plan(horizon, schedule)
    spec, per_epoch = schedule, _updates_per_epoch(schedule, trainer)
    limit = None if total_is_given else time_limit(trainer)
    if horizon.ticks is None and spec.needs_total_steps():
        raise MisconfigurationException(
            f"{who}({spec.recipe}) needs the length of the run, and it is not known: max_steps is {trainer.max_steps}, "
            f"max_epochs is {trainer.max_epochs}, an epoch has {trainer.num_training_batches} batches, and there is no "
            "max_time. Set Trainer(max_steps=...) or Trainer(max_time=...), or max_epochs and a loader that has a "
            f"length, or {who}(..., total=...) in updates, tokens, samples or time. For a run that ends when you say "
            "so, take constant(warmup=...), and anneal_now when it is time."
        )
    try:
        return _fitted(spec, horizon, per_epoch).with_time_limit(spec, limit, per_epoch)
    except ValueError as error:
        if trainer.fast_dev_run and horizon.ticks is not None:  # type: ignore[attr-defined]
            return _fitted_longer(spec, horizon, per_epoch)
        raise MisconfigurationException(f"{who}: {error}") from None


def _fitted(spec: ScheduleSpec, horizon: Horizon, updates_per_epoch: int) -> Plan:
    """On one clock if that is possible."""
    mixed = Plan(horizon, None, spec, horizon.unit, updates_per_epoch)
    described = mixed.mixed or spec
    units = _units_of(described)
    unit = horizon.unit if horizon.ticks is not None else next(iter(units), "updates")
    if units <= {unit}:
        return Plan(horizon, described.resolve(total_steps=horizon.ticks, unit=unit), unit=unit)
    Course(described, total=horizon.ticks, unit=horizon.unit)  # refuses what cannot be mixed
    return mixed


def _units_of(spec: ScheduleSpec) -> set[str]:
    return {length.unit for length in spec.lengths()} - {"run"}


def _fitted_longer(spec: ScheduleSpec, horizon: Horizon, updates_per_epoch: int) -> Plan:
    """The schedule in a run that is doubled until it fits; lengths below 100 % always do in the end."""
    for doubling in range(1, 64):
        try:
            return _fitted(spec, Horizon((horizon.ticks or 1) << doubling, horizon.unit), updates_per_epoch)
        except ValueError:
            continue
    raise MisconfigurationException(f"{spec.recipe} does not fit into a run of any length.")


def _updates_per_epoch(spec: ScheduleSpec, trainer: Trainer) -> int:
    """What an epoch is in updates, if anybody asks; 0 if not."""
    in_epochs = [length for length in spec.lengths() if length.unit == "epochs"]
    if in_epochs and not epochs_are_alike(trainer):
        raise MisconfigurationException(
            f"{spec.recipe}: a length of {in_epochs[0]} means a different number of updates in every epoch, since a "
            "GradientAccumulationScheduler is at work. Write it in updates or as a part of the run."
        )
    return updates_in_epochs(trainer, Fraction(1)) if in_epochs else 0


@dataclass(frozen=True)
class Cooldown:
    """A last phase that was asked for while the run was going on.

    Args:
        curve: From the multiplier at that moment to the floor, in one phase.
        start: Where it begins on the clock of ``unit``.
        unit: Clock that it is played on.
    """

    curve: Schedule
    start: int
    unit: str


class Playing:
    """The multiplier of every optimizer's coming update.

    Args:
        plan: What to play.
        clock: How far each optimizer is.
    """

    def __init__(self, plan: Plan, clock: RunClock) -> None:
        self.plan, self.clock = plan, clock
        total, unit = plan.horizon.ticks, plan.horizon.unit
        mixed = plan.mixed
        self.courses = [Course(mixed, total=total, unit=unit) for _ in clock.counts] if mixed else []
        self.cooldowns: list[Cooldown | None] = [None] * len(clock.counts)
        timed = plan.by_the_time
        self.timed = [Course(timed, total=plan.time_limit, unit="seconds") for _ in clock.counts] if timed else []
        self._in_updates = plan.curve if plan.unit == "updates" and not plan.spec else None

    def __call__(self, index: int) -> float:
        """Multiplier of the coming update of that optimizer.

        Raises:
            ValueError: If a function of the user's returns something that is no finite number >= 0.
        """
        if (cooldown := self.cooldowns[index]) is not None:
            step, width = self._place(index, cooldown.unit)
            return cooldown.curve(max(0, step - cooldown.start), width)
        multiplier = self._by_plan(index)
        if self.timed and self._time_is_up(index, multiplier):
            return self.timed[index](self.clock.before(index), self.clock.after(index))
        return multiplier

    def _by_plan(self, index: int) -> float:
        """What the plan has, whatever the time."""
        if self._in_updates is not None:
            if isinstance(self._in_updates, Schedule):
                return self._in_updates(self.clock.counts[index])
            return multiplier_at(self._in_updates, self.clock.counts[index])
        if self.courses:
            return self.courses[index](self.clock.before(index), self.clock.after(index))
        step, width = self._place(index, self.plan.unit)
        return self.plan.curve(step, width)  # type: ignore[call-arg, misc]

    def phase(self, index: int) -> str | None:
        """Name of the phase of the coming update, if the curve has phases."""
        if (cooldown := self.cooldowns[index]) is not None:
            return cooldown.curve.phases[0].name
        if self.timed and self.timed[index].ending:
            return self.timed[index].phase
        if self.courses:
            return self.courses[index].phase
        if isinstance(self.plan.curve, Schedule):
            return self.plan.curve.phase_at(self.clock.before(index)[self.plan.unit]).name
        return None

    def phase_names(self) -> list[str]:
        """All phases in order, if the curve has phases; the cooldown that can be asked for comes last."""
        source = self.plan.spec or self.plan.curve
        phases = source.phases if isinstance(source, ScheduleSpec | Schedule) else ()
        return [*dict.fromkeys(phase.name for phase in phases), "anneal"]

    def progress(self, index: int) -> float | None:
        """Part of the run that lies behind the coming update, in [0, 1]; ``None`` if the run has no known end."""
        if (cooldown := self.cooldowns[index]) is not None:
            end = cooldown.start + cooldown.curve.total_steps
            return min(1.0, self._place(index, cooldown.unit)[0] / max(1, end))
        if self.timed and self.timed[index].ending:
            return min(1.0, self._place(index, "seconds")[0] / max(1, self.plan.time_limit))
        if self.plan.horizon.ticks is None:
            return None
        return min(1.0, self._place(index, self.plan.horizon.unit)[0] / max(1, self.plan.horizon.ticks))

    def ended(self, index: int) -> bool:
        """Whether the coming update lies behind the end of the run."""
        progress = self.progress(index)
        return progress is not None and progress >= 1

    def anneal(self, index: int, length: int, unit: str, *, shape: str, floor: float) -> None:
        """Go down from here, over ``length`` ticks of ``unit``."""
        if self.cooldowns[index] is None:
            phase = Phase("anneal", length, self(index), floor, shape)
            self.cooldowns[index] = Cooldown(Schedule(phase), self._place(index, unit)[0], unit)

    def state_dict(self) -> dict[str, Any]:
        """What moves, in plain types."""
        cooldowns = [
            cooldown and {"phases": to_plain(cooldown.curve), "start": cooldown.start, "unit": cooldown.unit}
            for cooldown in self.cooldowns
        ]
        return {
            "courses": [course.state_dict() for course in self.courses],
            "timed": [course.state_dict() for course in self.timed],
            "cooldowns": cooldowns,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        for course, saved in zip(self.courses, state["courses"], strict=False):
            course.load_state_dict(saved)
        for course, saved in zip(self.timed, state.get("timed", []), strict=False):
            course.load_state_dict(saved)
        for index, saved in enumerate(state["cooldowns"][: len(self.cooldowns)]):
            if saved is not None:
                self.cooldowns[index] = Cooldown(from_plain(saved["phases"]), saved["start"], saved["unit"])

    def load_places(self, state: dict[str, Any]) -> None:
        """Go on in a run of another length: phases that had begun stay where they were, if none was ending."""
        for course, saved in zip(self.courses, state["courses"], strict=False):
            if not saved["ends"]:
                course.load_state_dict(saved)

    def cut_short(self) -> str | None:
        """What is to be said of phases that did not fit, once it is known."""
        return next((course.cut for course in [*self.courses, *self.timed] if course.cut), None)

    def _time_is_up(self, index: int, multiplier: float) -> bool:
        """Whether the last phases have begun by the time, before they would by the updates; never undone."""
        course = self.timed[index]
        if course.ending:
            return True
        if self._ends_by_updates(index):
            return False
        course(self.clock.before(index), self.clock.after(index))
        if course.ending:
            course.end_from(multiplier)
        return course.ending

    def _ends_by_updates(self, index: int) -> bool:
        """Whether the last phases have begun by the updates."""
        if self.courses:
            return self.courses[index].ending
        curve = self.plan.curve
        if not isinstance(curve, Schedule) or self.plan.timed is None:
            return True
        last = {phase.name for phase in self.plan.timed.phases[self.plan.timed.open_at + 1 :]}
        return curve.phase_at(self.clock.counts[index]).name in last

    def _place(self, index: int, unit: str) -> tuple[int, int]:
        """Where the coming update begins on that clock, and how wide it is."""
        if unit == "updates":
            return self.clock.counts[index], 1
        before = self.clock.before(index)[unit]
        return before, self.clock.after(index)[unit] - before


def multiplier_at(curve: Curve, step: int) -> float:
    """The curve's value as a plain float: what goes into a checkpoint must load with ``weights_only=True``.

    Raises:
        ValueError: If it is no finite number >= 0.
    """
    value = curve(step)
    try:
        multiplier = float(value)
    except (TypeError, ValueError):
        multiplier = math.nan
    if not 0 <= multiplier < math.inf:
        raise ValueError(f"schedule({step}) must be a finite number >= 0, got {value!r}.")
    return multiplier


def check_curve(schedule: Any) -> Schedule | Callable[[int], float]:
    """What it was given, once it is known to be a function of an update number, by calling it with 0.

    Raises:
        ValueError: If ``schedule`` cannot be called so, or does not return a multiplier.
    """
    if isinstance(schedule, type) or not callable(schedule):
        raise ValueError(f"schedule must be a recipe such as wsd(...), a Schedule or a function, got {schedule!r}.")
    try:
        schedule(0)
    except Exception as error:
        raise ValueError(
            f"schedule must be a recipe such as wsd(...) with its brackets, a Schedule, or a function of an update "
            f"number; got {schedule!r}, which fails for 0: {error}"
        ) from error
    multiplier_at(schedule, 0)
    return schedule
