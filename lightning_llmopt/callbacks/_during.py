"""Values of further entries that belong to a phase of the schedule."""

import math
import re
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer

from .._lightning import MisconfigurationException, Trainer, rank_zero_warn
from ._clashes import refuse_absent
from ._entries import Entry, bases_of
from ._targets import Target

During = Mapping[str, Mapping[str, float]]


def check_during(during: Any) -> dict[str, dict[str, float]]:
    """``during`` as plain dicts.

    Raises:
        ValueError: If it is no mapping from phases to entries to numbers that they can hold.
    """
    if not isinstance(during, Mapping) or not all(isinstance(values, Mapping) for values in during.values()):
        raise ValueError(f'during must be a dict such as {{"decay": {{"beta2": 0.99}}}}, got {during!r}.')
    for phase, values in during.items():
        for name, value in values.items():
            where = f"during[{phase!r}][{name!r}]"
            if name == "lr":
                raise ValueError(f"{where}: the rate is what the schedule drives; change its phases. Got {value!r}.")
            check_value(where, name, value)
    return {phase: dict(values) for phase, values in during.items()}


def check_value(where: str, name: str, value: Any) -> None:
    """Refuse a number that the entry ``name`` cannot hold.

    Raises:
        ValueError: If it is not finite, negative, or a beta or momentum that is not below 1.
    """
    below_one = name.startswith("beta") or name == "momentum"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < (1 if below_one else math.inf):
        raise ValueError(f"{where} must be {'in [0, 1)' if below_one else 'a finite number >= 0'}, got {value!r}.")


class PhaseValues:
    """Writes the values of a phase when it begins, and takes them back when it ends.

    An entry that is 0 in a group (no weight decay for norms) is switched off there, and stays so.

    Args:
        during: Values by phase and entry; ``"decay"`` means ``"decay 1"``, ``"decay 2"`` too.
        target: Groups that are meant.
    """

    def __init__(self, during: During, target: Target) -> None:
        self.during, self.target = during, target
        self.entries = [Entry(name) for name in dict.fromkeys(name for values in during.values() for name in values)]
        self._bases: dict[str, Any] = {}
        self._in_force: dict[int, tuple[str | None, int]] = {}

    def take_down(self, trainer: Trainer, who: str, targeted: set[tuple[int, int]]) -> None:
        """Remember the values from before: a checkpoint is about to overwrite them.

        Args:
            trainer: Whose optimizers they are.
            who: What the callback is called.
            targeted: Groups that are meant, as (optimizer, group).

        Raises:
            MisconfigurationException: If no chosen group has such an entry.
        """
        self._in_force.clear()
        for entry in self.entries:
            self._bases[entry.name] = [bases_of(optimizer, entry) for optimizer in trainer.optimizers]
            refuse_absent(trainer, f"{who}(during=...)", entry, targeted)
            if targeted and not any(self._bases[entry.name][index][at] for index, at in targeted):
                rank_zero_warn(
                    f"{who}(during=...): {entry.name} is 0 in every group, so it is switched off and stays so."
                )

    def refuse_unknown(self, phases: list[str], who: str) -> None:
        """Refuse a phase that the schedule does not have.

        Raises:
            MisconfigurationException: With those that it has.
        """
        for name in self.during:
            if not any(means(name, phase) for phase in phases):
                there = list(dict.fromkeys(phases))
                raise MisconfigurationException(
                    f"{who}: during has values for a phase {name!r}, and the schedule has {there}."
                )

    def enter(self, trainer: Trainer, index: int, phase: str | None) -> None:
        """Write what belongs to ``phase``, if it has just begun."""
        optimizer = trainer.optimizers[index]
        state = phase, len(optimizer.param_groups)
        if self._in_force.get(index) == state:
            return
        self._in_force[index] = state
        values = self.values_in(phase)
        for at in self.target.groups(trainer, index, optimizer):
            self._write(optimizer, index, at, values)

    def release(self, trainer: Trainer, entries: set[str]) -> None:
        """Give back entries that a checkpoint has left at the values of a phase."""
        for index, optimizer in enumerate(trainer.optimizers):
            for at in self.target.groups(trainer, index, optimizer):
                group = optimizer.param_groups[at]
                for entry in map(Entry, sorted(entries)):
                    if entry.is_in(group) and f"initial_{entry.name}" in group:
                        entry.put(group, group[f"initial_{entry.name}"])

    def base_in(self, trainer: Trainer, index: int, entry: str) -> float:
        """What the entry is outside of its phases, in the first chosen group that has it switched on."""
        optimizer = trainer.optimizers[index]
        known = self._bases[entry][index] if entry in self._bases else []
        for at in self.target.groups(trainer, index, optimizer):
            base = known[at] if at < len(known) else optimizer.param_groups[at].get(f"initial_{entry}", 0.0)
            if base:
                return float(base)
        return 0.0

    def values_in(self, phase: str | None) -> dict[str, float]:
        """Values of that phase, by entry."""
        return {
            entry: value
            for name, of_phase in self.during.items()
            if phase is not None and means(name, phase)
            for entry, value in of_phase.items()
        }

    def _write(self, optimizer: Optimizer, index: int, at: int, values: dict[str, float]) -> None:
        group = optimizer.param_groups[at]
        for entry in self.entries:
            bases = self._bases.get(entry.name, {index: []})[index]
            if at < len(bases):
                group[f"initial_{entry.name}"] = bases[at]
            if not entry.is_in(group):
                continue
            base = group.setdefault(f"initial_{entry.name}", float(entry.of(group)))
            if base:
                entry.put(group, values.get(entry.name, base))


def means(name: str, phase: str) -> bool:
    """Whether values for ``name`` are meant for ``phase``: the phase itself, or one of several of that name."""
    if phase == "anneal":  # a cooldown on request is the decay of its run
        return name in ("anneal", "decay", "cooldown")
    return name == phase or re.fullmatch(re.escape(name) + r" \d+", phase) is not None
