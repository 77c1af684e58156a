"""Writing metrics through the Trainer's loggers."""

from collections.abc import Mapping
from weakref import WeakSet

import torch

from .._lightning import Trainer, logger_step, rank_zero_warn

_FAILED: "WeakSet[object]" = WeakSet()


def write(trainer: Trainer, metrics: Mapping[str, float]) -> None:
    """Hand ``metrics`` to every logger, at the step where ``self.log`` puts this update.

    They also appear in ``trainer.callback_metrics``, where ModelCheckpoint and EarlyStopping look. A
    logger that fails is warned about once and never ends the run.
    """
    values = torch.tensor(list(metrics.values())).to(trainer.strategy.root_device, non_blocking=True)
    trainer.callback_metrics.update(zip(metrics, values.unbind(), strict=True))
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        try:
            logger.log_metrics(dict(metrics), step=logger_step(trainer))
        except Exception as error:  # noqa: BLE001 - whatever a logger raises, training goes on
            if logger not in _FAILED:
                _FAILED.add(logger)
                rank_zero_warn(f"{type(logger).__name__} could not log {sorted(metrics)}: {error}. Training goes on.")
