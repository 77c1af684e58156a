"""Schedules and recipes as plain lists, dicts, numbers and strings, for YAML, JSON and checkpoints."""

import reprlib
from collections.abc import Mapping
from dataclasses import fields
from datetime import timedelta
from numbers import Integral, Real
from typing import Any

from .phases import Phase, Schedule
from .reading import read_spec
from .registry import RECIPES, by_name
from .spec import ScheduleSpec

_KEYS = [field.name for field in fields(Phase)]


def to_plain(schedule: Schedule) -> list[dict[str, Any]]:
    """The schedule as a list of its phases, each a dict of strings and numbers.

    Args:
        schedule: Any schedule, such as ``wsd(...).resolve(total_steps=1_000)``.

    Raises:
        ValueError: If it is no ``Schedule``.

    Example:
        >>> to_plain(Schedule(Phase("warmup", 2, 0.0, 1.0)))
        [{'name': 'warmup', 'steps': 2, 'start': 0.0, 'end': 1.0, 'shape': 'linear'}]
    """
    if not isinstance(schedule, Schedule):
        raise ValueError(f"schedule must be a Schedule, got {reprlib.repr(schedule)}.")
    return [{key: _plain(key, getattr(phase, key)) for key in _KEYS} for phase in schedule.phases]


def from_plain(phases: list[dict[str, Any]]) -> Schedule:
    """The schedule that ``to_plain`` wrote; equal to the one it was given.

    Args:
        phases: One dict a phase, with ``name``, ``steps``, ``start``, ``end`` and ``shape``.

    Raises:
        ValueError: If it is no such list, or a value is none that ``Phase`` takes.

    Example:
        >>> schedule = Schedule(Phase("warmup", 2, 0.0, 1.0), Phase("decay", 2, 1.0, 0.1, "cosine"))
        >>> from_plain(to_plain(schedule)) == schedule
        True
    """
    if not isinstance(phases, list) or not phases:
        raise ValueError(f"phases must be a list of at least one phase, got {reprlib.repr(phases)}.")
    for number, phase in enumerate(phases):
        if not isinstance(phase, dict) or phase.keys() != set(_KEYS):
            raise ValueError(f"phases[{number}] must be a dict with the keys {_KEYS}, got {reprlib.repr(phase)}.")
        if not isinstance(phase["name"], str):
            raise ValueError(f"phases[{number}]['name'] must be a string, got {phase['name']!r}.")
    return Schedule(*(Phase(**phase) for phase in phases))


def spec_to_plain(spec: ScheduleSpec) -> dict[str, Any]:
    """The recipe's name and the settings that it was called with, as one dict.

    Args:
        spec: What a recipe returned, such as ``wsd(warmup="2%")``.

    Raises:
        ValueError: If no recipe made it, so that its settings are not known.

    Example:
        >>> from lightning_llmopt.schedules import wsd
        >>> spec_to_plain(wsd(warmup="2%", decay=0.1))
        {'recipe': 'wsd', 'warmup': '2%', 'decay': 0.1}
    """
    settings = getattr(spec, "settings", None)
    if settings is None or by_name(spec.recipe, **dict(settings)) != spec:
        raise ValueError(f"spec must come unchanged from one of {sorted(RECIPES)}, got {reprlib.repr(spec)}.")
    return {"recipe": spec.recipe, **{key: _plain(key, value) for key, value in settings}}


def spec_from_plain(plain: dict[str, Any]) -> ScheduleSpec:
    """The recipe that ``spec_to_plain`` wrote; equal to the one it was given.

    Args:
        plain: The name under ``recipe``, and settings under theirs; a recipe within, as the parts of
            ``sequence`` are, is such a dict again.

    Raises:
        ValueError: If it is no such dict, there is no such recipe, or a setting is refused.

    Example:
        >>> spec_from_plain({"recipe": "wsd", "warmup": "2%"})
        wsd(warmup='2%')
    """
    if not isinstance(plain, dict):
        raise ValueError(f"plain must be a dict with a recipe and its settings, got {reprlib.repr(plain)}.")
    return read_spec("plain", plain)


def _plain(name: str, value: Any) -> Any:
    """``value`` without types that a file does not know: numpy's numbers, tuples, recipes."""
    if value is None:
        return None
    if isinstance(value, ScheduleSpec):
        return spec_to_plain(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, timedelta):
        return f"{value // timedelta(microseconds=1) / 10**6!r} s"
    if isinstance(value, Mapping):
        return {_plain(name, key): _plain(name, entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(name, entry) for entry in value]
    raise ValueError(f"{name} must be made of strings, numbers, lists and dicts, got {reprlib.repr(value)}.")
