"""What is known of a run when training begins, in words."""

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from .._lightning import Callback, LightningModule, Trainer, time_limit
from ..optim.table import Row, rows
from ..schedules import Schedule, clock_ticks
from ..structure import find_blocks
from ._clipper import Clipper, bound_of_others
from ._horizon import updates_per_optimizer
from ._optimizers import optimizer_names
from ._playing import Plan
from ._regroups import Regroups
from ._replaced import Replaced
from ._scheduled import Scheduled
from ._shards import engine_clip_value, whole_parameters
from .skip_bad_steps import SkipBadSteps

_BARS = " ▁▂▃▄▅▆▇█"
_CURVE = 40  # characters
_MOST_PHASES = 8
_OURS = __name__.rpartition(".")[0]


def facts(trainer: Trainer) -> list[tuple[str, str]]:
    """Label and text of each line: horizon, schedule, clipping, strategy, and what else is attached.

    Call it when every callback has seen ``on_train_start``.
    """
    callbacks: list[Callback] = list(trainer.callbacks)  # type: ignore[attr-defined]
    skipping = [one for one in callbacks if isinstance(one, SkipBadSteps)]
    return [
        ("horizon", _horizon(trainer)),
        *_labelled("schedule", _schedules(trainer)),
        ("clipping", _clipping(trainer)),
        *_labelled("skipping", map(as_called, skipping)),
        ("strategy", _strategy(trainer)),
        *_labelled("also", _others(callbacks)),
    ]


def as_called(callback: Callback) -> str:
    """The callback with the arguments that are not its defaults, as far as it keeps them under their names.

    Example:
        >>> as_called(SkipBadSteps(sigma=4.0))
        'SkipBadSteps(sigma=4.0)'
    """
    given = []
    for name, parameter in inspect.signature(type(callback)).parameters.items():
        value = getattr(callback, name, parameter.default)
        if not _same(value, parameter.default):
            given.append(f"{name}={_short(value)}")
    return f"{type(callback).__name__}({', '.join(given)})"


def groups(trainer: Trainer, module: LightningModule) -> list[tuple[str, list[Row]]]:
    """Title and rows, one table an optimizer: of the callbacks that made the groups, or of what the module returned."""
    makers = [one for one in trainer.callbacks if isinstance(one, Regroups)]  # type: ignore[attr-defined]
    for maker in makers:
        if tables := maker.tables(trainer, module):
            return tables
    optimizers = [one for one in trainer.optimizers if all("lr" in group for group in one.param_groups)]
    names = dict(zip(map(id, trainer.optimizers), optimizer_names(trainer), strict=True))
    return [(f"Parameter groups of {names[id(one)]}", _rows(trainer, module, one)) for one in optimizers]


def phases(plan: Plan | None) -> list[dict[str, Any]]:
    """Number, name, first update and end of each phase, where the schedule counts updates; else nothing."""
    if plan is None or plan.unit != "updates" or not isinstance(plan.curve, Schedule):
        return []
    found, begin = [], 0
    for number, phase in enumerate(plan.curve.phases):
        if phase.steps:
            found.append({"number": number, "name": phase.name, "begin": begin, "end": begin + phase.steps})
        begin += phase.steps
    return found


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    Example:
        >>> duration(3723.4), duration(2.345)
        ('1:02:03', '2.3 s')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _horizon(trainer: Trainer) -> str:
    updates, limit = updates_per_optimizer(trainer), time_limit(trainer)
    known = [f"{updates:,} updates"] if updates is not None else []
    known += [f"{duration(limit / 1e6)} at most"] if limit is not None else []
    texts = [" or ".join(known) or "no end of its own"]
    if trainer.global_step:
        texts.append(f"{trainer.global_step:,} done")
    if trainer.num_training_batches != float("inf"):
        texts.append(f"{trainer.num_training_batches:,} batches an epoch")
    if trainer.accumulate_grad_batches > 1:
        texts.append(f"{trainer.accumulate_grad_batches} batches an update")
    return ", ".join(texts)


def _schedules(trainer: Trainer) -> Iterator[str]:
    """A line or two for everything that drives an entry of the groups."""
    found = [one for one in trainer.callbacks if isinstance(one, Scheduled)]  # type: ignore[attr-defined]
    for one in found:
        yield f"{one.label}{one.target}: {_course(one)}"
        if one.plan is not None and isinstance(one.plan.curve, Schedule):
            yield _curve(one.plan.curve)
    others = [config for config in trainer.lr_scheduler_configs if not isinstance(config.scheduler, Replaced)]
    for config in others:
        yield f"{type(config.scheduler).__name__}, every {config.frequency} {config.interval}".replace(
            "every 1 ", "every "
        )
    if not found and not others:
        yield "none: rates stay as configure_optimizers returns them"


def _course(one: Scheduled) -> str:
    """The phases and their lengths in this run."""
    plan = one.plan
    if plan is None or not isinstance(plan.curve, Schedule):
        return _short(one.schedule)
    per = clock_ticks(plan.unit)
    lengths = [(phase.name, phase.steps) for phase in plan.curve.phases if phase.steps]
    texts = [f"{name} {steps / per:,.6g}" if per > 1 else f"{name} {steps:,}" for name, steps in lengths]
    if len(texts) > _MOST_PHASES:
        texts = [*texts[: _MOST_PHASES - 1], f"... ({len(texts) - _MOST_PHASES:,} more)", texts[-1]]
    return f"{getattr(one.schedule, 'recipe', 'Schedule')}, {', '.join(texts)} {plan.unit}"


def _curve(schedule: Schedule) -> str:
    """The multiplier over the run in one line of blocks."""
    total = max(1, schedule.total_steps)
    values = [schedule(min(total - 1, (2 * column + 1) * total // (2 * _CURVE))) for column in range(_CURVE)]
    top = max(values) or 1.0
    return "".join(_BARS[max(1, round(8 * value / top))] for value in values)


def _clipping(trainer: Trainer) -> str:
    found = [one for one in trainer.callbacks if isinstance(one, Clipper)]  # type: ignore[attr-defined]
    if found:
        return ", ".join(map(as_called, found))
    if value := engine_clip_value(trainer):
        return f"by DeepSpeed, norm {value:g}"
    if bound_of_others(trainer) < float("inf"):
        return f"by the Trainer, norm {trainer.gradient_clip_val:g}"
    return f"by the Trainer, value {trainer.gradient_clip_val:g}" if trainer.gradient_clip_val else "none"


def _strategy(trainer: Trainer) -> str:
    ranks, device = trainer.world_size, trainer.strategy.root_device.type
    where = f"{ranks} processes on {device}" if ranks > 1 else f"one process on {device}"
    nodes = f", {trainer.num_nodes} nodes" if trainer.num_nodes > 1 else ""
    return f"{type(trainer.strategy).__name__}, {where}{nodes}, precision {trainer.precision}"


def _others(callbacks: Iterable[Callback]) -> Iterator[str]:
    """What of ours has no line of its own."""
    for one in callbacks:
        ours = type(one).__module__.startswith(f"{_OURS}.")
        told = isinstance(one, Scheduled | Clipper | SkipBadSteps) or getattr(one, "SHOWS_ALL", False)
        if ours and not told:
            yield as_called(one)


def _labelled(label: str, texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The label on the first line alone."""
    for number, text in enumerate(texts):
        yield ("" if number else label), text


def _rows(trainer: Trainer, module: LightningModule, optimizer: Any) -> list[Row]:
    """Rows of one optimizer, with whole sizes where a strategy has cut parameters."""
    try:
        structure = find_blocks(module)
    except ValueError:
        structure = None
    names: dict[Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
    depths = {} if structure is None else {one: structure.depth_of(name) for one, name in names.items()}
    found = rows(optimizer, {}, depths, len(structure.blocks) if structure is not None else 0)
    whole = whole_parameters(trainer, optimizer)
    if len(whole) != len(found):
        return found
    return [
        Row(
            row.group, sum(getattr(one, "ds_numel", one.numel()) for one in group), len(group), row.rate, row.decay,
            row.blocks,
        )
        for row, group in zip(found, whole, strict=True)
    ]  # fmt: skip


def _same(value: Any, default: Any) -> bool:
    try:
        return bool(value is default or value == default)
    except Exception:  # noqa: BLE001 - whatever a value of somebody's says to a comparison
        return False


def _short(value: Any) -> str:
    """In the words of who wrote it, one line."""
    if inspect.isroutine(value) or inspect.isclass(value):
        return getattr(value, "__qualname__", repr(value))
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
