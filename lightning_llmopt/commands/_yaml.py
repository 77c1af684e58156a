"""YAML files of LightningCLI, read by the safe loader."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..schedules import Schedule, ScheduleSpec
from ._extras import needed
from ._signatures import schedule_of


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping that a file holds; that of its ``fit`` section, if it has one.

    Raises:
        ValueError: If it is no YAML, or no mapping.
        OSError: If it cannot be read.
    """
    yaml = needed("yaml", by="--config")
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"--config {str(file)!r} is no YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(found, dict):
        raise ValueError(
            f"--config {str(file)!r} must hold a mapping such as trainer: ..., got {type(found).__name__}."
        )
    return found["fit"] if isinstance(found.get("fit"), dict) else found


def schedule_in(file: Path) -> tuple[ScheduleSpec | Schedule, str | int | None]:
    """The schedule of the file's ``LRSchedule``, and the length of its run if the file says it in updates.

    Raises:
        ValueError: If there is no such callback, or its schedule is refused.
    """
    trainer = read_yaml(file).get("trainer") or {}
    callbacks = trainer.get("callbacks") or []
    found = [one for one in (callbacks if isinstance(callbacks, list) else [callbacks]) if _is_schedule(one)]
    if not found:
        raise ValueError(f"--config {str(file)!r} must have an LRSchedule among trainer.callbacks, got none.")
    given = found[0].get("init_args") or {}
    if "schedule" not in given:
        raise ValueError(f"--config {str(file)!r}: LRSchedule must have init_args.schedule, got {sorted(given)}.")
    steps = trainer.get("max_steps")
    total = given.get("total") or (steps if isinstance(steps, int) and steps > 0 else None)
    return schedule_of(given["schedule"], where=f"schedule in {file}"), total


def _is_schedule(callback: Any) -> bool:
    return isinstance(callback, Mapping) and str(callback.get("class_path", "")).rpartition(".")[2] == "LRSchedule"
