"""The learning rate of every update, by a schedule."""

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from typing_extensions import override

from .._lightning import (
    Callback,
    LightningModule,
    MisconfigurationException,
    Trainer,
    is_logging_step,
    logger_step,
    not_compiled,
    rank_zero_warn,
)
from ..schedules import Schedule, ScheduleSpec, parse_duration
from ._bar import hide, show
from ._horizon import resolve, updates_per_optimizer, what_sets_the_length
from ._log import write
from ._optimizers import group_names, index_of, may_step, optimizer_names
from ._rates import ScheduledRates, base_rates, check_curve
from ._strategy import refuse_rate_writers, refuse_strategies
from ._updates import AppliedUpdates


class LRSchedule(Callback):
    """Run every parameter group at its own base rate times the schedule's multiplier.

    The base rates are the ones that ``configure_optimizers`` returns, so ratios between groups are
    kept. Each optimizer follows its own count of applied updates: micro-batches inside an accumulation
    window, updates that the fp16 scaler skipped and steps of other optimizers do not move it. Works
    with several optimizers, manual optimization, rates held as tensors and groups added during the run.

    The only state is those counts, saved with the checkpoint: a resumed run computes the very same
    rates. If the configuration changed in between, old and new rate are printed.

    Logged at each logging step of the Trainer, on the x axis of ``self.log``:

    - ``lr/<optimizer>/<group>``: rate of that group in this update, such as ``lr/AdamW/group0``; the group
      is called by its ``name`` entry where it has one.

    The progress bar shows the first group's rate as ``lr`` and the schedule's ``phase``.

    Args:
        schedule: A recipe such as ``wsd(...)``, resolved against the length of the run; or a ``Schedule``;
            or any function from an update number, counted from 0, to a multiplier [1], >= 0.
        total: Length of the run [updates of each optimizer], >= 1, if not the Trainer's own:
            ``max_steps``, or ``max_epochs`` with a loader that has a length.
        replace_schedulers: Whether to drop the schedulers that ``configure_optimizers`` returns, for modules
            that are not yours to edit. By default they are refused: two writers of one rate.

    Raises:
        ValueError: If ``schedule`` is nothing of the kind or ``total`` is not a length in updates.
        MisconfigurationException: At fit start, if somebody else writes the rate too, if the length of the
            run is not known, or if the schedule does not fit into it; while training, if somebody changes
            a rate between two updates.

    Example:
        >>> from lightning_llmopt.schedules import wsd
        >>> callback = LRSchedule(wsd(warmup="2%", decay="20%", shape="sqrt"))
    """

    _bases: list[list[float]]
    _rates: ScheduledRates | None
    _updates: AppliedUpdates | None
    _counts: list[int] | None
    _saved: dict[str, Any] | None
    _length: int | None
    _run: list[Any]
    _left_at: int
    _logged: dict[int, int]
    _past_end: set[int]
    _in_force: tuple[float, str | None]

    def __init__(
        self,
        schedule: ScheduleSpec | Schedule | Callable[[int], float],
        *,
        total: int | str | None = None,
        replace_schedulers: bool = False,
    ) -> None:
        if not isinstance(schedule, ScheduleSpec):
            check_curve(schedule)
        self.schedule = schedule
        self.total = None if total is None else _updates("total", total)
        if not isinstance(replace_schedulers, bool):
            raise ValueError(f"replace_schedulers must be True or False, got {replace_schedulers!r}.")
        self.replace_schedulers = replace_schedulers
        self._detached()

    @property
    @override
    def state_key(self) -> str:
        """Fixed, so that a change of arguments does not lose the state."""
        return "LRSchedule"

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start from nothing, unless the same Trainer goes on with another fit."""
        if stage != "fit":
            return
        refuse_strategies(
            trainer, "LRSchedule", ("DeepSpeedStrategy",), "its engine keeps optimizer and counter to itself."
        )
        refuse_rate_writers(trainer, "LRSchedule")
        self._saved = None

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take down the base rates: the last moment before a checkpoint overwrites them."""
        self._rates = None
        if self.replace_schedulers:
            trainer.strategy.lr_scheduler_configs = []
        _refuse_second_writer(trainer, pl_module)
        self._bases = [base_rates(optimizer, peak=self.replace_schedulers) for optimizer in trainer.optimizers]

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Everything is restored by now: resolve the schedule, write the first rates, start counting."""
        self._counts = counts = self._applied_so_far(trainer)
        length = self._length_of(trainer)
        self._length = self.total or length
        schedule, self._past_end = self.schedule, set()
        curve = resolve(schedule, trainer, total=self._length) if isinstance(schedule, ScheduleSpec) else schedule
        self._rates = rates = ScheduledRates(list(trainer.optimizers), self._bases, curve, counts)
        self._report_jumps(trainer)
        self._updates = AppliedUpdates(counts, after=rates.write)
        self._updates.attach(rates.optimizers)
        self._note(0)
        show(trainer, "lr", lambda: f"{self._in_force[0]:.2e}")
        show(trainer, "phase", lambda: self._in_force[1])

    @override
    @not_compiled
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Note the rates in force, and whether there is anything to apply."""
        if self._updates is None or self._rates is None:
            return
        index = index_of(trainer, optimizer)
        self._updates.about_to_step(index, empty=not may_step(optimizer))
        due, step = is_logging_step(trainer), logger_step(trainer)
        self._rates.adopt_new_groups(index)
        self._refuse_strangers(trainer, index, all_groups=due)
        self._note(index)
        self._say_past_end(trainer, index)
        if due and self._logged.get(index) != step:
            self._logged[index] = step
            tags = [f"lr/{optimizer_names(trainer)[index]}/{group}" for group in group_names(optimizer)]
            write(trainer, dict(zip(tags, self._rates.rates(index), strict=True)))

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count what torch's own hooks could not."""
        if self._updates is not None:
            self._updates.batch_ended()

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember where the counts belong, and say if the schedule was not played out."""
        self._left_at = trainer.global_step
        if not self._follows_trainer() or trainer.should_stop or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for name, optimizer, count in zip(
            optimizer_names(trainer), trainer.optimizers, self._counts or [], strict=True
        ):
            if optimizer.param_groups and self._length and count < 0.9 * self._length:
                rank_zero_warn(
                    f"LRSchedule: the run ended after {count} updates of {name}, but the schedule was made for "
                    f"{self._length}, so its end was not reached. If the run is meant to be that long, say "
                    f"LRSchedule(..., total={count})."
                )

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the optimizers and the progress bar."""
        self._let_go(trainer)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let go of the optimizers and the progress bar."""
        self._let_go(trainer)

    @override
    def state_dict(self) -> dict[str, Any]:
        """Applied updates of each optimizer, the rates of its next update, and what the length of the run came from."""
        if self._rates is None or self._counts is None:
            return self._saved or {}
        rates = [self._rates.rates(index) for index in range(len(self._counts))]
        return {"updates": list(self._counts), "rates": rates, "run": list(self._run)}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what was saved until training starts."""
        self._saved = state_dict

    def _length_of(self, trainer: Trainer) -> int | None:
        """Length of the run: the saved one if nothing that it depends on has changed, else worked out."""
        depends_on = what_sets_the_length(trainer)
        if self._saved is not None and self._saved.get("run", [])[1:] == depends_on:
            length = self._saved["run"][0]
        else:
            length = updates_per_optimizer(trainer)
        self._run = [length, *depends_on]
        return length

    def _follows_trainer(self) -> bool:
        """Whether the length of the schedule was the Trainer's to say, and matters."""
        return self.total is None and isinstance(self.schedule, ScheduleSpec) and self.schedule.needs_total_steps()

    def _say_past_end(self, trainer: Trainer, index: int) -> None:
        """One line for an optimizer that trains on after its schedule has ended."""
        if self._counts is None or not self._follows_trainer() or index in self._past_end:
            return
        if self._length is not None and self._counts[index] >= self._length:
            self._past_end.add(index)
            name = optimizer_names(trainer)[index]
            rank_zero_warn(
                f"LRSchedule: {name} has made {self._counts[index]} updates, which is all that the schedule was made "
                "for, and training goes on at the schedule's end value. Say LRSchedule(..., total=...)."
            )

    def _refuse_strangers(self, trainer: Trainer, index: int, *, all_groups: bool) -> None:
        """Stop where somebody else writes rates; the first group is checked every update, all when logging."""
        if self._rates is None:
            return
        for group, written, found in self._rates.strangers(index, all_groups=all_groups):
            name = f"lr/{optimizer_names(trainer)[index]}/{group_names(trainer.optimizers[index])[group]}"
            raise MisconfigurationException(
                f"Two writers of the learning rate: LRSchedule wrote {written!r} as {name}, and somebody else (a hook "
                f"of the module, another callback) has changed it to {found!r}. Remove that writer, or remove "
                "LRSchedule from the callbacks."
            )

    def __getstate__(self) -> dict[str, Any]:
        """Configuration only: a pickled or copied callback is attached to nothing."""
        return {name: self.__dict__[name] for name in ("schedule", "total", "replace_schedulers")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A callback that has not run yet."""
        self.__dict__.update(state)
        self._detached()

    def _detached(self) -> None:
        """What the callback knows before a run."""
        self._bases = []
        self._rates = self._updates = self._counts = self._saved = None
        self._length, self._left_at, self._run = None, 0, []
        self._logged, self._past_end = {}, set()
        self._in_force = (0.0, None)

    def _let_go(self, trainer: Trainer) -> None:
        if self._updates is not None:
            self._updates.detach()
        self._updates = None
        self._logged.clear()
        hide(trainer, "lr", "phase")

    def _note(self, index: int) -> None:
        """Remember what the first optimizer's coming update runs at, for the progress bar."""
        if index == 0 and self._rates is not None and self._rates.optimizers:
            self._in_force = self._rates.first_rate(), self._rates.phase(0)

    def _applied_so_far(self, trainer: Trainer) -> list[int]:
        """Applied updates of each optimizer: saved, kept from the last fit, or told by the Trainer."""
        kept = self._counts if trainer.global_step == self._left_at else None
        known = kept if self._saved is None else list(self._saved["updates"])
        if known is not None and len(known) == len(trainer.optimizers):
            return known
        if trainer.global_step and len(trainer.optimizers) > 1:
            raise MisconfigurationException(
                f"LRSchedule cannot tell how many of the {trainer.global_step} updates so far belong to which of "
                f"{len(trainer.optimizers)} optimizers: the checkpoint does not say. Resume from one that was "
                "written with LRSchedule and the same optimizers, or start a new fit without ckpt_path."
            )
        return [trainer.global_step] * len(trainer.optimizers)

    def _report_jumps(self, trainer: Trainer) -> None:
        """One line for each group that does not go on at the rate that was saved."""
        if self._saved is None or self._rates is None:
            return
        for index, group, old, new in self._rates.jumps(self._saved["rates"]):
            name = f"lr/{optimizer_names(trainer)[index]}/{group_names(trainer.optimizers[index])[group]}"
            jump = f" ({new / old - 1:+.1%})" if old else ""
            rank_zero_warn(
                f"LRSchedule: {name} goes on at {new:.6g}, the checkpoint had {old:.6g}{jump}: base rate, schedule "
                "or length of the run changed. The new configuration is in force."
            )


def _updates(name: str, value: int | str) -> int:
    """A length in updates.

    Raises:
        ValueError: If it is no whole number >= 1 of them.
    """
    try:
        duration = None if isinstance(value, float) else parse_duration(name, value)
    except ValueError:
        duration = None
    if duration is None or duration.relative or duration.amount < 1:
        raise ValueError(f"{name} must be a whole number of updates >= 1 (10_000, '10000 steps'), got {value!r}.")
    return int(duration.amount)


def _refuse_second_writer(trainer: Trainer, pl_module: LightningModule) -> None:
    if trainer.lr_scheduler_configs:
        names = ", ".join(type(config.scheduler).__name__ for config in trainer.lr_scheduler_configs)
        raise MisconfigurationException(
            f"Two writers of the learning rate: LRSchedule and {names}, returned by "
            f"{type(pl_module).__name__}.configure_optimizers. Return only the optimizer (if the "
            "module is not yours: LRSchedule(..., replace_schedulers=True)), or remove LRSchedule from the callbacks."
        )
