"""Clipping of every tensor's gradient by its own past."""

import torch
from torch import Tensor
from typing_extensions import override

from ..gradients import AdaGCRule, GradientReading
from ._stateful_clipper import StatefulClipper


class AdaGC(StatefulClipper):
    r"""Bring the gradient of every tensor down to a little above its own running norm :math:`\gamma`.

    In the warmup the whole gradient is clipped to ``max_norm``. The running norms are saved with the checkpoint; norms
    that are not finite, and updates that are called off, do not enter them. Works under every strategy that
    ``GradientNormClip`` knows; nothing is copied to the host.

    Args:
        relative: Largest norm over :math:`\gamma` that is left alone [1], > 1.
        beta: Weight of the past [1], in (0, 1).
        warmup_steps: Length of the warmup [updates], >= 1.
        max_norm: Limit of the whole gradient in the warmup [unit of the gradient], > 0.

    Raises:
        ValueError: If an argument is out of range.
        MisconfigurationException: At fit start, if another clipper is set.

    Source:
        Wang et al. 2025 (AdaGC), https://arxiv.org/abs/2502.11034.

    Example:
        >>> AdaGC(warmup_steps=50).rule.relative
        1.05
    """

    def __init__(
        self, relative: float = 1.05, *, beta: float = 0.98, warmup_steps: int = 100, max_norm: float = 1.0
    ) -> None:
        super().__init__()
        self.rule = AdaGCRule(relative, beta, warmup_steps, max_norm)

    @override
    def size(self, tensors: int) -> int:
        """The count, and a running norm for every tensor."""
        return 1 + tensors

    @override
    def start(self, tensors: int, device: torch.device) -> Tensor:
        """Nothing seen."""
        return self.rule.start(tensors, device).double()

    @override
    def follow(self, state: Tensor, reading: GradientReading, parameters: list[Tensor]) -> Tensor:
        """Clip each tensor to its own limit."""
        new, factors = self.rule(state, reading.norms.to(state.dtype))
        reading.clip_each_(parameters, factors=factors)
        return new
