"""Schedules whose lengths are in several units, played as the run goes."""

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from .durations import CLOCKS, Duration
from .spec import HalfLifeSpec, PhaseSpec, PowerLawSpec, ScheduleSpec, does_not_fit, in_words

Place = Mapping[str, int]
"""How far a run has come on every clock: updates, tokens, samples, microseconds (as ``"seconds"``)."""

_ENDLESS = 2**63
_TIMED_UPDATES = 10  # before so many, the time that an update takes is mostly that of starting up


class Course:
    """A schedule that nobody can turn into update numbers beforehand, such as 2,000 updates of warmup in an 8 h run.

    Phases before the one that takes what is left over are played on clocks of their own, from where the
    phase before them ended. Those after it (the decay of ``wsd``) end with the run: their lengths are told
    in the run's unit by the pace of the later half of the run so far, and are fixed when they begin.

    Args:
        spec: A description whose lengths are updates, tokens, samples, seconds or parts of the run.
        total: Length of the run [ticks of ``unit``]; ``None`` if nobody knows it.
        unit: Clock that the run ends by: ``"updates"``, ``"tokens"``, ``"samples"`` or ``"seconds"``.

    Raises:
        ValueError: If ``spec`` is one of those that must be counted on one clock (cycles, periods,
            sequences), or its lengths on the run's clock do not fit into it.

    Example:
        >>> from lightning_llmopt.schedules import wsd
        >>> course = Course(wsd(warmup=2, decay="400 tokens", shape="linear"), total=1_000, unit="tokens")
        >>> places = [{"updates": n, "tokens": n * 100, "samples": 0, "seconds": 0} for n in range(11)]
        >>> [course(here, there) for here, there in zip(places, places[1:])]
        [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]
    """

    def __init__(self, spec: ScheduleSpec, *, total: int | None, unit: str) -> None:
        if type(spec) is not ScheduleSpec:
            units = sorted({length.unit for length in spec.lengths()} - {"run"} | {unit})
            raise ValueError(
                f"{spec.recipe} must be counted on one clock, got lengths in {' and '.join(units)}. Write them in "
                f"{unit} or as parts of the run, or say the length of the run in their unit (total=)."
            )
        self.spec, self.total, self.unit = spec, total, unit
        self._units = [unit if phase.unit == "run" else phase.unit for phase in spec.phases]
        self._phases = spec.with_lengths(_in_ticks).phases
        self._open = spec.open_at
        self._leg, self._start, self._last, self._over = 0, 1.0, 1.0, False
        self._mark: Place = dict.fromkeys(CLOCKS, 0)
        self._past: Place = self._mark
        self._recent: Place = self._mark
        self._ends: list[int] = []
        self.cut: str | None = None
        self._refuse_what_cannot_fit()
        self._begin(0, self._mark)

    @property
    def ending(self) -> bool:
        """Whether a phase that ends with the run has begun."""
        return self._leg > self._open

    def end_from(self, multiplier: float) -> None:
        """Let the phase that ends with the run, and has just begun, begin at ``multiplier``."""
        self._start = multiplier

    @property
    def phase(self) -> str:
        """Name of the phase that the last update asked for belongs to."""
        return self._phases[self._leg].name

    def __call__(self, before: Place, after: Place) -> float:
        """Multiplier of the update that takes the run from ``before`` to ``after``; calls never go back."""
        if before["updates"] >= max(1, 2 * self._recent["updates"]):
            self._past, self._recent = self._recent, dict(before)
        while self._moves_on(before):
            pass
        if not self._over:  # what the run ends at holds for ever
            self._over = self.total is not None and before[self.unit] >= self.total
            self._last = self._multiplier(before, after)
        return self._last

    def state_dict(self) -> dict[str, Any]:
        """Where the course is, in plain types."""
        return {
            "leg": self._leg, "start": self._start, "last": self._last, "over": self._over, "mark": dict(self._mark),
            "past": dict(self._past), "recent": dict(self._recent), "ends": list(self._ends),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._leg, self._start, self._last = state["leg"], state["start"], state["last"]
        self._mark, self._past, self._recent = state["mark"], state["past"], state["recent"]
        self._ends, self._over = list(state["ends"]), state["over"]

    def _begin(self, leg: int, mark: Place, *, cut: bool = False) -> None:
        """Enter a phase at ``mark``; after a ``cut`` it goes on from the value there, whatever its own start is."""
        here = self._multiplier(mark, mark) if leg else 1.0
        own = self._phases[leg].start
        self._start = here if cut or own is None else own
        self._leg, self._mark = leg, dict(mark)

    def _moves_on(self, before: Place) -> bool:
        """Enter the next phase if this update belongs to it."""
        end, unit = self._end(), self._moving_unit()
        if self._leg + 1 < len(self._phases) and end is not None and before[unit] >= end:
            self._begin(self._leg + 1, {**before, unit: end})
            return True
        if self._leg > self._open or not (ends := self._tail(before)):
            return False
        cut = self._leg < self._open
        if cut:
            self.cut = self._cut_short(before)
        self._begin(self._open + 1, {**before, self.unit: ends[0]}, cut=cut)
        self._ends = ends
        return True

    def _tail(self, before: Place) -> list[int]:
        """Where the phases that end with the run begin, and its end, once the first has begun; else nothing."""
        tail = range(self._open + 1, len(self._phases))
        if not tail or self.total is None:
            return []
        lengths = [self._in_the_runs_unit(at, before) for at in tail]
        known = [length for length in lengths if length is not None]
        if len(known) < len(lengths) or before[self.unit] < self.total - sum(known):
            return []
        return [self.total - sum(known[at:]) for at in range(len(known) + 1)]

    def _cut_short(self, before: Place) -> str:
        """What is said if the phases that end with the run begin before those at its start are over."""
        phase, unit = self._phases[self._leg], self._moving_unit()
        done, end = before[unit] - self._mark[unit], self._end()
        whole = "" if end is None else f" of {in_words(end - self._mark[unit], unit)}"
        return (
            f"{self.spec.recipe} does not fit into the run: {phase.name} had {in_words(done, unit)}{whole} when "
            f"{self._phases[self._open + 1].name} had to begin, which goes down from there. Shorten the phases or "
            "lengthen the run."
        )

    def _in_the_runs_unit(self, leg: int, before: Place) -> int | None:
        """Length of a phase on the run's clock, by the pace so far; ``None`` before there is one."""
        duration = self.spec.phases[leg].duration or Duration(Fraction(0))
        if duration.relative:
            return duration.steps(self.total or 0)
        unit = duration.unit
        if unit == self.unit:
            return duration.ticks()
        timed = "seconds" in (unit, self.unit)
        run, own = before[self.unit] - self._past[self.unit], before[unit] - self._past[unit]
        if own <= 0 or (timed and before["updates"] < _TIMED_UPDATES):
            return None
        return int(duration.ticks() * Fraction(run, own))

    def _moving_unit(self) -> str:
        """Clock of the phase in force: its own, or the run's where it leads to the end of the run."""
        own = self._leg < self._open or _is_law(self._phases[self._leg])
        return self._units[self._leg] if own else self.unit

    def _end(self) -> int | None:
        """Where the phase in force ends on its clock; ``None`` if it is the one that takes what is left over."""
        if self._leg > self._open:
            return self._ends[self._leg - self._open]
        phase = self._phases[self._leg]
        if phase.duration is None:
            return None
        unit = self._units[self._leg]
        length = phase.duration.steps(self.total or 0)
        return max(length, self._mark[unit]) if phase.until else self._mark[unit] + length

    def _multiplier(self, before: Place, after: Place) -> float:
        phase, unit = self._phases[self._leg], self._moving_unit()
        step, width = before[unit] - self._mark[unit], after[unit] - before[unit]
        steps = _ENDLESS if _is_law(phase) else self._steps_left_over(before)
        played = replace(phase, start=None).of_length(steps, total_steps=self.total or 0, before=self._start)
        return played.end if step >= steps else played(step, width)

    def _steps_left_over(self, before: Place) -> int:
        """Length of the phase in force on its clock."""
        unit = self._moving_unit()
        if (end := self._end()) is not None:
            return end - self._mark[unit]
        if self.total is None:
            return _ENDLESS
        tail = [self._in_the_runs_unit(at, before) or 0 for at in range(self._open + 1, len(self._phases))]
        return max(0, self.total - sum(tail) - self._mark[unit])

    def _refuse_what_cannot_fit(self) -> None:
        """Refuse lengths on the run's clock that are longer than the run."""
        if self.total is None:
            return
        parts = [
            (phase.name, phase.duration.steps(self.total), self.spec.phases[at].duration)
            for at, phase in enumerate(self._phases)
            if phase.duration and not phase.until and self.spec.phases[at].unit in ("run", self.unit)
        ]
        if sum(ticks for _, ticks, _ in parts) > self.total:
            raise ValueError(does_not_fit(self.spec.recipe, parts, self.total, self.unit))


def _is_law(phase: PhaseSpec) -> bool:
    """Whether the phase leads wherever its law leads, on a clock of its own."""
    return isinstance(phase, PowerLawSpec | HalfLifeSpec)


def _in_ticks(length: Duration) -> Duration:
    return length if length.relative else Duration(Fraction(length.ticks()))
