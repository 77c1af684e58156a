"""What it costs to watch gradients by layer, and to write many scalars at once.

The first table is made like *step of nearly nothing* in the row ``demo_step``: real Trainers on 146 tensors with
next to no arithmetic take turns, a turn is one step; here norms are computed and written to TensorBoard in every one
of them. In the second, 149 scalars of one step go to TensorBoard, whose thread encodes and stores them later; two
lines wait for it.
"""

import tempfile
from itertools import count
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import grad_norm
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from lightning_llmopt.callbacks import GradientNormMonitor
from lightning_llmopt.callbacks._log import write, write_to

from ..demo import BARELY_A_MODEL
from ..fits import Inside, quiet_trainer
from ..harness import Settings, Variant, Work, interleave
from ..tables import Table, reasons
from ..turns import Contender, take_turns
from .schedule import ManyGroups

WITHOUT = "Trainer without callbacks"
LOOP = "SummaryWriter.add_scalar, 149 times"
ONE_EVENT = "ours: one event"
SCALARS = 149


def run(settings: Settings) -> list[Table]:
    """Watching, and writing."""
    turns = settings.rounds(400 if settings.device == "cpu" else 20, quick=10)
    watching = take_turns(_contenders(), BARELY_A_MODEL, turns=turns, settings=settings)
    return [Table("watched in every update", WITHOUT, watching), _writing(settings)]


def _contenders() -> dict[str, Contender]:
    def every(**asked: bool) -> Contender:
        return Contender(callbacks=[GradientNormMonitor(1, **asked)])

    return {
        WITHOUT: Contender(),
        "the same again": Contender(),
        "ours: totals": every(),
        "ours: per layer": every(per_layer=True),
        "ours: per layer and per parameter": every(per_layer=True, per_parameter=True),
        "ours: per layer, with updates, weights and moments": every(
            per_layer=True, updates=True, parameters=True, moments=True
        ),
        "Lightning: log_dict(grad_norm(...)), as in its docs": Contender(callbacks=[_LogDict()]),
    }


class _LogDict(Callback):
    """The usual pattern: every norm through ``log_dict``."""

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Log the norm of every parameter and the total."""
        pl_module.log_dict(grad_norm(pl_module, norm_type=2))


def _writing(settings: Settings) -> Table:
    tables: list[Table] = []
    metrics = {f"grad_norm/parameter/blocks.{index}.weight": index / 7 for index in range(SCALARS)}

    def measure(trainer: Trainer, module: LightningModule) -> None:
        logger: Any = trainer.logger
        variants = [
            Variant(name, work, before=logger.experiment.flush) for name, work in _works(trainer, metrics).items()
        ]
        times = interleave(variants, rounds=settings.rounds(201, quick=5), seed=settings.seed)
        tables.append(Table(f"{SCALARS} scalars", LOOP, times, reasons(variants)))

    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        trainer = quiet_trainer(callbacks=[Inside(measure)], max_steps=1, logger=TensorBoardLogger(folder))
        trainer.fit(ManyGroups(1), DataLoader(TensorDataset(torch.zeros(1))))
    return tables[0]


def _works(trainer: Trainer, metrics: dict[str, float]) -> dict[str, Work]:
    logger: Any = trainer.logger
    steps = count()

    def loop() -> None:
        step = next(steps)
        for tag, value in metrics.items():
            logger.experiment.add_scalar(tag, value, step)

    def flushed(work: Work) -> Work:
        def both() -> None:
            work()
            logger.experiment.flush()

        return both

    def one_event() -> None:
        write_to(logger, metrics, next(steps))

    return {
        LOOP: loop,
        "Lightning: TensorBoardLogger.log_metrics": lambda: logger.log_metrics(metrics, step=next(steps)),
        ONE_EVENT: one_event,
        "ours: one event, and trainer.callback_metrics": lambda: write(trainer, metrics),
        "the loop, and wait for the disk": flushed(loop),
        "ours: one event, and wait for the disk": flushed(one_event),
    }
