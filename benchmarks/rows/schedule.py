"""What a learning-rate schedule costs in one update.

Ours is the callback at work inside a real fit: the hook before the optimizer steps, torch's hook after it, the
count of applied updates and the new rates. The others are a call of ``step()``. All follow the same curve, a short
warmup and a long cosine, and are measured on the cosine; LambdaLR gets it as the formula that everybody writes.
"""

import itertools
import math

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader, TensorDataset

from lightning_llmopt.callbacks import LRSchedule
from lightning_llmopt.schedules import cosine

from .. import peers
from ..fits import Inside, quiet_trainer
from ..harness import Settings, Variant, Work, interleave
from ..tables import Table, reasons

WARMUP, TOTAL = 10, 100_000  # over before the warm-up of the measurement is; longer than all repeats
REPEATS = 20


def run(settings: Settings) -> list[Table]:
    """2 groups, as with and without weight decay; 200 groups, as with a rate for each layer or tensor."""
    return [_table(groups, settings) for groups in (2, 200)]


def _table(groups: int, settings: Settings) -> Table:
    tables: list[Table] = []

    def measure(trainer: Trainer, module: LightningModule) -> None:
        variants = _variants(trainer, module, callback)
        rounds = settings.rounds(201, quick=10)
        times = interleave(variants, rounds=rounds, repeats=REPEATS, seed=settings.seed)
        tables.append(Table(f"{groups} groups", "LambdaLR.step", times, reasons(variants)))

    callback = LRSchedule(cosine(warmup=WARMUP), total=TOTAL)
    trainer = quiet_trainer(callbacks=[callback, Inside(measure)], max_steps=1, logger=False)
    trainer.fit(ManyGroups(groups), DataLoader(TensorDataset(torch.zeros(1))))
    return tables[0]


def _variants(trainer: Trainer, module: LightningModule, callback: LRSchedule) -> list[Variant]:
    groups = len(trainer.optimizers[0].param_groups)
    absent = peers.missing("transformers", pip="transformers")
    works: dict[str, Work] = {
        "limit: one float written a group": _limit(_optimizer(groups)),
        "LambdaLR.step": peers.lambda_lr(_optimizer(groups), _curve).step,
        "LambdaLR.step of a constant": peers.lambda_lr(_optimizer(groups), lambda step: 1.0).step,
        "SequentialLR.step": peers.sequential_lr(_optimizer(groups), warmup=WARMUP, total=TOTAL).step,
        "ours: LRSchedule in a fit": _ours(trainer, module, callback),
    }
    variants = [Variant(name, work) for name, work in works.items()]
    hugging = (
        (lambda: None) if absent else peers.transformers_cosine(_optimizer(groups), warmup=WARMUP, total=TOTAL).step
    )
    return [*variants, Variant("transformers: get_cosine_schedule_with_warmup", hugging, missing=absent)]


def _ours(trainer: Trainer, module: LightningModule, callback: LRSchedule) -> Work:
    """Everything that LRSchedule does around one ``optimizer.step()``."""
    optimizer = trainer.optimizers[0]
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)

    def work() -> None:
        callback.on_before_optimizer_step(trainer, module, optimizer)
        for hook in optimizer._optimizer_step_post_hooks.values():
            hook(optimizer, (), {})

    return work


def _limit(optimizer: Optimizer) -> Work:
    bases = [group["lr"] for group in optimizer.param_groups]
    updates = itertools.count()

    def work() -> None:
        multiplier = _curve(next(updates))
        for group, base in zip(optimizer.param_groups, bases, strict=True):
            group["lr"] = base * multiplier

    return work


def _curve(step: int) -> float:
    """The curve as one writes it by hand for LambdaLR."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * (step - WARMUP) / (TOTAL - WARMUP))))


def _optimizer(groups: int) -> Optimizer:
    return SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": 0.1 + index} for index in range(groups)])


class ManyGroups(LightningModule):
    """One number a group."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in range(groups)])

    def training_step(self, batch: object, batch_idx: int) -> torch.Tensor:
        """A loss that reaches every group."""
        return torch.cat(list(self.weights)).sum()

    def configure_optimizers(self) -> Optimizer:
        """A group a weight, each with a rate of its own."""
        return SGD([{"params": [weight], "lr": 0.1 + index} for index, weight in enumerate(self.weights)])
