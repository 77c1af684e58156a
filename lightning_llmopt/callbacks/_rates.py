"""Rates of all groups of all optimizers, written by one curve and each optimizer's own count of updates."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from operator import is_
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from ..schedules import Schedule

Curve = Schedule | Callable[[int], float]


def base_rates(optimizer: Optimizer, *, peak: bool = False) -> list[float]:
    """The rates before any schedule; a group that was scheduled before still knows its own.

    With ``peak``, a group that a OneCycleLR or CyclicLR has been at is taken at its ``max_lr``: their
    ``initial_lr`` is where the cycle begins.
    """
    keys = ("max_lr", "initial_lr", "lr") if peak else ("initial_lr", "lr")
    return [float(next(group[key] for key in keys if key in group)) for group in optimizer.param_groups]


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
        self._written = [_Written(optimizer, known) for optimizer, known in zip(optimizers, bases, strict=True)]
        for index in range(len(optimizers)):
            self.write(index)

    def write(self, index: int) -> None:
        """Put the rates of the coming update into the groups of optimizer ``index``.

        Raises:
            ValueError: If the curve's value is negative or not finite.
        """
        multiplier = multiplier_at(self.curve, self.counts[index])
        self._written[index].write(multiplier)

    def adopt_new_groups(self, index: int) -> None:
        """Look the groups up again if others are in their place by now.

        One with the parameters of an old one keeps its base rate, whatever a loaded state says; the rate so
        far of a new one is its base.
        """
        if not self._written[index].is_current():
            before = self._written[index].base_of_first_parameter()
            known = [before.get(_first_parameter(group)) for group in self.optimizers[index].param_groups]
            self._written[index] = _Written(self.optimizers[index], known)
            self.write(index)

    def rates(self, index: int) -> list[float]:
        """The rates in force, one a group, without a look at rates that are held as tensors."""
        return self._written[index].rates()

    def first_rate(self) -> float:
        """The rate in force of the first group of all; 0 if there is none."""
        return next((written.rate_of_first() for written in self._written if written.groups), 0.0)

    def strangers(self, index: int, *, all_groups: bool) -> Iterator[tuple[int, float, float]]:
        """(group, rate written, rate found) wherever somebody else changed a rate since the last write.

        Only the first group is looked at, unless ``all_groups``; a rate held as a tensor counts as changed
        when another is in its place, and is not read.
        """
        yield from self._written[index].strangers(all_groups=all_groups)

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

    def __init__(self, optimizer: Optimizer, known_bases: Sequence[float | None]) -> None:
        self.optimizer = optimizer
        self.groups = list(optimizer.param_groups)  # none for what stands in for no optimizer
        self.multiplier = 1.0
        self.bases: list[float] = []
        self.floats: list[tuple[dict[str, Any], float]] = []
        self.tensors: list[tuple[Tensor, float]] = []  # capturable and compiled steps hold on to the tensor
        for group, known in zip_longest(self.groups, known_bases[: len(self.groups)]):
            if known is not None:  # a state that was loaded brings base rates of its own
                group["initial_lr"] = known
            base = group.setdefault("initial_lr", float(group["lr"]))
            self.bases.append(base)
            if isinstance(group["lr"], Tensor):
                self.tensors.append((group["lr"], base))
            else:
                self.floats.append((group, base))

    def base_of_first_parameter(self) -> dict[int, float]:
        """Base rate of each group, found by the identity of its first parameter."""
        return {_first_parameter(group): base for group, base in zip(self.groups, self.bases, strict=True)}

    def is_current(self) -> bool:
        """False once groups were added, replaced, or put in place by ``load_state_dict``."""
        groups = self.optimizer.param_groups
        return len(groups) == len(self.groups) and all(map(is_, groups, self.groups))

    def write(self, multiplier: float) -> None:
        """Put ``base * multiplier`` everywhere."""
        self.multiplier = multiplier
        for group, base in self.floats:
            group["lr"] = base * multiplier
        for rate, base in self.tensors:
            rate.fill_(base * multiplier)

    def rates(self) -> list[float]:
        """What was written, one number a group."""
        return [base * self.multiplier for base in self.bases]

    def rate_of_first(self) -> float:
        """What was written into the first group."""
        return self.bases[0] * self.multiplier

    def strangers(self, *, all_groups: bool) -> Iterator[tuple[int, float, float]]:
        """(group, rate written, rate found) of the groups that hold something else by now."""
        for index in range(len(self.groups) if all_groups else min(1, len(self.groups))):
            found, written = self.groups[index]["lr"], self.bases[index] * self.multiplier
            replaced = (
                all(found is not rate for rate, _ in self.tensors) if isinstance(found, Tensor) else found != written
            )
            if replaced:
                yield index, written, float(found)


def _first_parameter(group: dict[str, Any]) -> int:
    """Identity of the group's first parameter; of the group itself if it is empty."""
    return id(next(iter(group["params"]), group))


def multiplier_at(curve: Curve, step: int) -> float:
    """The curve's value as a plain float: what goes into a checkpoint must load with ``weights_only=True``.

    Raises:
        ValueError: If it is no finite number >= 0.
    """
    value = curve(step)
    try:
        multiplier = float(value)
    except (TypeError, ValueError):
        multiplier = math.nan
    if not 0 <= multiplier < math.inf:
        raise ValueError(f"schedule({step}) must be a finite number >= 0, got {value!r}.")
    return multiplier


def check_curve(schedule: Any) -> None:
    """Refuse what is no function of an update number, by calling it with 0.

    Raises:
        ValueError: If ``schedule`` cannot be called so, or does not return a multiplier.
    """
    if isinstance(schedule, type) or not callable(schedule):
        raise ValueError(f"schedule must be a recipe such as wsd(...), a Schedule or a function, got {schedule!r}.")
    try:
        schedule(0)
    except Exception as error:
        raise ValueError(
            f"schedule must be a recipe such as wsd(...) with its brackets, a Schedule, or a function of an update "
            f"number; got {schedule!r}, which fails for 0: {error}"
        ) from error
    multiplier_at(schedule, 0)
