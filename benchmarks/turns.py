"""Real Trainers with the same model, data and logger take turns in one process; they differ in their callbacks only."""

import random
import tempfile
from dataclasses import dataclass, field

import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from .demo import Demo, Size, loader
from .fits import TurnTaking, quiet_trainer
from .harness import Settings, no_collection

LOG_EVERY = 50

Times = dict[str, list[float]]


@dataclass(frozen=True)
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

    def begin(self, size: Size, *, turns: int, device: str, folder: str) -> TurnTaking:
        """The training, after its first turn."""
        steps = 1 if device == "cpu" else LOG_EVERY
        total = (turns + 2) * steps
        taking = TurnTaking(steps=steps, device=device)
        trainer = quiet_trainer(
            accelerator=device,
            max_steps=total,
            log_every_n_steps=LOG_EVERY,
            logger=TensorBoardLogger(folder),
            gradient_clip_val=self.clip,
            callbacks=[*self.callbacks, taking],
        )
        torch.manual_seed(0)
        model = Demo(size, lambda_lr=self.lambda_lr, total_steps=total)
        taking.begin(trainer, model, loader(size, steps=total))
        return taking


def take_turns(contenders: dict[str, Contender], size: Size, *, turns: int, settings: Settings) -> Times:
    """One reading a turn of each, under its name."""
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder, no_collection():
        trainings = {
            name: contender.begin(size, turns=turns, device=settings.device, folder=folder)
            for name, contender in contenders.items()
        }
        times: Times = {name: [] for name in trainings}
        shuffle = random.Random(settings.seed).shuffle
        for _ in range(turns):
            order = list(trainings)
            shuffle(order)
            for name in order:
                times[name].append(trainings[name].turn())
        for training in trainings.values():
            training.end()
    return times
