"""A whole training step, with our callbacks and without.

Real Trainers with the same model, optimizer, data and logger (TensorBoard, every 50 steps) take turns in one process;
they differ in their callbacks only. A turn is one step on CPU, timed in CPU seconds of the process (with one thread),
and 50 steps on a GPU, timed by the clock. *The same again* is a second Trainer without callbacks: how far it is from
1 is what this measurement cannot see. The second table has 146 tensors and next to no arithmetic: it shows in
milliseconds what callbacks cost in themselves, and its ratios mean nothing.
"""

import random
import tempfile
from dataclasses import dataclass, field

import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_llmopt.callbacks import GradientNormClip, GradientNormMonitor, LRSchedule
from lightning_llmopt.schedules import wsd

from ..demo import BARELY_A_MODEL, DEMO, Demo, Size, loader
from ..fits import TurnTaking, quiet_trainer
from ..harness import Quartiles, Settings, no_collection
from ..tables import Table

LOG_EVERY = 50
WITHOUT = "Trainer without callbacks"
USUAL = "with gradient_clip_val and LambdaLR"
OURS = "with LRSchedule, GradientNormClip and GradientNormMonitor"

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


def run(settings: Settings) -> list[Table]:
    """The demo, and a model of nearly nothing."""
    cpu = settings.device == "cpu"
    demo = _take_turns(DEMO, turns=settings.rounds(100 if cpu else 20, quick=4 if cpu else 3), settings=settings)
    bare = _take_turns(
        BARELY_A_MODEL, turns=settings.rounds(500 if cpu else 20, quick=50 if cpu else 3), settings=settings
    )
    return [
        Table("step of the demo", WITHOUT, demo, notes=[_added(demo, "")]),
        Table("step of nearly nothing", WITHOUT, bare, notes=[_added(bare, ""), *([_added_when_logging(bare)] * cpu)]),
    ]


def _contenders() -> dict[str, Contender]:
    ours = [LRSchedule(wsd(warmup="2%", decay="20%")), GradientNormClip(max_norm=1.0), GradientNormMonitor()]
    return {
        WITHOUT: Contender(),
        "the same again": Contender(),
        USUAL: Contender(clip=1.0, lambda_lr=True),
        OURS: Contender(callbacks=ours),
    }


def _take_turns(size: Size, *, turns: int, settings: Settings) -> Times:
    """One reading a turn of each."""
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder, no_collection():
        trainings = {
            name: contender.begin(size, turns=turns, device=settings.device, folder=folder)
            for name, contender in _contenders().items()
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


def _added(times: Times, when: str) -> str:
    """What callbacks add, in milliseconds."""
    ours, usual = (
        Quartiles.of([(mine - bare) * 1e3 for mine, bare in zip(times[name], times[WITHOUT], strict=True)])
        for name in (OURS, USUAL)
    )
    return (
        f"Added to a turn{when}: ours {ours.median:.2f} [{ours.lower:.2f}, {ours.upper:.2f}] ms, gradient_clip_val and "
        f"LambdaLR {usual.median:.2f} [{usual.lower:.2f}, {usual.upper:.2f}] ms."
    )


def _added_when_logging(times: Times) -> str:
    """The same for the turns that log; the first turn, update 0, is not among the readings."""
    logging = {name: values[LOG_EVERY - 2 :: LOG_EVERY] for name, values in times.items()}
    return _added(logging, " that logs")
