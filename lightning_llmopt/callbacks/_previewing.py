"""The schedule of a run as a picture and a table in its folder, and as an image in TensorBoard."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .._lightning import Trainer, log_folder, rank_zero_warn
from ..preview import Preview, preview
from ..schedules import Schedule
from ._during import During, means
from ._playing import Plan

NAME = "lr_schedule.png"


def check_preview(wanted: Any) -> bool | str | Path:
    """Refuse what is neither a choice nor a file.

    Raises:
        ValueError: If it is nothing of the kind.
    """
    if not (isinstance(wanted, bool | Path) or (isinstance(wanted, str) and wanted)):
        raise ValueError(f"preview must be True, False or the PNG file to write, got {wanted!r}.")
    if not isinstance(wanted, bool) and Path(wanted).suffix.lower() != ".png":
        raise ValueError(f"preview must name a PNG file, such as 'runs/lr.png', got {str(wanted)!r}.")
    return wanted


def values_by_phase(plan: Plan, during: During, bases: dict[str, float]) -> dict[str, Callable[[int], float]]:
    """Curves of the entries that phases have values for; ``bases`` are their values elsewhere."""
    schedule = plan.curve

    def curve(entry: str, base: float) -> Callable[[int], float]:
        def value(step: int) -> float:
            phase = schedule.phase_at(step).name if isinstance(schedule, Schedule) else ""
            given = [values[entry] for name, values in during.items() if entry in values and means(name, phase)]
            return given[-1] if given and base else base

        return value

    return {entry: curve(entry, base) for entry, base in bases.items()}


def write_preview(
    trainer: Trainer, plan: Plan, wanted: str | Path | bool, *, groups: dict[str, float], values: dict[str, Any]
) -> None:
    """Write picture and table, show the picture to loggers that take images, and warn of what looks unintended.

    On rank 0 alone. A picture that cannot be made ends no run.
    """
    if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    if plan.curve is None:
        rank_zero_warn("LRSchedule(preview=...): lengths in several units are known as the run goes, not before it.")
        return
    seen = preview(
        plan.curve,
        total_steps=plan.horizon.ticks if plan.horizon.unit == plan.unit else None,
        groups=groups,
        values=values,
        unit="microseconds" if plan.unit == "seconds" else plan.unit,
    )
    for warning in seen.warnings:
        rank_zero_warn(f"LRSchedule: {warning}")
    file = Path(log_folder(trainer) or trainer.default_root_dir) / NAME if isinstance(wanted, bool) else Path(wanted)
    try:
        seen.csv(file.with_suffix(".csv"))
        seen.png(file)
        _show(trainer, seen)
    except Exception as error:  # noqa: BLE001 - a full disk, a logger or matplotlib must not end the run
        rank_zero_warn(f"LRSchedule: the preview could not be written to {file}: {error}. Training goes on.")


def _show(trainer: Trainer, seen: Preview) -> None:
    for logger in trainer.loggers:
        experiment: Any = getattr(logger, "experiment", None)
        if experiment is not None and hasattr(experiment, "add_image"):
            experiment.add_image("schedule/preview", seen.rgb(), global_step=trainer.global_step, dataformats="HWC")
