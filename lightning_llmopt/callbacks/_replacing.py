"""Parts of putting another optimizer in a module's place."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ..optim import Trait, traits_of
from ..optim.decay_split import EMBEDDINGS
from ..optim.own import Own
from ..structure import find_blocks


def with_settings(given: Own, settings: Mapping[str, Any]) -> Own:
    """The same optimizer with further settings."""
    fixed = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    return Own(given.make, tuple(sorted({**dict(given.settings), **fixed}.items())))


def matrices(model: nn.Module) -> Callable[[Tensor], bool]:
    """Whether a parameter is a matrix of a block; where there are no blocks, a matrix that is no embedding."""
    try:
        structure = find_blocks(model)
    except ValueError:
        structure = None

    def fits(trait: Trait) -> bool:
        inside = structure is None or 0 < structure.depth_of(trait.name) <= len(structure.blocks)
        embeds = any(isinstance(module, EMBEDDINGS) for module in trait.modules)
        return trait.ndim == 2 and min(trait.shape) > 1 and inside and not embeds

    matrices = {id(trait.parameter) for trait in traits_of(model) if fits(trait)}
    return lambda parameter: id(parameter) in matrices


def names(optimizers: list[Optimizer]) -> list[str]:
    """Class names, told apart as in the log."""
    names: list[str] = []
    for optimizer in optimizers:
        name = type(optimizer).__name__
        seen = sum(other.partition("-")[0] == name for other in names)
        names.append(f"{name}-{seen}" if seen else name)
    return names


def path(one: Own) -> str:
    """Where a class or function is to be found."""
    made: Any = getattr(one.make, "func", one.make)
    return f"{getattr(made, '__module__', '?')}.{getattr(made, '__qualname__', type(made).__qualname__)}"


def kind(optimizer: Any) -> str:
    """Where the class of an optimizer is to be found."""
    made = type(optimizer)
    return f"{made.__module__}.{made.__qualname__}"


def default_of(one: Own, name: str) -> Any:
    """What a setting is that nobody gives; ``None`` if it has no default."""
    try:
        found = inspect.signature(one.make).parameters[name].default
    except (KeyError, TypeError, ValueError):
        return None
    return None if found is inspect.Parameter.empty else plain(found)


def plain(value: Any) -> Any:
    """A setting as a checkpoint may hold it."""
    if isinstance(value, tuple):
        return [plain(one) for one in value]
    if isinstance(value, Tensor):
        return float(value)
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def put(groups: list[dict[str, Any]], key: str, old: Any, new: Any) -> None:
    """A new setting wherever the old one is in force; rates keep their ratios, and decays are those of the groups."""
    if new is None or key == "weight_decay":
        return
    for group in groups:
        if key == "lr" and old:
            for rate in ("lr", "initial_lr"):
                if rate in group:
                    group[rate] = group[rate] * (float(new) / float(old))
        elif key in group and (old is None or plain(group[key]) == old):
            group[key] = new
