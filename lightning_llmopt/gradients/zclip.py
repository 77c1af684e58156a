"""A limit for the gradient norm that follows its running mean and spread (ZClip)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .clipping import check_between

_MODES = ("adaptive", "mean", "percentile")


@dataclass(frozen=True)
class ZClipRule:
    r"""What counts as a spike of the norm, and how far it is brought down.

    With mean :math:`\mu` and spread :math:`\sigma` of the norms so far, a norm :math:`g` is a spike if
    :math:`z = (g - \mu) / (\sigma + \epsilon) > z_{max}`. Mode ``"adaptive"`` limits it to
    :math:`\mu + z_{max}^2 \sigma / z` (the worse the spike, the lower), ``"mean"`` to :math:`\mu`,
    ``"percentile"`` to :math:`\mu + z_{max} \sigma`.
    The statistics go on with the limited norm, by a moving average of weight ``alpha``; the first
    ``warmup_steps`` norms only make the first statistics. Norms that are not finite change nothing.

    Args:
        z_max: Largest z-score left alone [1], > 0.
        alpha: Weight of the past in the moving averages [1], in (0, 1).
        warmup_steps: Norms that make the first statistics [updates], >= 2.
        max_norm: Limit in any case [unit of the gradient], > 0; ``None`` for none. The authors' default is 1.
        mode: ``"adaptive"``, ``"mean"`` or ``"percentile"``.
        factor: By which the adaptive limit is multiplied [1], in (0, 1].

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Kumar et al. 2025 (ZClip), https://arxiv.org/abs/2504.02507.

    Example:
        >>> rule = ZClipRule(max_norm=None)
        >>> state = torch.tensor([25.0, 1.0, 0.04], dtype=torch.float64)  # 25 norms: mean 1, variance 0.04
        >>> state, limit = rule(state, torch.tensor(2.0))
        >>> round(limit.item(), 4), [round(number, 6) for number in state.tolist()]
        (1.25, [26.0, 1.0075, 0.040564])
    """

    z_max: float = 2.5
    alpha: float = 0.97
    warmup_steps: int = 25
    max_norm: float | None = 1.0
    mode: str = "adaptive"
    factor: float = 1.0

    def __post_init__(self) -> None:
        check_between("z_max", self.z_max, 0.0, math.inf)
        check_between("alpha", self.alpha, 0.0, 1.0)
        if self.max_norm is not None:
            check_between("max_norm", self.max_norm, 0.0, math.inf)
        if self.factor != 1:
            check_between("factor", self.factor, 0.0, 1.0)
        whole = isinstance(self.warmup_steps, int) and not isinstance(self.warmup_steps, bool)
        if not whole or self.warmup_steps < 2:
            raise ValueError(f"warmup_steps must be a whole number of updates >= 2, got {self.warmup_steps!r}.")
        if self.mode not in _MODES:
            raise ValueError(f"mode must be one of {list(_MODES)}, got {self.mode!r}.")

    def start(self, device: torch.device | str = "cpu") -> Tensor:
        """The state before the first norm: count, mean and variance (times count, in the warmup), shape ``(3,)``."""
        return torch.zeros(3, dtype=torch.float64, device=device)

    @torch.no_grad()
    def __call__(self, state: Tensor, norm: Tensor) -> tuple[Tensor, Tensor]:
        """State after this norm, and the largest norm that is let through; nothing is copied to the host.

        Args:
            state: As ``start`` or the last call returned it, shape ``(3,)``.
            norm: Norm of the whole gradient, shape ``()``.

        Returns:
            The new state, shape ``(3,)``, and the limit, shape ``()`` and the dtype of ``norm``: infinite
            where nothing limits it.
        """
        count, mean, spread = state.unbind()
        value = norm.to(state.dtype)
        warm = count < self.warmup_steps
        endless = torch.full_like(value, math.inf)
        limit = torch.where(warm, endless, self._limit(value, mean, spread))
        accepted = torch.minimum(value, limit)
        first = _first_statistics(count, mean, spread, accepted, warmup_steps=self.warmup_steps)
        later_mean = self.alpha * mean + (1 - self.alpha) * accepted
        later = torch.stack([
            count + 1, later_mean, self.alpha * spread + (1 - self.alpha) * (accepted - later_mean) ** 2
        ])  # fmt: skip
        new = torch.where(torch.isfinite(value), torch.where(warm, first, later), state)
        if self.max_norm is not None:
            limit = limit.clamp(max=self.max_norm)
        return new, limit.to(norm.dtype)

    def _limit(self, value: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        deviation = variance.clamp(min=0).sqrt()
        score = (value - mean) / (deviation + 1e-6)
        if self.mode == "adaptive":
            limit = (mean + self.z_max**2 * deviation / score) * self.factor
        else:
            limit = mean if self.mode == "mean" else mean + self.z_max * deviation
        return torch.where(score > self.z_max, limit, torch.full_like(value, math.inf))


def _first_statistics(count: Tensor, mean: Tensor, squares: Tensor, value: Tensor, *, warmup_steps: int) -> Tensor:
    """One more norm in the warmup (Welford): the sum of squares becomes the variance with the last one."""
    count = count + 1
    new_mean = mean + (value - mean) / count
    squares = squares + (value - mean) * (value - new_mean)
    return torch.stack([count, new_mean, torch.where(count >= warmup_steps, squares / count, squares)])
