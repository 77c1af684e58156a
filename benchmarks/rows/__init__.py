"""The rows: each module here has a docstring that says what it measures, and ``run(settings)``."""

import pkgutil
from collections.abc import Callable, Sequence
from importlib import import_module

from ..harness import Settings
from ..tables import Table

Run = Callable[[Settings], Sequence[Table]]


def names() -> list[str]:
    """Names of all rows, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> tuple[Run, str]:
    """The function and the docstring of a row.

    Raises:
        ValueError: If there is no such row.
    """
    if name not in names():
        raise ValueError(f"row must be one of {names()}, got {name!r}.")
    module = import_module(f"{__name__}.{name}")
    return module.run, module.__doc__ or ""
