"""A recipe made into torch's and Lightning's things; the only part of the room that needs them."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim import SGD, Optimizer

from .._lightning import Callback
from ..callbacks import GradientNormClip, GradientNormMonitor, LRSchedule, UseOptimizer, WeightDecaySplit
from ..callbacks._replacing import matrices
from ..optim import DecaySplit, own, renewed, traits_of
from ..optim.own import Own

if TYPE_CHECKING:
    from .recipe import Recipe


@dataclass(frozen=True)
class Parts:
    """Which callbacks a recipe brings.

    Args:
        schedule: ``LRSchedule``.
        optimizer: ``UseOptimizer``.
        groups: ``WeightDecaySplit``.
        clipping: ``GradientNormClip``.
        monitor: ``GradientNormMonitor``.

    Raises:
        ValueError: If one is neither True nor False, or none is True.
    """

    schedule: bool
    optimizer: bool
    groups: bool
    clipping: bool
    monitor: bool

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be True or False, got {value!r}.")
        if not any(vars(self).values()):
            raise ValueError(f"one of {', '.join(vars(self))} must be True, got False for all.")


def callbacks_of(
    recipe: "Recipe",
    parts: Parts,
    *,
    total: int | str | None,
    tokens: Callable[[Any], int] | None,
    replace_schedulers: bool,
    on_change: str,
    show: bool,
) -> list[Callback]:
    """The callbacks, those of groups first."""
    made: list[Callback] = []
    if parts.optimizer:
        main, others = _own(recipe, "optimizer"), _own(recipe, "others") if "others" in recipe else None
        made.append(UseOptimizer(main.make, dict(main.settings), others=others, on_change=on_change, show=show))
    if parts.groups and recipe.value("decays") == "matrices":
        made.append(WeightDecaySplit(on_change=on_change, show=show))
    if parts.schedule:
        made.append(
            LRSchedule(
                recipe.schedule(),
                total=total,
                tokens=tokens,
                replace_schedulers=replace_schedulers,
                on_change=on_change,
            )
        )
    if parts.clipping and "max_norm" in recipe:
        made.append(GradientNormClip(recipe["max_norm"].value))
    if parts.monitor:
        made.append(GradientNormMonitor())
    return made


def optimizer_of(recipe: "Recipe", module: nn.Module) -> Optimizer:
    """The recipe's optimizer over the trainable parameters of ``module``."""
    traits = [trait for trait in traits_of(module) if trait.parameter.requires_grad]
    if not traits:
        raise ValueError(f"{type(module).__name__} has no trainable parameter for {recipe.name}'s optimizer.")
    main, others = _own(recipe, "optimizer"), _own(recipe, "others") if "others" in recipe else None
    splits = recipe.value("decays") == "matrices"
    decaying = [trait.parameter for trait in traits if not splits or DecaySplit().decays(trait)]
    known = {id(parameter) for parameter in decaying}
    rest = [trait.parameter for trait in traits if id(trait.parameter) not in known]
    rate = dict(main.settings)["lr"]
    groups: list[dict[str, Any]] = [
        {"params": decaying, "name": "decay", "weight_decay": 1.0},
        {"params": rest, "name": "no_decay", "weight_decay": 0.0},
    ]
    carrier = SGD([group for group in groups if group["params"]], lr=rate)  # to where they are made anew
    return renewed(carrier, main, others=others, fits=None if others is None else matrices(module))


def _own(recipe: "Recipe", which: str) -> Own:
    """The recipe's optimizer, or the one of other parameters, with its settings."""
    path = recipe[which].value
    package = path.partition(".")[0]
    if find_spec(package) is None:
        raise ValueError(
            f"{recipe.name} trains with {path}: pip install {package}, or leave its optimizer out "
            "(optimizer=False) and configure your own."
        )
    return own({"class_path": path, "init_args": recipe.optimizer_settings(which)})
