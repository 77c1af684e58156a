"""What the strategy means for a callback, told by class names so that every Lightning package works."""

from functools import cache
from typing import Any

from .._lightning import MisconfigurationException, Trainer


def inherits(strategy: Any, names: tuple[str, ...]) -> bool:
    """Whether ``strategy`` is, or inherits from, a class of one of these names."""
    kind: Any = type(strategy)
    return _descends(kind, names)


@cache
def _descends(kind: Any, names: tuple[str, ...]) -> bool:
    """Asked several times an update: looked up once a class."""
    return any(ancestor.__name__ in names for ancestor in kind.__mro__)


def refuse_strategies(trainer: Trainer, who: str, names: tuple[str, ...], reason: str) -> None:
    """Raise if the Trainer's strategy is, or inherits from, one of ``names``.

    Raises:
        MisconfigurationException: Naming ``who``, the strategy, the reason and both ways out.
    """
    if inherits(trainer.strategy, names):
        raise MisconfigurationException(
            f"{who} does not support {type(trainer.strategy).__name__} in this version: {reason} "
            f"Use one device or strategy='ddp', or remove {who} from the callbacks."
        )


def refuse_rate_writers(trainer: Trainer, who: str) -> None:
    """Raise if a callback that writes learning rates by itself is in the list.

    Raises:
        MisconfigurationException: Naming both, and both ways out.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        ancestors = {ancestor.__name__ for ancestor in type(callback).__mro__}
        if ancestors & {"StochasticWeightAveraging", "BackboneFinetuning"}:
            raise MisconfigurationException(
                f"Two writers of the learning rate: {who} and {type(callback).__name__}. Remove one of the two from "
                "the callbacks (lightning.pytorch.callbacks.WeightAveraging averages without touching rates)."
            )
