"""YAML files of LightningCLI, read by the safe loader."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..recipes import recipe
from ..schedules import Schedule, ScheduleSpec
from ._extras import needed
from ._signatures import schedule_of


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping that a file holds; that of its ``fit`` section, if it has one.

    Raises:
        ValueError: If it is no YAML, or it or its trainer is no mapping.
        OSError: If it cannot be read.
    """
    yaml = needed("yaml", by="--config")
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"--config {str(file)!r} is no YAML: {_what(error)}.") from error
    if not isinstance(found, dict):
        raise ValueError(
            f"--config {str(file)!r} must hold a mapping such as trainer: ..., got {type(found).__name__}."
        )
    found = found["fit"] if isinstance(found.get("fit"), dict) else found
    if not isinstance(trainer := found.get("trainer") or {}, dict):
        raise ValueError(f"--config {str(file)!r}: trainer must be a mapping such as max_steps: 1000, got {trainer!r}.")
    return found


def _what(error: Exception) -> str:
    """The complaint and its place, without the excerpt that YAML draws below it."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or not problem:
        return " ".join(str(error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


def schedule_in(file: Path) -> tuple[ScheduleSpec | Schedule, str | int | None]:
    """The schedule of the file's ``LRSchedule`` or ``UseRecipe``, and the length of its run if it is said in updates.

    Raises:
        ValueError: If there is no such callback, or its schedule is refused.
    """
    trainer = read_yaml(file).get("trainer") or {}
    callbacks = trainer.get("callbacks") or []
    listed = [one for one in (callbacks if isinstance(callbacks, list) else [callbacks]) if isinstance(one, Mapping)]
    steps = trainer.get("max_steps")
    total = steps if isinstance(steps, int) and steps > 0 else None
    for given in _settings(listed, "LRSchedule"):
        if "schedule" not in given:
            raise ValueError(f"--config {str(file)!r}: LRSchedule must have init_args.schedule, got {sorted(given)}.")
        return schedule_of(given["schedule"], where=f"schedule in {file}"), given.get("total") or total
    for given in _settings(listed, "UseRecipe"):
        if given.get("schedule", True):
            return _of_recipe(given, file), total
    raise ValueError(
        f"--config {str(file)!r} must have an LRSchedule or a UseRecipe with a schedule among trainer.callbacks, "
        "got none."
    )


def _settings(callbacks: list[Mapping[str, Any]], name: str) -> Iterator[Mapping[str, Any]]:
    """What callbacks of this class are made with."""
    for one in callbacks:
        if str(one.get("class_path", "")).rpartition(".")[2] == name:
            given = one.get("init_args") or {}
            if not isinstance(given, Mapping):
                raise ValueError(f"init_args of {name} must be a mapping, got {given!r}.")
            yield given


def _of_recipe(given: Mapping[str, Any], file: Path) -> ScheduleSpec:
    """The schedule that ``UseRecipe`` would bring."""
    name = given.get("name")
    if not isinstance(name, str):
        raise ValueError(f"--config {str(file)!r}: UseRecipe must have init_args.name, got {name!r}.")
    found = recipe(name)
    changes = {key: given[key] for key in ("batch", "total", "size") if given.get(key) is not None}
    if changes:
        how = {key: given[key] for key in ("rule", "extrapolate") if key in given}
        found = found.rescaled(**changes, **how)
    return found.schedule()
