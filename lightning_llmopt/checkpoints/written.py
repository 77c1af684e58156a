"""What a Trainer has written down beside the weights, and where its schedules stand."""

from collections.abc import Iterator, Mapping
from typing import Any

from ..schedules import from_plain, spec_from_plain
from .diagnosis import Contents

SCHEDULES = ("LRSchedule", "HyperparameterSchedule")


def contents_of(value: Any) -> Contents:
    """Step, epoch, version, callbacks and schedules of a checkpoint's dict, as far as they are there.

    Args:
        value: What ``read_pickle`` has made of it.
    """
    if not isinstance(value, Mapping):
        return Contents()
    callbacks = value.get("callbacks")
    states = callbacks if isinstance(callbacks, Mapping) else {}
    keys = tuple(str(key)[:120] for key in states)
    lines = [line for key, state in states.items() if str(key).startswith(SCHEDULES) for line in _standing(key, state)]
    return Contents(
        _number(value.get("global_step")), _number(value.get("epoch")),
        _text(value.get("pytorch-lightning_version")), keys, tuple(lines),
    )  # fmt: skip


def is_lightnings(value: Any) -> bool:
    """Whether a Trainer has written it, and not somebody who saved a ``state_dict``."""
    return isinstance(value, Mapping) and "pytorch-lightning_version" in value


def _standing(key: str, state: Any) -> Iterator[str]:
    """One line for each optimizer: which phase, which update of how many, at what rate."""
    if not isinstance(state, Mapping) or not isinstance(state.get("updates"), list):
        return
    written, told = state.get("rates"), state.get("said")
    rates: list[Any] = written if isinstance(written, list) else []
    said: Mapping[str, Any] = told if isinstance(told, Mapping) else {}
    for index, update in enumerate(state["updates"]):
        try:
            phase = _phase(state, index)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError):
            phase = "in a phase that cannot be told"
        rate = rates[index] if index < len(rates) else None
        each = ", ".join(f"{one:.4g}" for one in rate if isinstance(one, float)) if isinstance(rate, list) else ""
        which = f" of optimizer {index}" if len(state["updates"]) > 1 else ""
        length, schedule = said.get("length of the run", "an unknown number"), said.get("schedule", "schedule not told")
        coming = f", next at {each}" if each else ""
        yield f"{key}{which}: {phase}, after {update} updates of a run of {length}{coming}; {schedule}"


def _phase(state: Mapping[str, Any], index: int) -> str:
    """Name of the phase that the coming update is in."""
    plan, playing, clock = state["plan"], state["playing"], state["clock"]
    if playing["cooldowns"][index]:
        return "cooling down"
    if plan is None:
        return "a function, which has no phases"
    if "timed" in plan or "spec" in plan:
        timed = "timed" in plan
        phases = spec_from_plain(plan["timed" if timed else "spec"]).phases
        return f"in {phases[playing['timed' if timed else 'courses'][index]['leg']].name!r}"
    schedule = from_plain(plan["phases"])
    place = {"updates": state["updates"][index], "seconds": clock["seconds"], **clock["applied"][index]}[plan["unit"]]
    if schedule.total_steps is not None and place >= sum(phase.steps for phase in schedule.phases):
        return "at its end"
    return f"in {schedule.phase_at(place).name!r}"


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    return value[:40] if isinstance(value, str) else None
