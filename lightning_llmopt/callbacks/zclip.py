"""Clipping of spikes of the gradient norm, by its running mean and spread."""

import torch
from torch import Tensor
from typing_extensions import override

from ..gradients import GradientReading, ZClipRule
from ._stateful_clipper import StatefulClipper


class ZClip(StatefulClipper):
    r"""Bring the gradient down where its norm is a spike against the norms so far.

    With mean :math:`\mu` and spread :math:`\sigma` of the norms, a norm :math:`g` is a spike if
    :math:`z = (g - \mu) / \sigma > z_{max}`. The statistics are saved with the checkpoint, one for
    each optimizer; norms that are not finite, and updates that are called off, do not enter them. Works
    under every strategy that ``GradientNormClip`` knows; nothing is copied to the host.

    Args:
        z_max: Largest z-score left alone [1], > 0.
        alpha: Weight of the past in the moving averages [1], in (0, 1).
        warmup_steps: Norms that make the first statistics [updates], >= 2; only ``max_norm`` clips meanwhile.
        max_norm: Limit in any case [unit of the gradient], > 0; ``None`` for none.
        mode: ``"adaptive"`` (the worse the spike, the lower), ``"mean"`` or ``"percentile"``.
        factor: By which the adaptive limit is multiplied [1], in (0, 1].

    Raises:
        ValueError: If an argument is out of range.
        MisconfigurationException: At fit start, if another clipper is set.

    Source:
        Kumar et al. 2025 (ZClip), https://arxiv.org/abs/2504.02507.

    Example:
        >>> ZClip(z_max=3.0, max_norm=None).rule.mode
        'adaptive'
    """

    def __init__(
        self,
        z_max: float = 2.5,
        *,
        alpha: float = 0.97,
        warmup_steps: int = 25,
        max_norm: float | None = 1.0,
        mode: str = "adaptive",
        factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.rule = ZClipRule(z_max, alpha, warmup_steps, max_norm, mode, factor)

    @override
    def size(self, tensors: int) -> int:
        """Count, mean and variance."""
        return 3

    @override
    def start(self, tensors: int, device: torch.device) -> Tensor:
        """Nothing seen."""
        return self.rule.start(device)

    @override
    def follow(self, state: Tensor, reading: GradientReading, parameters: list[Tensor]) -> Tensor:
        """Clip to the limit of this norm."""
        new, limit = self.rule(state, reading.total)
        reading.clip_to_(parameters, limit=limit)
        return new
