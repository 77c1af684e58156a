"""The gradient norm in the logger and in the progress bar."""

from typing import Any

import torch
from torch.optim import Optimizer
from typing_extensions import override

from .._lightning import Callback, LightningModule, Trainer, is_logging_step, not_compiled
from ..gradients import GradientReading
from ._bar import hide, show
from ._log import write
from ._optimizers import index_of, optimizer_names
from ._readings import reading_for, run_last
from ._shards import refuse_unknown_shards, update_is_due, warn_of_unsharded


class GradientNormMonitor(Callback):
    """Log the norm of the gradient, before and after clipping.

    The norm is that of the whole gradient of the optimizer that steps, under every strategy that
    ``GradientNormClip`` names, after fp16 unscaling, after every other callback and before our clipping, read once
    and shared with ``GradientNormClip``. Values stay on the device until a logging step copies all of them at
    once. Needs no logger.

    Logged at each logging step, on the x axis of ``self.log``:

    - ``grad_norm/total``: L2 norm of the raw gradient;
    - ``grad_norm/clipped``: L2 norm of what the optimizer got (the same where nothing clips);
    - ``grad_norm/clip_coefficient``: the factor between them, in [0, 1].

    With several optimizers each tag ends in the optimizer's name, as in ``grad_norm/total/Adam-1``. The
    progress bar shows the last logged total as ``grad_norm``.

    Args:
        every_n_steps: Updates from one logging step to the next, >= 1; by default the Trainer's
            ``log_every_n_steps``.

    Raises:
        ValueError: If ``every_n_steps`` is not a whole number >= 1.
        MisconfigurationException: At fit start, if DeepSpeed offloads the optimizer.

    Example:
        >>> GradientNormMonitor(every_n_steps=10).every_n_steps
        10
    """

    def __init__(self, every_n_steps: int | None = None) -> None:
        if every_n_steps is not None and (
            isinstance(every_n_steps, bool) or not isinstance(every_n_steps, int) or every_n_steps < 1
        ):
            raise ValueError(f"every_n_steps must be a whole number of updates >= 1, got {every_n_steps!r}.")
        self.every_n_steps = every_n_steps
        self._readings: dict[int, GradientReading] = {}
        self._names: list[str] = []
        self._due: dict[str, float] = {}
        self._last: dict[str, float] = {}

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Move behind those who change gradients."""
        if stage == "fit":
            run_last(trainer, self)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at what the strategy has made of the model, and add the field to the progress bar."""
        refuse_unknown_shards(trainer, "GradientNormMonitor")
        warn_of_unsharded(trainer, "GradientNormMonitor")
        self._readings.clear()
        self._names, self._due, self._last = optimizer_names(trainer), {}, {}
        show(trainer, "grad_norm", self._shown)

    @override
    @not_compiled
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Take a reading if this update is to be logged."""
        if update_is_due(trainer) and is_logging_step(trainer, self.every_n_steps):
            self._readings[index_of(trainer, optimizer)] = reading_for(trainer, optimizer, self)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log what this update's readings say."""
        self._copy_to_host()
        if self._due:
            write(trainer, self._due)
        self._due = {}

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the progress bar as it was."""
        hide(trainer, "grad_norm")

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the progress bar as it was."""
        hide(trainer, "grad_norm")

    def _copy_to_host(self) -> None:
        """Turn the readings of this update into numbers, all at once; a bar that is drawn first has done so."""
        measured = {index: reading for index, reading in sorted(self._readings.items()) if any(reading.present)}
        self._readings.clear()
        if measured:
            self._last = self._due = _metrics(measured, self._names)

    def _shown(self) -> str | None:
        """The norm in the progress bar: the last one that was, or is about to be, logged."""
        self._copy_to_host()
        return f"{next(iter(self._last.values())):.3g}" if self._last else None


def _metrics(readings: dict[int, GradientReading], names: list[str]) -> dict[str, float]:
    """The three numbers of each optimizer under their tags: one copy to the host."""
    device = next(iter(readings.values())).total.device
    rows = [torch.stack((reading.total, reading.clipped, reading.coefficient)) for reading in readings.values()]
    values = torch.cat([row.to(device) for row in rows]).view(-1, 3).tolist()
    metrics = {}
    for index, (total, clipped, coefficient) in zip(readings, values, strict=True):
        suffix = f"/{names[index]}" if len(names) > 1 else ""
        metrics[f"grad_norm/total{suffix}"] = total
        metrics[f"grad_norm/clipped{suffix}"] = clipped
        metrics[f"grad_norm/clip_coefficient{suffix}"] = coefficient
    return metrics
