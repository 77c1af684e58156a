"""What is known of an update before it is applied, and how to say what is wrong with it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from .._lightning import LightningModule, Trainer
from ..gradients import GradientReading
from ._shards import parameters_of_update


@dataclass(frozen=True)
class Seen:
    """What all ranks together know of an update that is about to be applied; loss is None where nobody saw one."""

    loss: float | None
    norm: float

    def values(self) -> dict[str, float]:
        """Both by name."""
        return {"gradient norm": self.norm} if self.loss is None else {"loss": self.loss, "gradient norm": self.norm}

    def finite(self) -> bool:
        """Whether neither is NaN or infinite."""
        return all(math.isfinite(value) for value in self.values().values())


def on_all_ranks(trainer: Trainer, reading: GradientReading, loss: Tensor | None, losses: int) -> Seen | None:
    """Mean loss and norm over ranks, the same numbers on all of them; None without any gradient.

    A sum is all it takes: what is not finite on one rank is not finite in the sum. One reduction, one host copy.

    Args:
        trainer: Whose run it is.
        reading: This rank's reading of the update.
        loss: Sum of the losses of the update, shape ``()``; None if nobody saw any.
        losses: How many there were.
    """
    device, dtype = trainer.strategy.root_device, wide(reading.total)
    numbers = torch.tensor([losses, any(reading.present), 0, 0]).to(device, dtype, non_blocking=True)
    numbers[2] = reading.total
    if loss is not None:
        numbers[3] = loss
    with_loss, with_gradient, norm, total = trainer.strategy.reduce(numbers, reduce_op="sum").tolist()
    if not with_gradient:
        return None
    return Seen(total / with_loss if with_loss else None, norm / trainer.world_size)


def described(
    trainer: Trainer, module: LightningModule, optimizer: Optimizer, reading: GradientReading, seen: Seen, text: str
) -> str:
    """What was wrong with an update, and where."""
    numbers = ", ".join(f"{name} {value:.6g}" for name, value in seen.values().items())
    names = {parameter: name.replace("_fsdp_wrapped_module.", "") for name, parameter in module.named_parameters()}
    norms = reading.norms.double().cpu()
    bad = (~norms.isfinite()).nonzero().flatten().tolist()
    if not math.isfinite(seen.norm) and not bad:
        return f"{text} ({numbers}); the gradient that is not finite is another rank's."
    parameters = list(dict.fromkeys(parameters_of_update(trainer, optimizer)))
    at = bad[0] if bad else int(norms.argmax())
    name = names.get(parameters[at], f"number {at} of {type(optimizer).__name__}")  # type: ignore[call-overload]
    which = f"the first of {len(bad)} gradients that are not finite is that of" if bad else "the largest gradient is of"
    return f"{text} ({numbers}); {which} {name} (norm {norms[at]:.6g})."


def wide(tensor: Tensor) -> torch.dtype:
    """The widest float of the tensor's device."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64
