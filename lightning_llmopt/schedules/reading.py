"""Recipes as files and command lines write them: a name, or a dict."""

import reprlib
from collections.abc import Mapping
from typing import Any

from .nearest import did_you_mean
from .registry import RECIPES, by_name
from .spec import Description, ScheduleSpec

Written = Description | str | dict[str, Any]
"""A recipe, its name, or a dict as ``read_spec`` takes it."""


def read_spec(name: str, written: Any) -> ScheduleSpec:
    """The recipe that is meant.

    Args:
        name: What the user called it, for the message.
        written: A recipe; its name, ``"cosine"``; its name and settings, ``{"recipe": "wsd", "warmup": "2%"}``; or the
            same as LightningCLI writes it, ``{"class_path": "lightning_llmopt.schedules.wsd", "init_args": {...}}``.
            Settings that are recipes themselves, such as the parts of ``sequence``, are written in these ways too.

    Raises:
        ValueError: If it is none of these, there is no such recipe, or a setting is refused.

    Example:
        >>> read_spec("schedule", {"recipe": "wsd", "warmup": "2%"})
        wsd(warmup='2%')
    """
    if isinstance(written, ScheduleSpec):
        return written
    if isinstance(written, str):
        return by_name(written)
    plain = without_namespaces(written)
    if not isinstance(plain, dict) or not all(isinstance(key, str) for key in plain):
        raise ValueError(f"{name} must be a recipe, its name or a dict with both, got {reprlib.repr(written)}.")
    if "class_path" in plain:
        return _by_path(name, plain)
    if "recipe" not in plain:
        raise ValueError(f"{name} must be a dict with a recipe and its settings, got {reprlib.repr(plain)}.")
    return by_name(plain["recipe"], **{key: value for key, value in plain.items() if key != "recipe"})


def without_namespaces(value: Any) -> Any:
    """``value`` with dicts in place of the namespaces that jsonargparse leaves in what it could not make."""
    if type(value).__name__ == "Namespace":
        value = vars(value)
    if isinstance(value, Mapping):
        return {key: without_namespaces(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_namespaces(entry) for entry in value]
    return value


def _by_path(name: str, plain: dict[str, Any]) -> ScheduleSpec:
    """The recipe of a ``class_path``; others than ours are made by whoever reads the file, and do not come here."""
    strangers = [key for key in plain if key not in ("class_path", "init_args")]
    if strangers:
        raise ValueError(f"{name} takes class_path and init_args, got {strangers[0]!r} beside them.")
    room, _, recipe = str(plain["class_path"]).rpartition(".")
    if recipe not in RECIPES:
        meant = did_you_mean(recipe, RECIPES)
        raise ValueError(
            f"{name}: class_path must end in one of {sorted(RECIPES)}, or be a function that gives a schedule, got "
            f"{plain['class_path']!r}.{meant}"
        )
    if not room.startswith("lightning_llmopt.schedules"):
        raise ValueError(
            f"{name}: class_path must be 'lightning_llmopt.schedules.{recipe}', got {room + '.' + recipe!r}."
        )
    settings = plain.get("init_args") or {}
    if not isinstance(settings, dict):
        raise ValueError(f"{name}: init_args must be a dict of settings of {recipe}, got {settings!r}.")
    return by_name(recipe, **settings)
