"""How many updates each optimizer will make: the Trainer's own estimate is 0, -1 or inf where it matters."""

import math
from typing import Any

from .._lightning import GradientAccumulationScheduler, MisconfigurationException, Trainer, batches_behind
from ..schedules import Schedule, ScheduleSpec


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
    starts = {0: trainer.accumulate_grad_batches}
    for callback in _accumulation_schedulers(trainer):
        starts = dict(sorted(callback.scheduling.items()))
    ends = [*list(starts)[1:], max(last, now)]
    spans = zip(starts.items(), ends, strict=True)
    left = [(window, min(end, last) - max(start, now)) for (start, window), end in spans]
    return [(window, epochs) for window, epochs in left if epochs > 0]


def _accumulation_schedulers(trainer: Trainer) -> list[GradientAccumulationScheduler]:
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, GradientAccumulationScheduler)]


def resolve(spec: ScheduleSpec, trainer: Trainer, *, total: int | None) -> Schedule:
    """The schedule for this run of ``total`` updates, if that is known.

    Under ``fast_dev_run``, where the run is shorter than anybody means it, a schedule that does not fit
    plays its first updates.

    Raises:
        MisconfigurationException: If the length of the run is needed and not known, or if the schedule
            does not fit into it.
    """
    if total is None and spec.needs_total_steps():
        raise MisconfigurationException(
            f"LRSchedule({spec.recipe}) needs the length of the run, and it is not known: max_steps is "
            f"{trainer.max_steps}, max_epochs is {trainer.max_epochs}, an epoch has {trainer.num_training_batches} "
            "batches. Set Trainer(max_steps=...), or max_epochs and a loader that has a length, or "
            "LRSchedule(..., total=...)."
        )
    try:
        return spec.resolve(total_steps=total)
    except ValueError as error:
        if trainer.fast_dev_run and total is not None:  # type: ignore[attr-defined]
            return _resolve_longer(spec, total)
        raise MisconfigurationException(f"LRSchedule: {error}") from None


def _resolve_longer(spec: ScheduleSpec, total_steps: int) -> Schedule:
    """The schedule in a run that is doubled until it fits; lengths below 100 % always do in the end."""
    for _ in range(64):
        total_steps *= 2
        try:
            return spec.resolve(total_steps=total_steps)
        except ValueError:
            continue
    raise MisconfigurationException(f"LRSchedule: {spec.recipe} does not fit into a run of any length.")
