"""Clipping inside a fused optimizer's own pass over the gradients.

Fused kernels of torch divide gradients by ``optimizer.grad_scale`` while they read them: it is there for fp16 scaling,
and is not documented for anything else. Checked against torch 2.13; ``tests/callbacks/test_gradient_norm_clip.py``
fails when it moves.
"""

from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from .._lightning import MisconfigurationException, Trainer, loss_scaler
from ._optimizers import optimizer_names, parameters_of
from ._shards import has_engine


def refuse_folding(trainer: Trainer) -> None:
    """Refuse optimizers that cannot take the factor.

    Raises:
        MisconfigurationException: With the reason, and both ways out.
    """
    reason = "the fp16 scaler uses the same entry" if loss_scaler(trainer) is not None else None
    if has_engine(trainer):
        reason = "DeepSpeed steps by itself"
    for name, optimizer in zip(optimizer_names(trainer), trainer.optimizers, strict=True):
        if not getattr(optimizer, "_step_supports_amp_scaling", False):
            reason = f"{name} is not fused"
        elif any(isinstance(parameter, DTensor) for parameter in parameters_of(optimizer)):
            reason = f"{name} has DTensors"
    if reason is not None:
        raise MisconfigurationException(
            f"GradientNormClip(folded=True) cannot be: {reason}. Use fused=True of torch's AdamW, Adam or SGD on plain "
            "tensors in bf16 or fp32, or folded=False."
        )


def fold(optimizer: Optimizer, factor: Tensor) -> None:
    """Let the coming step, and no other, multiply its gradients by ``factor``, shape ``()``."""
    target: Any = optimizer
    target.grad_scale = 1.0 / factor.float()

    def forget(*_: Any) -> None:
        target.__dict__.pop("grad_scale", None)
        handle.remove()

    handle = optimizer.register_step_post_hook(forget)
