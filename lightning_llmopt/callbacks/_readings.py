"""One reading of the gradients per update, shared by all of our callbacks on one Trainer."""

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.optim import Optimizer

from .._lightning import Callback, Trainer, loss_scaler
from ..gradients import GradientReading
from ._optimizers import index_of, parameters_of


@dataclass
class _Shared:
    """A reading, the update it belongs to, and who has asked for it already."""

    reading: GradientReading
    update: int
    askers: set[int] = field(default_factory=set)


_READINGS: "WeakKeyDictionary[Trainer, dict[int, _Shared]]" = WeakKeyDictionary()


def reading_for(trainer: Trainer, optimizer: Optimizer, asker: Callback) -> GradientReading:
    """The norms of the gradients that ``optimizer`` is about to apply, read at most once an update.

    Call it once in ``on_before_optimizer_step``. The gradients are read again only if somebody else
    changed them since, or if ``asker`` has had this reading already (a closure that runs several
    times in one step, as in LBFGS).
    """
    shared = _READINGS.setdefault(trainer, {})
    index, parameters = index_of(trainer, optimizer), parameters_of(optimizer)
    entry = shared.get(index)
    stale = (
        entry is None
        or entry.update != trainer.global_step
        or id(asker) in entry.askers
        or not entry.reading.describes(parameters)
    )
    if entry is None or stale:
        reading = GradientReading(parameters, loss_scale=_loss_scale(trainer, optimizer, parameters))
        entry = shared[index] = _Shared(reading, trainer.global_step)
    entry.askers.add(id(asker))
    return entry.reading


def _loss_scale(trainer: Trainer, optimizer: Optimizer, parameters: list[Tensor]) -> Tensor | None:
    """The factor still on the gradients: fused optimizers take the fp16 loss scale off inside their step."""
    scaler = loss_scaler(trainer)
    if scaler is None or not getattr(optimizer, "_step_supports_amp_scaling", False):
        return None
    return scaler.scale(parameters[0].new_ones((), dtype=torch.float32))  # stays on the device, unlike get_scale()
