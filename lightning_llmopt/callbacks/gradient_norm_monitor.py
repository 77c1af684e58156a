"""The gradient norm in the logger and in the progress bar."""

from typing import Any

import torch
from torch.optim import Optimizer
from typing_extensions import override

from .._lightning import Callback, LightningModule, Trainer, is_logging_step
from ..gradients import GradientReading
from ._bar import hide, show
from ._log import write
from ._optimizers import index_of, optimizer_names
from ._readings import reading_for
from ._strategy import refuse_sharded_gradients


class GradientNormMonitor(Callback):
    """Log the norm of the gradient, before and after clipping.

    The norm is that of all gradients of the optimizer that steps, after fp16 unscaling and before any
    clipping, read once and shared with ``GradientNormClip``. Values stay on the device until a logging
    step copies all of them at once. Needs no logger.

    Logged at each logging step, on the x axis of ``self.log``:

    - ``grad_norm/total``: L2 norm of the raw gradient;
    - ``grad_norm/clipped``: L2 norm of what the optimizer got (the same where nothing clips);
    - ``grad_norm/clip_coefficient``: the factor between them, in (0, 1].

    With several optimizers each tag ends in the optimizer's name, as in ``grad_norm/total/Adam-1``. The
    progress bar shows the last logged total as ``grad_norm``.

    Args:
        every_n_steps: Updates from one logging step to the next, >= 1; by default the Trainer's
            ``log_every_n_steps``.

    Raises:
        ValueError: If ``every_n_steps`` is not a whole number >= 1.
        MisconfigurationException: At fit start, if the strategy shards gradients.

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
        self._last_total: float | None = None

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse strategies whose gradients this version cannot measure."""
        if stage == "fit":
            refuse_sharded_gradients(trainer, "GradientNormMonitor")

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the field to the progress bar."""
        self._readings.clear()
        self._last_total = None
        show(trainer, "grad_norm", lambda: None if self._last_total is None else f"{self._last_total:.3g}")

    @override
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Take a reading if this update is to be logged."""
        if is_logging_step(trainer, self.every_n_steps):
            self._readings[index_of(trainer, optimizer)] = reading_for(trainer, optimizer, self)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Copy the readings of this update to the host, all at once, and log them."""
        measured = {index: reading for index, reading in self._readings.items() if len(reading.norms)}
        self._readings.clear()
        if measured:
            metrics = _metrics(measured, optimizer_names(trainer))
            self._last_total = next(iter(metrics.values()))
            write(trainer, metrics)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the progress bar as it was."""
        hide(trainer, "grad_norm")

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the progress bar as it was."""
        hide(trainer, "grad_norm")


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
