"""What is asked of every model that nobody here wrote, whoever builds its Trainer: checks by effect.

Each is trained three times: as it is, with our callbacks, and with one bad gradient. What the optimizer really did is
read in a hook after its step, by arithmetic of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor

from lightning_llmopt.callbacks import (
    GradientNormClip,
    GradientNormMonitor,
    LayerwiseLRDecay,
    LRSchedule,
    SkipBadSteps,
    WeightDecaySplit,
)
from lightning_llmopt.schedules import wsd

from fitting import MemoryLogger

RECIPE = wsd(warmup="50%", decay="30%")
DECAY, BOUND = 0.9, 1e-3
BAD = 1  # the update that gets a NaN, from 0

Fit = Callable[[Path, list[L.Callback], Logger], None]


@dataclass(frozen=True)
class Case:
    """A model, and how its makers train it.

    Attributes:
        name: What the table calls it.
        package: The distribution that it comes from.
        fit: Trains it anew, from the same random weights, in a folder, with these callbacks and this logger.
        own: Whether it is a LightningModule as its package ships it; else a network in the plainest of modules.
        manual: Whether it steps its optimizers itself.
        scheduler: Class of the scheduler that its ``configure_optimizers`` returns.
        blocks: How many repeated blocks it has, known by hand; 0 if layer-wise decay has nothing to go by.
        fails: What does not work with it, and why.
    """

    name: str
    package: str
    fit: Fit
    own: bool = True
    manual: bool = False
    scheduler: str = ""
    blocks: int = 0
    fails: str = ""

    def __str__(self) -> str:
        return f"{self.package}-{self.name}"


@dataclass
class Update:
    """One step of one optimizer.

    Attributes:
        index: Which optimizer.
        raw: Norm of its gradients before any callback of ours, in fp64.
        stepped: Norm of what it stepped with.
        rates: By parameter.
        bases: By parameter, before any scheduler.
        decays: Weight decay by parameter.
        groups: How many.
        moved: Whether the step changed any parameter.
        states: Numbers that the optimizer keeps, summed up.
    """

    index: int
    raw: float
    stepped: float
    rates: dict[str, float]
    bases: dict[str, float]
    decays: dict[str, float]
    groups: int
    moved: bool
    states: float


@dataclass
class Look(L.Callback):
    """Notes every step of every optimizer; goes first, so that it sees gradients before anybody else."""

    bad: int | None = None
    updates: list[Update] = field(default_factory=list)
    spared: set[str] = field(default_factory=set)  # vectors and norms: no weight decay
    optimizers: list[str] = field(default_factory=list)
    module: L.LightningModule | None = None

    def __deepcopy__(self, memo):
        return self  # some libraries copy what they are given; this is the reader outside

    def on_train_start(self, trainer, pl_module):
        self.module, self.trainer = pl_module, trainer
        self.names = {parameter: name for name, parameter in pl_module.named_parameters()}
        self.spared = {
            f"{place}.{name}".lstrip(".")
            for place, part in pl_module.named_modules()
            for name, parameter in part.named_parameters(recurse=False)
            if parameter.ndim < 2 or "Norm" in type(part).__name__
        }
        self.optimizers = [type(optimizer).__name__ for optimizer in trainer.optimizers]
        self.hooks = [
            optimizer.register_step_post_hook(lambda optimizer, *_, index=index: self.after(optimizer, index))
            for index, optimizer in enumerate(trainer.optimizers)
        ]
        self.raw, self.before, self.seen = {}, {}, [0] * len(trainer.optimizers)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        index = next(i for i, one in enumerate(trainer.optimizers) if one is optimizer)
        if self.seen[index] == self.bad:
            next(p for p in of(optimizer) if p.grad is not None).grad.view(-1)[0] = float("nan")
        self.seen[index] += 1
        self.raw[index] = norm(optimizer)
        self.before[index] = [parameter.detach().clone() for parameter in of(optimizer)]

    def after(self, optimizer, index):
        every = [(self.names[p], group) for group in optimizer.param_groups for p in group["params"]]
        assert len(every) == len({name for name, _ in every}), "a parameter is in two groups"
        moved = any(not torch.equal(p, old) for p, old in zip(of(optimizer), self.before[index], strict=True))
        numbers = [v.double().sum() for state in optimizer.state.values() for v in state.values() if torch.is_tensor(v)]
        self.updates.append(
            Update(
                index, self.raw[index], norm(optimizer),
                {name: float(group["lr"]) for name, group in every},
                {name: float(group.get("initial_lr", group["lr"])) for name, group in every},
                {name: float(group.get("weight_decay", 0.0)) for name, group in every},
                len(optimizer.param_groups), moved, float(sum(numbers)),
            )
        )  # fmt: skip

    def on_train_end(self, trainer, pl_module):
        for hook in self.hooks:
            hook.remove()
        self.before = {}

    def of(self, index: int) -> list[Update]:
        return [update for update in self.updates if update.index == index]


class Notes(MemoryLogger):
    """What ours log; what a library logs twice at a step is its own affair."""

    def log_metrics(self, metrics, step=None):
        super().log_metrics({tag: value for tag, value in metrics.items() if tag.startswith("grad_norm/")}, step)

    def __deepcopy__(self, memo):
        return self


def of(optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def norm(optimizer) -> float:
    """L2 norm of all gradients, summed up in fp64."""
    squares = [p.grad.detach().double().pow(2).sum() for p in of(optimizer) if p.grad is not None]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


def ours(case: Case, *, replace: bool = True) -> list[L.Callback]:
    """Everything that goes onto any module; what it logs is told by a logger that refuses to be told twice."""
    return [
        WeightDecaySplit(show=False),
        *([LayerwiseLRDecay(DECAY, show=False)] if case.blocks else []),
        LRSchedule(RECIPE, replace_schedulers=bool(case.scheduler) and replace),
        GradientNormMonitor(every_n_steps=1),
        GradientNormClip(BOUND),
        SkipBadSteps(sigma=None),
    ]


def train(case: Case, folder: Path, *callbacks: L.Callback, bad: int | None = None) -> tuple[Look, Notes]:
    look, logger = Look(bad=bad), Notes()
    torch.manual_seed(0)
    case.fit(folder, [look, *callbacks], logger)
    assert look.updates, "nothing was trained"
    return look, logger
