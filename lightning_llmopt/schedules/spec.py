"""Schedules whose lengths still wait for the length of the run."""

from dataclasses import dataclass

from .durations import Duration
from .phases import Phase, Schedule


@dataclass(frozen=True)
class PhaseSpec:
    """A phase without its number of updates.

    Args:
        name: Name of the phase.
        duration: Its length; ``None`` for whatever the other phases leave over.
        start: Multiplier where it begins [1].
        end: Multiplier where it ends [1].
        shape: Name of the curve between them, a key of ``SHAPES``.
    """

    name: str
    duration: Duration | None
    start: float
    end: float
    shape: str = "linear"

    def of_length(self, steps: int) -> Phase:
        """This phase, ``steps`` updates long."""
        return Phase(self.name, steps, self.start, self.end, self.shape)


@dataclass(frozen=True)
class ScheduleSpec:
    """A schedule described by its phases, no numbers yet. The recipes (``wsd``, ``cosine``, ...) return these.

    Args:
        recipe: Name of the recipe, for messages.
        phases: The phases in order; at most one has no duration and takes what the others leave over.
    """

    recipe: str
    phases: tuple[PhaseSpec, ...]

    def resolve(self, *, total_steps: int | None) -> Schedule:
        """The schedule for a run of ``total_steps`` updates.

        Args:
            total_steps: Length of the run [updates], >= 1; ``None`` if nobody knows it, which suits only
                schedules that do not depend on it (such as ``constant(warmup=2000)``).

        Raises:
            ValueError: If ``total_steps`` is not a whole number >= 1, if the phases do not fit into it
                (the message shows the sum), or if it is ``None`` and the schedule needs it.

        Example:
            >>> from lightning_llmopt.schedules import wsd
            >>> schedule = wsd(warmup=2, decay="40%", shape="linear").resolve(total_steps=10)
            >>> [schedule(step) for step in range(11)]
            [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
        """
        if total_steps is None:
            return self._resolve_open()
        if isinstance(total_steps, bool) or not isinstance(total_steps, int) or total_steps < 1:
            raise ValueError(f"total_steps must be a whole number of updates >= 1, got {total_steps!r}.")

        fixed = [phase.duration.steps(total_steps) if phase.duration else 0 for phase in self.phases]
        rest = total_steps - sum(fixed)
        if rest < 0:
            raise ValueError(self._arithmetic(total_steps))
        lengths = [steps if phase.duration else rest for phase, steps in zip(self.phases, fixed, strict=True)]
        return Schedule(
            *(phase.of_length(steps) for phase, steps in zip(self.phases, lengths, strict=True) if steps > 0)
        )

    def needs_total_steps(self) -> bool:
        """Whether the curve depends on the length of the run."""
        *head, last = self.phases
        return not (
            last.duration is None
            and last.start == last.end
            and all(phase.duration and not phase.duration.relative for phase in head)
        )

    def _resolve_open(self) -> Schedule:
        """The schedule of a run without a known end: its last phase is flat, so its value simply holds."""
        if self.needs_total_steps():
            raise ValueError(f"{self.recipe} needs total_steps, the length of the run in updates; got None.")
        *head, last = self.phases
        known = [phase.of_length(phase.duration.steps(0)) for phase in head if phase.duration]
        return Schedule(*(phase for phase in known if phase.steps > 0), last.of_length(0))

    def _arithmetic(self, total_steps: int) -> str:
        """Why the phases do not fit, with the sum written out."""
        fixed = [(phase.name, phase.duration) for phase in self.phases if phase.duration]
        terms = " + ".join(
            f"{name} {duration.steps(total_steps)}" + (f" ({duration})" if duration.relative else "")
            for name, duration in fixed
        )
        needed = sum(duration.steps(total_steps) for _, duration in fixed)
        return (
            f"{self.recipe} does not fit into the run: {terms} = {needed} updates, but total_steps is {total_steps}. "
            "Shorten the phases or lengthen the run."
        )
