"""One look at the gradients of an update, to be shared by everyone who asks."""

from collections.abc import Iterable

import torch
from torch import Tensor

from .clipping import clip_coefficient, scale_
from .norms import total_norm
from .shards import Locate, any_sharded, dtype_for, gradient_shard, shard_norms, whole_norms


class GradientReading:
    """The norms of one update's gradients as they were before anyone clipped them.

    They are norms of whole gradients: those of sharded parameters are reduced over their own ranks, so every rank has
    to take a reading of the same parameters. The gradients are read once, here. Nothing is copied to the
    host, and no gradient is kept alive.

    Args:
        parameters: The parameters of the update; those listed twice count once.
        loss_scale: Factor that the gradients still carry, shape ``()``; ``None`` if they carry none.
        p: Order of the norms, >= 1 or ``math.inf``.
        locate: Where the gradient of a parameter lives; by default in its ``grad``, a plain tensor or a DTensor.

    Attributes:
        norms: Norm of each gradient, shape ``(n,)``, in the order in which the ``n`` distinct parameters were first
            mentioned; 0 for one without a gradient.
        present: For each of them whether it may have a gradient. One whose gradient is spread over ranks counts as
            present: another rank may hold all of it.
        total: Norm of all of them together, shape ``()``.
        skipped: Whether this update was called off after the reading; set by whoever does so.
        coefficient: Product of the factors applied by ``clip_``, shape ``()``, in [0, 1].

    Raises:
        ValueError: If ``p`` is below 1 or no number.
    """

    @torch.no_grad()
    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        loss_scale: Tensor | None = None,
        p: float = 2.0,
        locate: Locate = gradient_shard,
    ) -> None:
        self._p, self.skipped = p, False
        distinct = list(dict.fromkeys(parameters))
        device = distinct[0].device if distinct else None
        self._locate = locate if locate is not gradient_shard or any_sharded(distinct) else None
        if self._locate is None:  # the usual case, where every microsecond counts
            gradients = [parameter.grad for parameter in distinct]
            self.present = tuple([gradient is not None for gradient in gradients])
            norms = whole_norms(gradients, p=p, device=device)
        else:
            shards = [locate(parameter) for parameter in distinct]
            gradients = [shard.tensor for shard in shards]
            self.present = tuple([shard.tensor is not None or bool(shard.groups) for shard in shards])
            norms = shard_norms(shards, p=p, device=device)
        dtype = dtype_for(gradients)
        norms = norms if loss_scale is None else norms / loss_scale.to(norms.device)
        self.norms = norms.to(dtype)
        self.total = total_norm(norms, p=p).to(dtype)
        self.coefficient = torch.ones_like(self.total)

    @torch.no_grad()
    def clip_(self, parameters: Iterable[Tensor], *, max_norm: float) -> None:
        """Shrink the gradients in place so that their norm is at most ``max_norm``.

        Nobody else may have changed them since the reading. On CPU a factor of 1 is not written.

        Args:
            parameters: The same parameters again; their gradients are changed in place.
            max_norm: Largest norm left alone [unit of the unscaled gradient], > 0.

        Raises:
            ValueError: If ``max_norm`` is not a finite number > 0.
        """
        factor = self.note_clip(max_norm=max_norm)
        scale_([tensor for tensor in self.stored(parameters) if tensor is not None], factor)

    def note_clip(self, *, max_norm: float) -> Tensor:
        """The factor that ``clip_`` would multiply by, shape ``()``, for somebody else who does so.

        Raises:
            ValueError: If ``max_norm`` is not a finite number > 0.
        """
        factor = clip_coefficient(self.clipped, max_norm=max_norm)
        self.coefficient = self.coefficient * factor
        return factor

    @torch.no_grad()
    def clip_to_(self, parameters: Iterable[Tensor], *, limit: Tensor) -> None:
        """Shrink the gradients in place so that their norm is at most a limit that is known on the device only.

        Args:
            parameters: The same parameters again; their gradients are changed in place.
            limit: Largest norm left alone [unit of the unscaled gradient], shape ``()``; infinite for none.
        """
        factor = torch.where(self.clipped > limit, limit / (self.clipped + 1e-6), torch.ones_like(self.clipped))
        factor = torch.where(torch.isfinite(self.clipped), factor, torch.ones_like(factor))
        scale_([tensor for tensor in self.stored(parameters) if tensor is not None], factor)
        self.coefficient = self.coefficient * factor

    @torch.no_grad()
    def clip_each_(self, parameters: Iterable[Tensor], *, factors: Tensor) -> None:
        """Multiply the gradient of every parameter by a factor of its own, in place.

        Args:
            parameters: The same parameters again; their gradients are changed in place.
            factors: Shape ``(n,)``, as ``norms``, in [0, 1]. One that is not finite leaves its gradient alone.
        """
        factors = torch.where(torch.isfinite(factors), factors, torch.ones_like(factors)).to(self.norms.dtype)
        for tensor, factor in zip(self.stored(parameters), factors.unbind(), strict=True):
            if tensor is not None:
                tensor.mul_(factor.to(tensor.device))
        self.norms_after(self.norms * factors)

    def norms_after(self, norms: Tensor) -> None:
        """Note what the gradients' norms are now, if they were changed other than by one factor for all."""
        clipped = total_norm(norms.double() if norms.device.type != "mps" else norms, p=self._p).to(self.total.dtype)
        ratio = torch.where(self.total > 0, clipped / self.total, torch.ones_like(self.total))
        self.coefficient = ratio.nan_to_num(nan=1.0)

    @torch.no_grad()
    def measured_again(self, parameters: Iterable[Tensor], *, loss_scale: Tensor | None = None) -> None:
        """Note what the gradients' norms are now, by another look: for changes that no factor describes."""
        locate = self._locate or gradient_shard
        again = GradientReading(parameters, loss_scale=loss_scale, p=self._p, locate=locate)
        self.norms_after(again.norms)

    def stored(self, parameters: Iterable[Tensor]) -> list[Tensor | None]:
        """The memory of this rank that holds each gradient, for a change in place; ``None`` where there is none."""
        distinct = dict.fromkeys(parameters)
        if self._locate is None:
            return [parameter.grad for parameter in distinct]
        locate = self._locate
        return [locate(parameter).stored() for parameter in distinct]

    @property
    def clipped(self) -> Tensor:
        """Total norm after clipping, shape ``()``; 0 where an infinite norm was clipped to nothing."""
        return torch.where(self.coefficient == 0, self.coefficient, self.total * self.coefficient)
