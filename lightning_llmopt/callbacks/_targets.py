"""Which optimizers and groups a schedule is meant for."""

from dataclasses import dataclass

from torch.optim import Optimizer

from .._lightning import MisconfigurationException, Trainer
from ._optimizers import group_names, optimizer_names


@dataclass(frozen=True)
class Target:
    """Optimizers and groups by position or by the names they have in the log; ``None`` means all.

    Args:
        optimizer: ``0`` or ``"AdamW"``.
        group: ``2`` or the group's ``name`` entry, such as ``"embeddings"``.

    Raises:
        ValueError: If one is neither a position nor a name.
    """

    optimizer: int | str | None = None
    group: int | str | None = None

    def __post_init__(self) -> None:
        for name in ("optimizer", "group"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
            if not (value is None or whole or (isinstance(value, str) and value)):
                raise ValueError(f"{name} must be a position >= 0 or a name, got {value!r}.")

    def __str__(self) -> str:
        parts = [
            f"{name}={getattr(self, name)!r}" for name in ("optimizer", "group") if getattr(self, name) is not None
        ]
        return f"({', '.join(parts)})" if parts else ""

    def tag(self) -> str:
        """What tells it apart from others in the log: ``""`` or ``"/embeddings"``."""
        return "" if self.group is None else f"/{self.group}"

    def optimizers(self, trainer: Trainer) -> list[int]:
        """Positions of the optimizers that have a chosen group by now."""
        return [index for index, optimizer in enumerate(trainer.optimizers) if self.groups(trainer, index, optimizer)]

    def groups(self, trainer: Trainer, index: int, optimizer: Optimizer) -> list[int]:
        """Positions of the chosen groups of one optimizer."""
        if self.optimizer is not None and self.optimizer not in (index, optimizer_names(trainer)[index]):
            return []
        names = group_names(optimizer)
        return [at for at, name in enumerate(names) if self.group is None or self.group in (at, name)]

    def refuse_unknown(self, trainer: Trainer, who: str) -> None:
        """Refuse a target that is not there.

        Raises:
            MisconfigurationException: With what there is instead.
        """
        if not self or not trainer.optimizers or self.optimizers(trainer):
            return
        there = {
            name: group_names(optimizer)
            for name, optimizer in zip(optimizer_names(trainer), trainer.optimizers, strict=True)
        }
        raise MisconfigurationException(f"{who}{self}: there is no such group. Optimizers and their groups: {there}.")

    def __bool__(self) -> bool:
        """Whether it means less than everything."""
        return self.optimizer is not None or self.group is not None
