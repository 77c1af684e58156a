"""A whole recipe as one callback."""

from collections.abc import Callable
from typing import Any

from typing_extensions import override

from .._lightning import Callback, LightningModule, MisconfigurationException, Trainer
from ..callbacks import GradientNormMonitor, LRSchedule, UseOptimizer, WeightDecaySplit
from ..callbacks._clipper import Clipper
from .recipe import Recipe
from .shelf import recipe as by_name

_WORDS = {LRSchedule: "schedule", UseOptimizer: "optimizer", WeightDecaySplit: "groups", Clipper: "clipping",
          GradientNormMonitor: "monitor"}  # fmt: skip


class UseRecipe(Callback):
    """Trains a module as a published run was trained: optimizer, schedule, groups, clipping and monitor by one name.

    At the beginning of a fit it puts the recipe's callbacks (``Recipe.callbacks``, with ``UseOptimizer``) into the
    Trainer's list, right after itself; each then works, logs, saves and resumes as it would if you had listed it. They
    stay in the list after the fit. A batch ramp is data: nothing plays it.

    Args:
        name: One of ``recipes().names``; in Python also a ``Recipe``.
        batch: Tokens of an update in your run; with ``total`` and ``size`` as in ``Recipe.rescaled``.
        total: Tokens of your run, or ``"chinchilla"``. Lengths become parts of the run, which the Trainer ends.
        size: Parameters of your module.
        rule: How the rate goes with the batch: ``"sqrt"``, ``"linear"``, or ``"keep"`` to leave it.
        extrapolate: Whether to go beyond the family's sizes, and far beyond its fits over compute.
        schedule: Whether to bring ``LRSchedule``.
        optimizer: Whether to bring ``UseOptimizer``; without it, optimizer and rates are the module's.
        groups: Whether to bring ``WeightDecaySplit``.
        clipping: Whether to bring ``GradientNormClip``.
        monitor: Whether to bring ``GradientNormMonitor``.
        tokens: Counts the tokens in a batch, where phases are tokens; as in ``LRSchedule``.
        replace_schedulers: Whether to drop schedulers that the module returns; as in ``LRSchedule``.
        on_change: What to do if a checkpoint says otherwise: ``"error"`` or ``"adopt"``.
        show: Whether to print the parameter groups.

    Raises:
        ValueError: If there is no such recipe, it cannot be rescaled like that, or an argument is nothing of the kind.
        MisconfigurationException: At fit start, if the list already has a callback of a kind that the recipe brings;
            and as each of the callbacks.

    Example:
        >>> from lightning_llmopt.recipes import UseRecipe
        >>> callback = UseRecipe("llama2-7b", batch="500k", total="10B")
        >>> callback.recipe["peak_lr"].value
        0.000106066
    """

    def __init__(
        self,
        name: str | Recipe,
        *,
        batch: int | str | None = None,
        total: int | str | None = None,
        size: int | str | None = None,
        rule: str = "sqrt",
        extrapolate: bool = False,
        schedule: bool = True,
        optimizer: bool = True,
        groups: bool = True,
        clipping: bool = True,
        monitor: bool = True,
        tokens: Callable[[Any], int] | None = None,
        replace_schedulers: bool = False,
        on_change: str = "error",
        show: bool = True,
    ) -> None:
        found = name if isinstance(name, Recipe) else by_name(name)
        if not (batch is None and total is None and size is None):
            found = found.rescaled(batch=batch, total=total, size=size, rule=rule, extrapolate=extrapolate)
        self.recipe = found
        self.parts: list[Any] = found.callbacks(
            schedule=schedule, optimizer=optimizer, groups=groups, clipping=clipping, monitor=monitor,
            tokens=tokens, replace_schedulers=replace_schedulers, on_change=on_change, show=show,
        )  # fmt: skip

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put the callbacks into the list and set them up: the loop that is under way does not come to them."""
        if stage != "fit":
            return
        listed: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        new = [part for part in self.parts if not any(part is one for one in listed)]
        self._refuse_doubles(listed, new)
        at = next(place for place, one in enumerate(listed) if one is self) + 1
        trainer.callbacks = [*listed[:at], *new, *listed[at:]]  # type: ignore[attr-defined]
        for part in new:
            part.setup(trainer, pl_module, stage)

    def _refuse_doubles(self, listed: list[Any], new: list[Any]) -> None:
        for kind, word in _WORDS.items():
            both = [one for one in listed if isinstance(one, kind)], [one for one in new if isinstance(one, kind)]
            if all(both):
                raise MisconfigurationException(
                    f"UseRecipe({self.recipe.name!r}) brings {type(both[1][0]).__name__}, and the callbacks have a "
                    f"{type(both[0][0]).__name__} already. Say UseRecipe(..., {word}=False), or remove that one."
                )
