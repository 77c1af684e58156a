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
from ._readings import reading_for, run_last
from ._shards import (
    engine_clip_value,
    parameters_of_update,
    refuse_unknown_shards,
    take_over_engine_clipping,
    update_is_due,
    warn_of_unsharded,
)


class GradientNormClip(Callback):
    """Shrink the gradient of every update whose norm is above ``max_norm``.

    The norm is that of the whole gradient of the optimizer that steps, whatever the strategy: one device, DDP, FSDP,
    ``ModelParallelStrategy`` (FSDP2, tensor parallel, hybrid) and DeepSpeed ZeRO-1, 2 and 3. It is read once and shared
    with ``GradientNormMonitor``. Clipping comes after fp16 unscaling and after every callback has seen the
    raw gradient, wherever it stands in the list; it works in manual optimization too. A gradient whose
    norm is NaN is left alone: scaling it would spread it to every parameter.

    Args:
        max_norm: Largest norm left alone [unit of the unscaled gradient], > 0.

    Raises:
        ValueError: If ``max_norm`` is not a finite number > 0.
        MisconfigurationException: At fit start, if ``Trainer(gradient_clip_val=...)`` or DeepSpeed's
            ``gradient_clipping`` is set as well, or if DeepSpeed offloads the optimizer.

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
        _refuse_second_clipper(trainer)
        if is_overridden("configure_gradient_clipping", pl_module):
            rank_zero_warn(
                f"{type(pl_module).__name__}.configure_gradient_clipping runs after GradientNormClip and sees "
                "clipped gradients. Remove one of the two."
            )
        run_last(trainer, self)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at what the strategy has made of the model."""
        refuse_unknown_shards(trainer, "GradientNormClip")
        warn_of_unsharded(trainer, "GradientNormClip")
        take_over_engine_clipping(trainer, "GradientNormClip")

    @override
    @not_compiled
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Scale the gradients in place."""
        if update_is_due(trainer):
            reading = reading_for(trainer, optimizer, self)
            reading.clip_(parameters_of_update(trainer, optimizer), max_norm=self.max_norm)


def _refuse_second_clipper(trainer: Trainer) -> None:
    if trainer.gradient_clip_val:
        name, setting = "gradient_clip_val", f"Trainer(gradient_clip_val={trainer.gradient_clip_val!r})"
    elif value := engine_clip_value(trainer):
        name, setting = "gradient_clipping", f"gradient_clipping={value!r} in the config of DeepSpeed"
    else:
        return
    raise MisconfigurationException(
        f"Two clippers: GradientNormClip and {setting}. Remove {name}, or remove GradientNormClip from the callbacks."
    )
