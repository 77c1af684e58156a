"""Rates of all groups of all optimizers, written by one curve and each optimizer's own count of updates."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from ..schedules import Schedule

Curve = Schedule | Callable[[int], float]


def base_rates(optimizer: Optimizer) -> list[float]:
    """The rates before any schedule; a group that was scheduled before still knows its own."""
    return [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]


class ScheduledRates:
    """Writes ``base rate * curve(updates applied)`` into parameter groups.

    Args:
        optimizers: Whose groups to write.
        bases: Base rate of each group of each optimizer; groups beyond these keep their own.
        curve: Multiplier [1] of an update, counted from 0.
        counts: Updates applied by each optimizer so far; read at every write.
    """

    def __init__(self, optimizers: list[Optimizer], bases: list[list[float]], curve: Curve, counts: list[int]) -> None:
        self.optimizers = optimizers
        self.curve = curve
        self.counts = counts
        for optimizer, known in zip(optimizers, bases, strict=True):
            for group, base in zip(optimizer.param_groups, known, strict=False):
                group["initial_lr"] = base  # a restored group brings the base rate of the old configuration
        self._written = [_Written(optimizer) for optimizer in optimizers]
        for index in range(len(optimizers)):
            self.write(index)

    def write(self, index: int) -> None:
        """Put the rates of the coming update into the groups of optimizer ``index``.

        Raises:
            ValueError: If the curve's value is negative or not finite.
        """
        multiplier = self.curve(self.counts[index])
        if not (math.isfinite(multiplier) and multiplier >= 0):
            raise ValueError(f"schedule({self.counts[index]}) must be a finite number >= 0, got {multiplier!r}.")
        if not self._written[index].is_current():
            self._written[index] = _Written(self.optimizers[index])
        for group, base in self._written[index].floats:
            group["lr"] = base * multiplier
        for rate, base in self._written[index].tensors:
            rate.fill_(base * multiplier)

    def adopt_new_groups(self, index: int) -> None:
        """Bring groups that were added since the last write under the schedule; their rate so far is their base."""
        if not self._written[index].is_current():
            self.write(index)

    def first_rate(self) -> float:
        """The rate in force of the first group of all."""
        return float(self.optimizers[0].param_groups[0]["lr"])

    def rates(self, index: int) -> list[float]:
        """The rates in force, one a group."""
        return [float(group["lr"]) for group in self.optimizers[index].param_groups]

    def phase(self, index: int) -> str | None:
        """Name of the phase of the coming update, if the curve has phases."""
        return self.curve.phase_at(self.counts[index]).name if isinstance(self.curve, Schedule) else None

    def jumps(self, saved: list[list[float]]) -> Iterator[tuple[int, int, float, float]]:
        """(optimizer, group, saved rate, rate now) wherever the two differ."""
        for index, before in enumerate(saved[: len(self.optimizers)]):
            for group, (old, new) in enumerate(zip(before, self.rates(index), strict=False)):
                if old != new:
                    yield index, group, old, new


class _Written:
    """Where the rates of one optimizer go, looked up once: one factor an update is all that changes."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.length, self.first = len(optimizer.param_groups), optimizer.param_groups[0]
        self.floats: list[tuple[dict[str, Any], float]] = []
        self.tensors: list[tuple[Tensor, float]] = []  # capturable and compiled steps hold on to the tensor
        for group in optimizer.param_groups:
            base = group.setdefault("initial_lr", float(group["lr"]))
            if isinstance(group["lr"], Tensor):
                self.tensors.append((group["lr"], base))
            else:
                self.floats.append((group, base))

    def is_current(self) -> bool:
        """False once a group was added or ``load_state_dict`` put other groups in place."""
        groups = self.optimizer.param_groups
        return len(groups) == self.length and groups[0] is self.first


def check_curve(schedule: Any) -> None:
    """Refuse what cannot be called with an update number.

    Raises:
        ValueError: If ``schedule`` is not callable.
    """
    if not callable(schedule):
        raise ValueError(f"schedule must be a recipe such as wsd(...), a Schedule or a function, got {schedule!r}.")
