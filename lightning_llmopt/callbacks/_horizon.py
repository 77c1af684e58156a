"""How long the run is, and on which clock: the Trainer's own estimate is 0, -1 or inf where it matters."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from .._lightning import (
    GradientAccumulationScheduler,
    MisconfigurationException,
    Trainer,
    batches_behind,
    is_a,
    time_limit,
)
from ..schedules import Duration, clock_ticks


@dataclass(frozen=True)
class Horizon:
    """Where the run ends.

    Args:
        ticks: Length of the whole run on the clock of ``unit``; ``None`` if nobody knows it.
        unit: ``"updates"``, ``"tokens"``, ``"samples"`` or ``"seconds"`` (in microseconds).
    """

    ticks: int | None
    unit: str = "updates"

    def __str__(self) -> str:
        if self.ticks is None:
            return "unknown"
        per = clock_ticks(self.unit)
        return f"{self.ticks / per:g} {self.unit}" if per > 1 else f"{self.ticks} {self.unit}"


def horizon(trainer: Trainer, total: Duration | None, *, updates: int | None) -> Horizon:
    """The length that the user gave, or else the Trainer's own.

    Args:
        trainer: Whose run it is.
        total: What the user said, if anything.
        updates: The Trainer's own length in updates, if it has one.

    Raises:
        MisconfigurationException: If ``total`` is in epochs and an epoch has no length.
    """
    if total is None:
        limit = time_limit(trainer)
        return Horizon(limit, "seconds") if updates is None and limit is not None else Horizon(updates)
    if total.unit == "epochs":
        return Horizon(updates_in_epochs(trainer, total.amount))
    return Horizon(total.ticks(), total.unit)


def updates_in_epochs(trainer: Trainer, epochs: Fraction) -> int:
    """Updates of each optimizer in the first so many epochs of the run; a part of one is rounded down.

    Raises:
        MisconfigurationException: If an epoch has no length.
    """
    batches = trainer.num_training_batches
    if not math.isfinite(batches):
        raise MisconfigurationException(
            f"A length in epochs ({float(epochs):g}) needs epochs of a known length, and the loader has none. Write it "
            "in updates or tokens, or set Trainer(limit_train_batches=...)."
        )
    whole = int(epochs)
    starts = _windows_by_epoch(trainer)

    def of_epoch(epoch: int) -> int:
        window = next(size for start, size in reversed(starts.items()) if start <= epoch)
        return math.ceil(batches / window)

    if len(starts) == 1:
        return int(of_epoch(0) * epochs)
    return sum(map(of_epoch, range(whole))) + int(of_epoch(whole) * (epochs - whole))


def epochs_are_alike(trainer: Trainer) -> bool:
    """Whether all epochs have the same number of updates."""
    return len(_windows_by_epoch(trainer)) == 1


def what_sets_the_length(trainer: Trainer) -> list[Any]:
    """Everything that the length of a run depends on, as plain values: if it is unchanged, so is the length."""
    schedulers: list[Any] = [callback.scheduling for callback in _accumulation_schedulers(trainer)]
    windows = schedulers or [trainer.accumulate_grad_batches]
    return [trainer.max_steps, trainer.max_epochs, float(trainer.num_training_batches), *windows]


def updates_per_optimizer(trainer: Trainer) -> int | None:
    """Updates that each optimizer makes in the whole run; ``None`` if nobody can know.

    ``max_steps`` and ``max_epochs`` times the batches of an epoch, whichever ends first, accumulation
    counted (a GradientAccumulationScheduler too). In manual optimization Lightning's ``max_steps``
    counts the steps of all optimizers together, and each is taken to step once a batch. In a resumed
    run it is what has been done and what is left, whatever the epochs so far were like.

    Valid from ``on_train_start``, when the loaders are set up and the loops restored.
    """
    automatic = trainer.lightning_module.automatic_optimization
    optimizers = 1 if automatic else max(1, len(trainer.optimizers))
    limits = []
    if (left := _updates_left_in_epochs(trainer)) is not None:
        done = trainer.global_step if automatic else trainer.fit_loop.epoch_loop.total_batch_idx + 1
        limits.append(left + done)
    if trainer.max_steps != -1:
        limits.append(math.ceil(trainer.max_steps / optimizers))
    return min(limits, default=None)


def _updates_left_in_epochs(trainer: Trainer) -> int | None:
    """Updates until ``max_epochs``, or None if epochs do not end the run or have no length."""
    batches = trainer.num_training_batches
    if trainer.max_epochs is None or trainer.max_epochs < 0 or not math.isfinite(batches):
        return None
    windows = _accumulation_windows(trainer)
    left = sum(math.ceil(batches / window) * epochs for window, epochs in windows)
    behind = batches_behind(trainer)
    if not (behind and windows):
        return left
    window = windows[0][0]
    return left - (math.ceil(batches / window) if behind == batches else behind // window)


def _accumulation_windows(trainer: Trainer) -> list[tuple[int, int]]:
    """(batches an update, number of epochs with that) for this epoch and those to come."""
    now, last = trainer.current_epoch, trainer.max_epochs or 0
    starts = _windows_by_epoch(trainer)
    ends = [*list(starts)[1:], max(last, now)]
    spans = zip(starts.items(), ends, strict=True)
    left = [(window, min(end, last) - max(start, now)) for (start, window), end in spans]
    return [(window, epochs) for window, epochs in left if epochs > 0]


def _windows_by_epoch(trainer: Trainer) -> dict[int, int]:
    """Batches an update, from each epoch on that changes them; the first is 0."""
    starts = {0: trainer.accumulate_grad_batches}
    for callback in _accumulation_schedulers(trainer):
        starts = dict(sorted(callback.scheduling.items()))
    return starts


def _accumulation_schedulers(trainer: Trainer) -> list[GradientAccumulationScheduler]:
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if is_a(callback, GradientAccumulationScheduler)]
