"""Lines for a schedule and a run whose lengths do not match."""

from .._lightning import Trainer, is_logging_step, rank_zero_warn, time_limit, training_timer
from ._optimizers import optimizer_names
from ._playing import Playing

_SOME_UPDATES = 20  # the first ones are no pace
_NEARLY = 0.9  # of the length: the rest may be a matter of rounding


class LengthHints:
    """Says once what looks unintended; for a schedule that follows the Trainer's own length in updates.

    Args:
        follows: Whether the schedule's length is the Trainer's own, and matters.
    """

    def __init__(self, *, follows: bool) -> None:
        self._follows = follows
        self._past_end: set[int] = set()
        self._time_is_short = False

    def under_way(self, trainer: Trainer, playing: Playing, index: int) -> None:
        """One line for an optimizer that trains on after its schedule, and one for a time limit that will cut it."""
        length = playing.plan.horizon.ticks
        if length is None or any(playing.cooldowns):
            return
        if playing.plan.horizon.unit != "updates" or not self._follows:
            return
        if index not in self._past_end and playing.clock.counts[index] >= length:
            self._past_end.add(index)
            rank_zero_warn(
                f"LRSchedule: {optimizer_names(trainer)[index]} has made {playing.clock.counts[index]} updates, which "
                "is all that the schedule was made for, and training goes on at the schedule's end value. Say "
                "LRSchedule(..., total=...)."
            )
        if is_logging_step(trainer) and not (self._time_is_short or playing.timed):
            self._look_at_the_time(trainer, playing.clock.counts[index], length)

    def ended(self, trainer: Trainer, playing: Playing, indices: list[int]) -> None:
        """One line if the run is over and the schedule, or a cooldown that was asked for, is not."""
        cooling = any(playing.cooldowns)
        if trainer.fast_dev_run or not (cooling or (self._follows and not trainer.should_stop)):  # type: ignore[attr-defined]
            return
        for index in indices:
            progress, count = playing.progress(index), playing.clock.counts[index]
            if not count or progress is None or progress >= (1 if cooling else _NEARLY):
                continue
            what = f"the run ended after {count} updates of {optimizer_names(trainer)[index]}, but the "
            if cooling:
                rank_zero_warn(
                    f"LRSchedule: {what}cooldown that was asked for was not over. Give the Trainer more time."
                )
            else:
                rank_zero_warn(
                    f"LRSchedule: {what}schedule was made for {playing.plan.horizon.ticks}, so its end was not reached."
                    f" If the run is meant to be that long, say LRSchedule(..., total={count})."
                )

    def _look_at_the_time(self, trainer: Trainer, count: int, length: int) -> None:
        limit, timer = time_limit(trainer), training_timer(trainer)
        if limit is None or timer is None or count < _SOME_UPDATES:
            return
        spent = timer.time_elapsed() * 1e6
        if spent > 0.05 * limit and (reached := int(count * limit / spent)) < _NEARLY * length:
            self._time_is_short = True
            rank_zero_warn(
                f"LRSchedule: at this pace max_time ends the run at about update {reached} of {length}, and the "
                f'schedule was made for all of them. LRSchedule(..., total="{limit / 6e7:g} min") ends with the time.'
            )
