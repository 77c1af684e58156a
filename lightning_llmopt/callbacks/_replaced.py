"""Schedulers that step nothing, in place of those that a module returns."""

from collections.abc import Iterable
from typing import Any

from .._lightning import Trainer


class Replaced:
    """Stands where a scheduler stood, for modules that step theirs by hand; the rates are somebody else's.

    Args:
        optimizer: The optimizer that the scheduler had.
    """

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer

    def step(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing."""

    def get_last_lr(self) -> list[float]:
        """The rates in force."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes nothing."""


def replaces_schedulers(trainer: Trainer) -> bool:
    """Whether a callback will take the module's schedulers away before they turn a rate."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return any(getattr(one, "replace_schedulers", False) is True for one in callbacks)


def bind(schedulers: Iterable[Any], optimizer: Any) -> None:
    """Let schedulers that will be taken away name an optimizer that is in use, as Lightning asks until then."""
    for scheduler in schedulers:
        scheduler.optimizer = optimizer


def replace_all(trainer: Trainer) -> None:
    """Let no scheduler of the module's step any more; in manual optimization one that does nothing takes its place."""
    configs = trainer.strategy.lr_scheduler_configs
    if trainer.lightning_module.automatic_optimization:
        trainer.strategy.lr_scheduler_configs = []
        return
    for config in configs:
        config.scheduler = Replaced(config.scheduler.optimizer)  # type: ignore[assignment]
