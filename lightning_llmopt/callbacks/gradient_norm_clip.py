"""Clipping by the norm of the whole gradient."""

from torch.optim import Optimizer
from typing_extensions import override

from .._lightning import (
    Callback,
    LightningModule,
    MisconfigurationException,
    Trainer,
    is_overridden,
    not_compiled,
    rank_zero_warn,
)
from ..gradients import check_max_norm
from ._optimizers import parameters_of
from ._readings import reading_for, run_last
from ._strategy import refuse_sharded_gradients


class GradientNormClip(Callback):
    """Shrink the gradient of every update whose norm is above ``max_norm``.

    The norm is that of all gradients of the optimizer that steps, read once and shared with
    ``GradientNormMonitor``. Clipping comes after fp16 unscaling and after every callback has seen the
    raw gradient, wherever it stands in the list; it works in manual optimization too. A gradient whose
    norm is NaN is left alone: scaling it would spread it to every parameter.

    Args:
        max_norm: Largest norm left alone [unit of the unscaled gradient], > 0.

    Raises:
        ValueError: If ``max_norm`` is not a finite number > 0.
        MisconfigurationException: At fit start, if ``Trainer(gradient_clip_val=...)`` is set as well, or
            if the strategy shards gradients.

    Source:
        Pascanu et al. 2013, https://arxiv.org/abs/1211.5063.

    Example:
        >>> GradientNormClip(max_norm=1.0).max_norm
        1.0
    """

    def __init__(self, max_norm: float) -> None:
        self.max_norm = check_max_norm(max_norm)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse clashes, and move behind the callbacks that only look."""
        if stage != "fit":
            return
        refuse_sharded_gradients(trainer, "GradientNormClip")
        _refuse_second_clipper(trainer)
        if is_overridden("configure_gradient_clipping", pl_module):
            rank_zero_warn(
                f"{type(pl_module).__name__}.configure_gradient_clipping runs after GradientNormClip and sees "
                "clipped gradients. Remove one of the two."
            )
        run_last(trainer, self)

    @override
    @not_compiled
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Scale the gradients in place."""
        reading = reading_for(trainer, optimizer, self)
        reading.clip_(parameters_of(optimizer), max_norm=self.max_norm)


def _refuse_second_clipper(trainer: Trainer) -> None:
    if trainer.gradient_clip_val:
        raise MisconfigurationException(
            f"Two clippers: GradientNormClip and Trainer(gradient_clip_val={trainer.gradient_clip_val!r}). "
            "Remove gradient_clip_val, or remove GradientNormClip from the callbacks."
        )
