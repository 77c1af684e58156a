"""One reading of the gradients per update, shared by all of our callbacks on one Trainer.

Sharing is safe because nobody else runs between those who share: each of them moves behind all other
callbacks at fit start (``run_last``).
"""

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.optim import Optimizer

from .._lightning import Callback, Checkpoint, Trainer, is_a, loss_scaler
from ..gradients import GradientReading
from ._optimizers import index_of
from ._shards import engine_loss_scale, gradient_locator, parameters_of_update


@dataclass
class _Shared:
    """A reading, the update it belongs to, and who has asked for it already."""

    reading: GradientReading
    update: int
    askers: set[int] = field(default_factory=set)


_READINGS: "WeakKeyDictionary[Trainer, dict[int, _Shared]]" = WeakKeyDictionary()


def reading_for(trainer: Trainer, optimizer: Optimizer, asker: Callback) -> GradientReading:
    """The norms of the gradients that ``optimizer`` is about to apply, read at most once an update.

    Call it once in ``on_before_optimizer_step``. The gradients are read again in one update only if
    ``asker`` has had this reading already: a closure that runs several times in a step, as in LBFGS. Every rank has to
    ask at the same updates. Norms stand in the order of ``parameters_of_update``.
    """
    shared = _READINGS.setdefault(trainer, {})
    index = index_of(trainer, optimizer)
    entry = shared.get(index)
    if entry is None or entry.update != trainer.global_step or id(asker) in entry.askers:
        parameters = parameters_of_update(trainer, optimizer)
        scale = _loss_scale(trainer, optimizer, parameters)
        reading = GradientReading(parameters, loss_scale=scale, locate=gradient_locator(trainer))
        entry = shared[index] = _Shared(reading, trainer.global_step)
    entry.askers.add(id(asker))
    return entry.reading


def reading_there(trainer: Trainer, optimizer: Optimizer) -> GradientReading | None:
    """The reading that somebody has taken of this update already; ``None`` if nobody looks at its norms."""
    entry = _READINGS.get(trainer, {}).get(index_of(trainer, optimizer))
    return entry.reading if entry is not None and entry.update == trainer.global_step else None


def forget_readings(trainer: Trainer) -> None:
    """Take nothing that was read so far for a reading of an update to come that has the same number."""
    _READINGS.pop(trainer, None)


def loss_scale_of(trainer: Trainer, optimizer: Optimizer) -> Tensor | None:
    """The factor that the gradients of this update still carry, shape ``()``; ``None`` if they carry none."""
    return _loss_scale(trainer, optimizer, parameters_of_update(trainer, optimizer))


def _loss_scale(trainer: Trainer, optimizer: Optimizer, parameters: list[Tensor]) -> Tensor | None:
    """The factor still on the gradients: fused optimizers take the fp16 loss scale off inside their step."""
    if (scale := engine_loss_scale(trainer)) != 1.0:
        return torch.tensor(scale)
    scaler = loss_scaler(trainer)
    if scaler is None or not getattr(optimizer, "_step_supports_amp_scaling", False):
        return None
    return scaler.scale(torch.ones((), device=parameters[0].device))  # stays on the device, unlike get_scale()


def run_last(trainer: Trainer, callback: Callback) -> None:
    """Move ``callback`` behind all others but the checkpoint callbacks, which Lightning keeps at the end.

    Whoever looks at gradients then sees them raw, and whoever changes them has done so. Of ours, those that clip
    (``CLIPS``) come behind those that only look.
    """
    others = [other for other in trainer.callbacks if other is not callback]  # type: ignore[attr-defined]
    checkpoints = [other for other in others if is_a(other, Checkpoint)]
    before = [other for other in others if not is_a(other, Checkpoint)]
    clippers = [other for other in before if getattr(other, "CLIPS", False)]
    lookers = [other for other in before if not getattr(other, "CLIPS", False)]
    ours = [*clippers, callback] if getattr(callback, "CLIPS", False) else [callback, *clippers]
    trainer.callbacks = [*lookers, *ours, *checkpoints]  # type: ignore[attr-defined]
