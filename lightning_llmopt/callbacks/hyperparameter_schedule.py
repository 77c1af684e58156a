"""Weight decay, betas, momentum, or any other entry of the parameter groups, by a schedule."""

from collections.abc import Callable, Sequence
from typing import Any

from typing_extensions import override

from .._lightning import LightningModule, MisconfigurationException, Trainer, rank_zero_warn
from ..schedules import Description, Schedule
from ._batches import Count
from ._during import check_value
from ._entries import Entry
from ._playing import Plan
from ._scheduled import Scheduled
from ._targets import Target


class HyperparameterSchedule(Scheduled):
    """Drive an entry of every parameter group: its own base value times the schedule's multiplier.

    The base values are the ones that ``configure_optimizers`` returns. Counts, units, resume and targets are
    those of ``LRSchedule``. A group where the entry is 0 (no weight decay for norms, SGD without momentum)
    has it switched off, and keeps it so.

    Logged at each logging step of the Trainer:

    - ``<entry>/<optimizer>/<group>``: its value in this update, such as ``weight_decay/AdamW/group0``.

    Args:
        entry: ``"weight_decay"``, ``"momentum"``, ``"eps"``, ``"beta1"``, ``"beta2"`` or another number in the groups.
        schedule: As for ``LRSchedule``.
        between: Values at the multipliers 0 and 1, in place of base value times multiplier: with
            ``(0.95, 0.85)`` and ``one_cycle()``, momentum falls while the rate rises.
        total: Length of the run, as for ``LRSchedule``.
        tokens: Counts the tokens in a batch, as for ``LRSchedule``.
        samples: Counts its samples.
        optimizer: Position or name of the only optimizer that is meant; by default all.
        group: Position or ``name`` entry of the only group that is meant; by default all.
        on_change: If a resumed run's values would jump: ``"error"``, ``"adopt"`` or ``"keep"``.

    Raises:
        ValueError: If an argument is nothing of the kind, or ``between`` has values that the entry cannot hold.
        MisconfigurationException: At fit start, if no group has the entry, somebody else drives it, the length of
            the run is not known, the schedule would lead to values that the entry cannot hold, or a resumed
            run's values would jump; while training, if somebody changes it between two updates.

    Example:
        >>> from lightning_llmopt.schedules import linear
        >>> callback = HyperparameterSchedule("weight_decay", linear(floor=0.1))
    """

    def __init__(
        self,
        entry: str,
        schedule: Description | Schedule | str | dict[str, Any] | Callable[[int], float],
        *,
        between: Sequence[float] | None = None,
        total: int | float | str | None = None,
        tokens: Count | None = None,
        samples: Count | None = None,
        optimizer: int | str | None = None,
        group: int | str | None = None,
        on_change: str = "error",
    ) -> None:
        if not isinstance(entry, str) or not entry or entry in ("lr", "params", "betas"):
            ways = {"lr": "LRSchedule", "betas": "'beta1' or 'beta2'"}.get(str(entry), "'weight_decay' or the like")
            raise ValueError(f"entry must be the name of a number in the parameter groups ({ways}), got {entry!r}.")
        super().__init__(
            schedule, entry=Entry(entry), between=_checked_between(entry, between), total=total, tokens=tokens,
            samples=samples, target=Target(optimizer, group), on_change=on_change,
        )  # fmt: skip

    @property
    @override
    def state_key(self) -> str:
        """Fixed by what it drives, so that a change of other arguments does not lose the state."""
        return f"{self.label}{self.target}"

    @property
    @override
    def label(self) -> str:
        """With the entry: there may be several."""
        return f"HyperparameterSchedule({self.entry.name!r})"

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take down the base values, and see that nobody else writes them."""
        super().on_fit_start(trainer, pl_module)
        bases = [self._bases[index][at] for index, at in self.targeted(trainer)]
        if bases and not any(bases):
            rank_zero_warn(f"{self.label}: it is 0 in every group, so it is switched off and stays so.")
        for other in trainer.callbacks:  # type: ignore[attr-defined]
            phases = [name for name, values in getattr(other, "during", {}).items() if self.entry.name in values]
            if isinstance(other, Scheduled) and phases and self.targeted(trainer) & other.targeted(trainer):
                raise MisconfigurationException(
                    f"Two schedules for {self.entry.name}: {self.label} and {other.label}(during=...) in its "
                    f"phase {phases[0]!r}. Remove one, or give each groups of its own (optimizer=, group=)."
                )

    @override
    def _chosen(self, new: Plan, trainer: Trainer) -> tuple[Plan, list[list[float]]]:
        chosen, bases = super()._chosen(new, trainer)
        if isinstance(chosen.curve, Schedule) and self.between is None:
            ends = [end for phase in chosen.curve.phases for end in (phase.start, phase.end)]
            for base in {base for of_optimizer in bases for base in of_optimizer}:
                try:
                    check_value(self.label, self.entry.name, base * max(ends))
                except ValueError as error:
                    raise MisconfigurationException(
                        f"{error} That is its base value {base} times {max(ends)}, the highest multiplier of the "
                        "schedule. Lower one of them, or say between=(low, high)."
                    ) from None
        return chosen, bases


def _checked_between(entry: str, between: Any) -> tuple[float, float] | None:
    if between is None:
        return None
    if not isinstance(between, list | tuple) or len(between) != 2:
        raise ValueError(f"between must be two values, at the multipliers 0 and 1, got {between!r}.")
    for value in between:
        check_value(f"between for {entry!r}", entry, value)
    return float(between[0]), float(between[1])
