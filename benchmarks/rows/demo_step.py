"""A whole training step of the demo, with our callbacks and without.

Real Trainers with the same model, optimizer, data and logger (TensorBoard, every 50 steps) take turns in one process;
they differ in their callbacks only. A turn is one step on CPU, 50 steps on a GPU. *The same again* is a second
Trainer without callbacks: how far it is from 1 is what this measurement cannot see.
"""

import random
import tempfile
from dataclasses import dataclass, field

import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_llmopt.callbacks import GradientNormClip, GradientNormMonitor, LRSchedule
from lightning_llmopt.schedules import wsd

from ..demo import DemoGPT, loader
from ..fits import TurnTaking, quiet_trainer
from ..harness import Quartiles, Settings, no_collection
from ..tables import Table

LOG_EVERY = 50
WITHOUT = "Trainer without callbacks"
OURS = "with LRSchedule, GradientNormClip and GradientNormMonitor"


@dataclass
class Contender:
    """One way to train.

    Args:
        callbacks: What it adds to the Trainer.
        clip: ``gradient_clip_val`` of the Trainer.
        lambda_lr: Whether the module brings a LambdaLR.
    """

    callbacks: list[Callback] = field(default_factory=list)
    clip: float | None = None
    lambda_lr: bool = False

    def begin(self, turns: int, settings: Settings) -> TurnTaking:
        """The training, after its first turn."""
        steps = 1 if settings.device == "cpu" else LOG_EVERY
        total = (turns + 2) * steps
        taking = TurnTaking(steps=steps, device=settings.device)
        trainer = quiet_trainer(
            accelerator=settings.device,
            max_steps=total,
            log_every_n_steps=LOG_EVERY,
            logger=TensorBoardLogger(tempfile.mkdtemp(prefix="benchmarks-")),
            gradient_clip_val=self.clip,
            callbacks=[*self.callbacks, taking],
        )
        torch.manual_seed(0)
        taking.begin(trainer, DemoGPT(lambda_lr=self.lambda_lr, total_steps=total), loader(total))
        return taking


def run(settings: Settings) -> list[Table]:
    """Four trainings that take turns."""
    turns = settings.rounds(2 * LOG_EVERY + 1 if settings.device == "cpu" else 21, quick=8)
    contenders = {
        WITHOUT: Contender(),
        "the same again": Contender(),
        "with gradient_clip_val and LambdaLR": Contender(clip=1.0, lambda_lr=True),
        OURS: Contender(
            callbacks=[
                LRSchedule(wsd(warmup="2%", decay="20%")),
                GradientNormClip(max_norm=1.0),
                GradientNormMonitor(),
            ]
        ),
    }
    times = _take_turns(contenders, turns, settings)
    return [Table("training step of the demo", WITHOUT, times, notes=_notes(times))]


def _take_turns(contenders: dict[str, Contender], turns: int, settings: Settings) -> dict[str, list[float]]:
    """One reading a turn of each."""
    trainings = {name: contender.begin(turns, settings) for name, contender in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in trainings}
    shuffle = random.Random(settings.seed).shuffle
    with no_collection():
        for _ in range(turns):
            order = list(trainings)
            shuffle(order)
            for name in order:
                times[name].append(trainings[name].turn())
    for training in trainings.values():
        training.end()
    return times


def _notes(times: dict[str, list[float]]) -> list[str]:
    """What our callbacks add in milliseconds."""
    added = Quartiles.of([(mine - other) * 1e3 for mine, other in zip(times[OURS], times[WITHOUT], strict=True)])
    return [f"Ours adds {added.median:.2f} [{added.lower:.2f}, {added.upper:.2f}] ms a turn."]
