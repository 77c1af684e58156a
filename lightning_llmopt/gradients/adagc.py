"""Limits for the norm of every tensor's gradient that follow its own past (AdaGC)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .clipping import check_between


@dataclass(frozen=True)
class AdaGCRule:
    r"""How far each tensor's gradient may exceed its own running norm :math:`\gamma`.

    In the warmup the whole gradient is clipped to ``max_norm``, and :math:`\gamma` is the smallest clipped norm
    seen. Later each gradient is clipped to ``relative`` :math:`\gamma`, and
    :math:`\gamma \leftarrow \beta \gamma + (1 - \beta) \|g_{clipped}\|`: it grows by at most
    :math:`1 + (1 - \beta)(relative - 1)` an update. A norm that is not finite changes no :math:`\gamma`.

    Args:
        relative: Largest norm over :math:`\gamma` that is left alone [1], > 1.
        beta: Weight of the past [1], in (0, 1).
        warmup_steps: Length of the warmup [updates], >= 1.
        max_norm: Limit of the whole gradient in the warmup [unit of the gradient], > 0.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Wang et al. 2025 (AdaGC), https://arxiv.org/abs/2502.11034.

    Example:
        >>> rule = AdaGCRule(warmup_steps=1)
        >>> state, factors = rule(torch.tensor([1.0, 1.0]), torch.tensor([3.0]))  # 1 update so far, gamma 1
        >>> factors, state
        (tensor([0.3500]), tensor([2.0000, 1.0010]))
    """

    relative: float = 1.05
    beta: float = 0.98
    warmup_steps: int = 100
    max_norm: float = 1.0

    def __post_init__(self) -> None:
        check_between("relative", self.relative, 1.0, math.inf)
        check_between("beta", self.beta, 0.0, 1.0)
        check_between("max_norm", self.max_norm, 0.0, math.inf)
        whole = isinstance(self.warmup_steps, int) and not isinstance(self.warmup_steps, bool)
        if not whole or self.warmup_steps < 1:
            raise ValueError(f"warmup_steps must be a whole number of updates >= 1, got {self.warmup_steps!r}.")

    def start(self, tensors: int, device: torch.device | str = "cpu") -> Tensor:
        """The state before the first update: the count, then every tensor's running norm, shape ``(1 + tensors,)``."""
        return torch.cat([torch.zeros(1, device=device), torch.full((tensors,), math.inf, device=device)])

    @torch.no_grad()
    def __call__(self, state: Tensor, norms: Tensor) -> tuple[Tensor, Tensor]:
        """State after this update, and the factor for every gradient; nothing is copied to the host.

        Args:
            state: As ``start`` or the last call returned it, shape ``(1 + n,)``.
            norms: Norm of every gradient, shape ``(n,)``; 0 where a tensor has none in this update.

        Returns:
            The new state, shape ``(1 + n,)``, and the factors, shape ``(n,)``, in [0, 1]: 1 where a norm is not finite.
        """
        count, gamma = state[0], state[1:]
        finite = torch.isfinite(norms)
        warm = count < self.warmup_steps
        total = torch.linalg.vector_norm(norms)
        whole = torch.clamp(self.max_norm / (total + 1e-6), max=1.0).expand_as(norms)
        own = torch.clamp(self.relative * gamma / norms.clamp(min=torch.finfo(norms.dtype).tiny), max=1.0)
        unknown = torch.isinf(gamma)  # no gradient in the whole warmup
        factors = torch.where(warm | unknown, whole, own)
        factors = torch.where(finite & torch.isfinite(factors), factors, torch.ones_like(factors))
        clipped = norms * factors
        lowest = torch.where(clipped > 0, torch.minimum(gamma, clipped), gamma)
        new = torch.where(warm | unknown, lowest, self.beta * gamma + (1 - self.beta) * clipped)
        new = torch.where(finite & (norms > 0), new, gamma)
        return torch.cat([(count + torch.isfinite(total)).reshape(1), new]), factors
