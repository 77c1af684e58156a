"""An optimizer described by its class and settings, built once its parameters are known."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from inspect import isclass
from typing import Any

from torch import optim
from torch.optim import Optimizer


@dataclass(frozen=True)
class Own:
    """A class of optimizer and its settings; equal ones are one optimizer.

    Args:
        make: The class, or a function that takes ``params`` and the settings.
        settings: Its arguments, as sorted pairs.
    """

    make: Callable[..., Optimizer]
    settings: tuple[tuple[str, Any], ...] = ()

    def __call__(self, groups: list[dict[str, Any]], **defaults: Any) -> Optimizer:
        """Build it over ``groups``; its own settings win over ``defaults``.

        Raises:
            ValueError: If it does not take these settings.
        """
        try:
            made = self.make(groups, **{**defaults, **dict(self.settings)})
        except TypeError as error:
            raise ValueError(f"{self} cannot be built: {error}.") from error
        if not isinstance(made, Optimizer):
            raise ValueError(f"{self} must make a torch.optim.Optimizer, got {type(made).__name__}.")
        return made

    def __str__(self) -> str:
        said = ", ".join(f"{name}={value!r}" for name, value in self.settings)
        return f"{getattr(self.make, '__name__', repr(self.make))}({said})"


def own(given: Any) -> Own:
    """An optimizer as a user writes it.

    Args:
        given: A class (``torch.optim.SGD``), its path (``"torch.optim.SGD"``), a function of ``params``, or a mapping
            with ``class_path`` and ``init_args`` as LightningCLI writes it.

    Raises:
        ValueError: If it is none of these, or there is nothing at the path.

    Example:
        >>> print(own({"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.9}}))
        SGD(lr=0.1, momentum=0.9)
    """
    if isinstance(given, Own):
        return given
    if hasattr(given, "class_path") and hasattr(given, "init_args"):  # what jsonargparse makes of it
        given = {"class_path": given.class_path, "init_args": given.init_args and vars(given.init_args)}
    if isinstance(given, Mapping):
        if "class_path" not in given or set(given) - {"class_path", "init_args"}:
            raise ValueError(f"optimizer must have the keys class_path and init_args, got {sorted(given)}.")
        settings = {name: value for name, value in (given.get("init_args") or {}).items() if name != "params"}
        return Own(_at(given["class_path"]), tuple((name, _fixed(settings[name])) for name in sorted(settings)))
    if isinstance(given, str):
        return Own(_at(given))
    if callable(given):
        return Own(given)
    raise ValueError(
        "optimizer must be a class, its path, a function of params, or {'class_path': ..., 'init_args': {...}}, "
        f"got {given!r}."
    )


def _fixed(value: Any) -> Any:
    """Lists, as YAML has them, as tuples: optimizers take either, and equal ones must be found equal."""
    return tuple(map(_fixed, value)) if isinstance(value, list) else value


def _at(path: Any) -> Callable[..., Optimizer]:
    module, _, name = str(path).rpartition(".")
    rule = f"optimizer must be the path of a class such as 'torch.optim.SGD', got {path!r}"
    try:
        room = import_module(module)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{rule}{_missing(module, name)}") from error
    found = getattr(room, name, None)
    if not callable(found):
        near = get_close_matches(name, [one for one in dir(room) if callable(getattr(room, one, None))], n=1)
        guess = f" Did you mean '{module}.{near[0]}'?" if near else ""
        raise ValueError(f"{rule}: {module} has no {name!r}.{guess}")
    if isclass(found) and not issubclass(found, Optimizer):
        raise ValueError(
            f"optimizer must be a torch.optim.Optimizer or make one of params, got {found.__module__}.{name}."
        )
    return found


def _missing(module: str, name: str) -> str:
    """What to say of a path whose first part cannot be imported."""
    if not module:
        near = get_close_matches(name, [one for one in dir(optim) if one[0].isupper()], n=1)
        return f". Did you mean 'torch.optim.{near[0]}'?" if near else "."
    package = module.partition(".")[0]
    if package and find_spec(package) is None:
        return f": there is no package {package!r}. Install it, or correct the path."
    return f": {module} cannot be imported."
