"""One look at the gradients of an update, to be shared by everyone who asks."""

from collections.abc import Iterable

import torch
from torch import Tensor

from .clipping import clip_coefficient, scale_
from .norms import gradients_of, tensor_norms, total_norm


class GradientReading:
    """The norms of one update's gradients as they were before anyone clipped them.

    The gradients are read once, here. Nothing is copied to the host, and no gradient is kept alive.

    Args:
        parameters: The parameters of the update; those without a gradient are left out and those listed
            twice count once.
        loss_scale: Factor that the gradients still carry, shape ``()``; ``None`` if they carry none.

    Attributes:
        norms: L2 norm of each gradient, shape ``(n,)``.
        total: L2 norm of all of them together, shape ``()``.
        coefficient: Product of the factors applied by ``clip_``, shape ``()``, in [0, 1].
    """

    def __init__(self, parameters: Iterable[Tensor], *, loss_scale: Tensor | None = None) -> None:
        norms = tensor_norms(gradients_of(parameters))
        self.norms = norms if loss_scale is None else norms / loss_scale.to(norms.device)
        self.total = total_norm(self.norms)
        self.coefficient = torch.ones_like(self.total)

    def clip_(self, parameters: Iterable[Tensor], *, max_norm: float) -> None:
        """Shrink the gradients in place so that their norm is at most ``max_norm``.

        Nobody else may have changed them since the reading.

        Args:
            parameters: The same parameters again; their ``grad`` is changed in place.
            max_norm: Largest norm left alone [unit of the unscaled gradient], > 0.

        Raises:
            ValueError: If ``max_norm`` is not a finite number > 0.
        """
        factor = clip_coefficient(self.clipped, max_norm=max_norm)
        scale_(gradients_of(parameters), factor)
        self.coefficient = self.coefficient * factor

    @property
    def clipped(self) -> Tensor:
        """Total norm after clipping, shape ``()``; 0 where an infinite norm was clipped to nothing."""
        return torch.where(self.coefficient == 0, self.coefficient, self.total * self.coefficient)
