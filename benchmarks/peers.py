"""How others do it, one function a peer. Each returns the work to be timed, or says what to install."""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from lightning.pytorch.utilities import grad_norm
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR, LRScheduler, SequentialLR

from .harness import Work
from .params import Gradients


def missing(module: str, *, pip: str) -> str | None:
    """What to install for ``module``; ``None`` if it is there.

    Example:
        >>> missing("json", pip="json"), missing("no_such_peer", pip="no-such-peer")
        (None, 'not installed: pip install no-such-peer')
    """
    return None if find_spec(module) else f"not installed: pip install {pip}"


def torch_clip(gradients: Gradients, max_norm: float) -> Work:
    """Clipping alone, no per-tensor norms: ``torch.nn.utils.clip_grad_norm_``."""
    return lambda: torch.nn.utils.clip_grad_norm_(gradients.parameters, max_norm)


def item_loop_clip(gradients: Gradients, max_norm: float) -> Work:
    """The loop that tutorials show, one copy to the host a parameter, then torch's clipping."""

    def work() -> tuple[dict[int, float], Tensor]:
        norms = {index: p.grad.norm().item() for index, p in enumerate(gradients.parameters) if p.grad is not None}
        return norms, torch.nn.utils.clip_grad_norm_(gradients.parameters, max_norm)

    return work


def lightning_clip(gradients: Gradients, max_norm: float) -> Work:
    """``lightning.pytorch.utilities.grad_norm``, then torch's clipping."""

    def work() -> tuple[dict[str, float], Tensor]:
        norms = grad_norm(gradients.module, norm_type=2)
        return norms, torch.nn.utils.clip_grad_norm_(gradients.parameters, max_norm)

    return work


def composer_clip(gradients: Gradients, max_norm: float) -> Work:
    """What Composer's OptimizerMonitor computes by default, then torch's clipping.

    Transcribed from its description: the L2 norm of every gradient, the root of the sum of their
    squares, each number handed to the logger on its own. Composer does this every 10th batch.
    """

    def work() -> tuple[dict[str, float], Tensor]:
        norms: dict[str, Tensor] = {}
        for name, parameter in gradients.module.named_parameters():
            if parameter.grad is not None and parameter.requires_grad:
                norms[f"l2_norm/grad/{name}"] = torch.linalg.vector_norm(parameter.grad)
        total: Any = 0.0
        for norm in norms.values():
            total += norm**2
        norms["l2_norm/grad/global"] = total**0.5
        numbers = {name: norm.item() for name, norm in norms.items()}
        return numbers, torch.nn.utils.clip_grad_norm_(gradients.parameters, max_norm)

    return work


def lambda_lr(optimizer: Optimizer, curve: Callable[[int], float]) -> LRScheduler:
    """Torch's scheduler for any curve."""
    return _quietly(lambda: LambdaLR(optimizer, curve))


def sequential_lr(optimizer: Optimizer, *, warmup: int, total: int) -> LRScheduler:
    """Torch's way to spell out warmup and cosine."""
    return _quietly(
        lambda: SequentialLR(
            optimizer,
            [
                LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup),
                CosineAnnealingLR(optimizer, T_max=total - warmup),
            ],
            milestones=[warmup],
        )
    )


def transformers_cosine(optimizer: Optimizer, *, warmup: int, total: int) -> LRScheduler:
    """Hugging Face's cosine with warmup, a LambdaLR."""
    from transformers import get_cosine_schedule_with_warmup

    return _quietly(
        lambda: get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=warmup, num_training_steps=total)
    )


def _quietly(build: Callable[[], LRScheduler]) -> LRScheduler:
    """Schedulers of torch warn about their own inner calls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build()
