"""All recipes by their names."""

import copy
import functools
import inspect
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ParamSpec

from .nearest import did_you_mean
from .spec import ScheduleSpec

Settings = ParamSpec("Settings")

RECIPES: dict[str, Callable[..., ScheduleSpec]] = {}


def recipe(function: Callable[Settings, ScheduleSpec]) -> Callable[Settings, ScheduleSpec]:
    """Enter ``function`` into RECIPES under its own name; what it returns knows the settings it was made with."""

    @functools.wraps(function)
    def made(*args: Settings.args, **settings: Settings.kwargs) -> ScheduleSpec:
        spec = function(*args, **settings)
        return replace(spec, settings=tuple(copy.deepcopy(settings).items()))  # a list may change afterwards

    RECIPES[made.__name__] = made
    return made


def by_name(name: str, **settings: Any) -> ScheduleSpec:
    """The recipe of that name with these settings, for YAML and command lines.

    Args:
        name: Key of ``RECIPES``, such as ``"cosine"``.
        **settings: Its keyword arguments.

    Raises:
        ValueError: If there is no such recipe, it takes no such setting, or a setting is refused.

    Example:
        >>> from lightning_llmopt.schedules import cosine
        >>> by_name("cosine", warmup="2%") == cosine(warmup="2%")
        True
    """
    if not isinstance(name, str) or name not in RECIPES:
        meant = did_you_mean(name, RECIPES)
        raise ValueError(f"schedule must be one of {sorted(RECIPES)}, got {reprlib.repr(name)}.{meant}")
    known = _parameters(RECIPES[name])
    for setting in settings:
        if setting not in known:
            raise ValueError(f"{name} takes {sorted(known)}, got {setting!r}.{did_you_mean(setting, known)}")
    missing = [setting for setting, rule in known.items() if rule.default is rule.empty and setting not in settings]
    if missing:
        raise ValueError(f"{name} needs {missing}, got {sorted(settings)}.")
    return RECIPES[name](**settings)


@functools.cache
def _parameters(made: Callable[..., ScheduleSpec]) -> Mapping[str, inspect.Parameter]:
    """What a recipe takes; looked up once, since it takes longer than the recipe itself."""
    return inspect.signature(made).parameters
