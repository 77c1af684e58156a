"""The schedule of a run as a picture and a table in its folder, and as an image in TensorBoard."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._lightning import Trainer, log_folder, rank_zero_warn
from ..preview import Preview, preview
from ..schedules import Schedule
from ._during import During, means
from ._horizon import updates_per_optimizer
from ._playing import Plan

_SHOWN_WITHOUT_END = 1_000  # updates, at least


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
    trainer: Trainer,
    plan: Plan,
    wanted: str | Path | bool,
    *,
    name: str,
    groups: dict[str, float],
    values: dict[str, Any],
) -> None:
    """Write picture and table, show the picture to loggers that take images, and warn of what looks unintended.

    On rank 0 alone. A picture that cannot be made ends no run.
    """
    if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    if plan.curve is None:
        rank_zero_warn("LRSchedule(preview=...): lengths in several units are known as the run goes, not before it.")
        return
    folder = Path(log_folder(trainer) or trainer.default_root_dir)
    file = folder / f"lr_schedule{name.replace('/', '-')}.png" if isinstance(wanted, bool) else Path(wanted)
    try:
        seen = _seen(trainer, plan, groups, values)
        seen.csv(file.with_suffix(".csv"))
        seen.png(file)
        _show(trainer, seen, f"schedule/preview{name}")
        for warning in seen.warnings if plan.horizon.ticks is not None else ():
            rank_zero_warn(f"LRSchedule: {warning}")
    except UserWarning:  # where somebody has made errors of warnings
        raise
    except Exception as error:  # noqa: BLE001 - a full disk, a logger or matplotlib must not end the run
        rank_zero_warn(f"LRSchedule: the preview could not be written to {file}: {error}. Training goes on.")


def _seen(trainer: Trainer, plan: Plan, groups: dict[str, float], values: dict[str, Any]) -> Preview:
    """The picture's data: as far as the Trainer goes, if it is known how far that is."""
    curve, unit, length = plan.curve, plan.unit, plan.horizon.ticks
    if length is not None and plan.horizon.unit == unit == "updates":
        length = min(length, updates_per_optimizer(trainer) or length)
    if length is None or plan.horizon.unit != unit:
        known = sum(phase.steps for phase in curve.phases[:-1]) if isinstance(curve, Schedule) else 0
        length = max(_SHOWN_WITHOUT_END, 10 * known)
    if unit == "seconds":  # in microseconds: nobody reads those
        per, unit = (10**6, "seconds") if length > 200 * 10**6 else (10**3, "milliseconds")
        curve = Schedule(*(replace(phase, steps=phase.steps // per) for phase in curve.phases))  # type: ignore[union-attr]
        values = {name: _stretched(value, per) for name, value in values.items()}
        length = max(1, length // per)
    names = {name: "".join(letter if letter.isprintable() else "?" for letter in name) for name in groups}
    shown = {names[name]: base for name, base in groups.items()}
    return preview(curve, total_steps=length, groups=shown, values=values, unit=unit)  # type: ignore[arg-type]


def _stretched(value: Callable[[int], float], per: int) -> Callable[[int], float]:
    return lambda step: value(step * per)


def _show(trainer: Trainer, seen: Preview, tag: str) -> None:
    for logger in trainer.loggers:
        experiment: Any = getattr(logger, "experiment", None)
        if experiment is not None and hasattr(experiment, "add_image"):
            experiment.add_image(tag, seen.rgb(), global_step=trainer.global_step, dataformats="HWC")
