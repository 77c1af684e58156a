"""What all callbacks that drive an entry of parameter groups by a schedule have in common."""

from collections.abc import Callable
from typing import Any, ClassVar

from torch.optim import Optimizer
from typing_extensions import override

from .._lightning import (
    Callback,
    LightningModule,
    MisconfigurationException,
    Trainer,
    batch_is_done,
    is_logging_step,
    logger_step,
    not_compiled,
    rank_zero_info,
    rank_zero_warn,
    trains_without_end,
)
from ..schedules import Description, Duration, Schedule, ScheduleSpec, parse_duration
from ..schedules.reading import read_spec
from ._batches import Count
from ._clashes import refuse_absent, refuse_overlap, refuse_strangers
from ._clock import RunClock
from ._entries import LR, Entry, ScheduledEntries, bases_of
from ._factors import rate_factor
from ._horizon import horizon, updates_per_optimizer, what_sets_the_length
from ._log import write
from ._optimizers import group_names, index_of, may_step, optimizer_names
from ._playing import Plan, Playing, check_curve, plan
from ._resume import Jump, check_choice, settle
from ._shards import has_engine, update_is_due
from ._targets import Target
from ._updates import AppliedUpdates

Wanted = Description | Schedule | Callable[[int], float] | str | dict[str, Any]


class Scheduled(Callback):
    """Drives one entry of parameter groups: its base value times the schedule's multiplier.

    Subclasses say what they are called, and add what is theirs alone.
    """

    ENDS_RUNS: ClassVar[bool] = False
    _CONFIGURATION: ClassVar[tuple[str, ...]] = (
        "schedule", "total", "tokens", "samples", "target", "on_change", "entry", "between"
    )  # fmt: skip

    schedule: ScheduleSpec | Schedule | Callable[[int], float]
    _entries: ScheduledEntries | None
    _playing: Playing | None
    _clock: RunClock | None
    _updates: AppliedUpdates | None
    _counts: list[int] | None
    _saved: dict[str, Any] | None
    _bases: list[list[float]]
    _bases_in_force: list[list[float]]
    _mine: list[int]
    _said: dict[str, str]

    def __init__(
        self,
        schedule: Wanted,
        *,
        entry: Entry,
        between: tuple[float, float] | None,
        total: int | float | str | None,
        tokens: Count | None,
        samples: Count | None,
        target: Target,
        on_change: str,
    ) -> None:
        if isinstance(schedule, str | dict):
            schedule = read_spec("schedule", schedule)
        if not isinstance(schedule, ScheduleSpec):
            schedule = check_curve(schedule)
        check_choice(on_change)
        for name, function in (("tokens", tokens), ("samples", samples)):
            if function is not None and not callable(function):
                raise ValueError(f"{name} must be a function from a batch to a whole number, got {function!r}.")
        self.schedule, self.total = schedule, None if total is None else _length(total)
        self.tokens, self.samples, self.on_change = tokens, samples, on_change
        self.target, self.entry, self.between = target, entry, between
        self._detached()

    @property
    def label(self) -> str:
        """What the callback is called in messages."""
        return type(self).__name__

    @property
    def counts(self) -> list[int]:
        """Updates applied so far, one number an optimizer; empty before a run."""
        return list(self._counts or [])

    @property
    def peak(self) -> bool:
        """Whether base values are taken from schedulers that were here before."""
        return False

    def curve(self, trainer: Trainer, beside: Plan) -> dict[str, Callable[[int], float]]:
        """The first chosen group's value as a function of the update, if it moves on the same clock as ``beside``."""
        length = updates_per_optimizer(trainer)
        own = plan(self.label, self.schedule, horizon(trainer, self.total, updates=length), trainer)
        bases = [self._bases[index][at] for index, at in sorted(self.targeted(trainer)) if self._bases[index][at]]
        if own.curve is None or own.unit != beside.unit or not bases:
            return {}
        base, multiplier, between = bases[0], own.curve, self.between
        if between is None:
            return {self.entry.name: lambda step: base * multiplier(step)}
        return {self.entry.name: lambda step: between[0] + (between[1] - between[0]) * multiplier(step)}

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start from nothing, unless the same Trainer goes on with another fit."""
        if stage != "fit":
            return
        self._saved = None

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take down the base values: the last moment before a checkpoint overwrites them."""
        self._entries = None
        self.target.refuse_unknown(trainer, self.label)
        refuse_absent(trainer, self.label, self.entry, self.targeted(trainer))
        for other in trainer.callbacks:  # type: ignore[attr-defined]
            if other is not self and isinstance(other, Scheduled) and other.entry == self.entry:
                both = self.targeted(trainer) & other.targeted(trainer)
                refuse_overlap(trainer, self.entry, both, f"{self.label}{self.target}", f"{other.label}{other.target}")
        self._bases = [bases_of(optimizer, self.entry, peak=self.peak) for optimizer in trainer.optimizers]

    def scale_bases(self, factor: float) -> None:
        """Base values that somebody found better, between fit start and training start; ratios are kept."""
        self._bases = [[base * factor for base in bases] for bases in self._bases]

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Everything is restored by now: resolve the schedule, write the first values, start counting."""
        self._mine = self.target.optimizers(trainer)
        self._counts = counts = self._applied_so_far(trainer)
        length = self._length_of(trainer)
        ends = horizon(trainer, self.total, updates=length)
        new = plan(self.label, self.schedule, ends, trainer, total_is_given=self.total is not None)
        before = self._before_this_run(trainer)
        chosen, bases = self._chosen(new, trainer)
        self._clock = clock = RunClock(trainer, counts, self._units(chosen), tokens=self.tokens, samples=self.samples)
        self._restore_clock(chosen, clock, before)
        self._playing = playing = Playing(chosen, clock)
        if before is not None and "playing" in before and before.get("plan") == chosen.to_plain():
            playing.load_state_dict(before["playing"])
        elif before is not None and "playing" in before and chosen.same_but_for_its_end(before.get("plan")):
            playing.load_places(before["playing"])
        before = before or self._restored_without_us(trainer)
        self._entries = entries = ScheduledEntries(
            list(trainer.optimizers), self.entry, bases, self._value, select=self._select(trainer),
            between=self.between, factor=rate_factor(trainer) if self.entry == LR else None,
        )  # fmt: skip
        for index in range(len(counts)):
            entries.write(index)
        self._settle_changes(trainer, chosen, before)
        self._updates = AppliedUpdates(counts, after=self._after_update)
        self._updates.attach(entries.optimizers)
        self._stops = self.ENDS_RUNS and self.total is not None and trains_without_end(trainer)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do not train on where everything has come to its end already, as in a run that is resumed after that."""
        if self._stops and self._all_have_ended(trainer):
            trainer.should_stop = True

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Count what the batch holds, if the schedule looks at that."""
        if self._clock is None or self._entries is None or not self._clock.contents:
            return
        for index in self._clock.saw(batch, window=trainer.accumulate_grad_batches):
            self._entries.write(index)

    @override
    @not_compiled
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Write what this update consumes, if that matters; log; see to it that nobody else writes."""
        if self._updates is None or self._entries is None or self._clock is None:
            return
        if not update_is_due(trainer):
            return
        index = index_of(trainer, optimizer)
        self._updates.about_to_step(index, empty=not (has_engine(trainer) or may_step(optimizer)))
        due, step = is_logging_step(trainer), logger_step(trainer)
        self._entries.adopt_new_groups(index)
        refuse_strangers(trainer, self.label, self._entries, index, all_groups=due)
        if not self._clock.idle:
            self._clock.measure(index)
            self._entries.write(index)
        self._about_to_update(trainer, index)
        if due and index in self._mine and self._logged.get(index) != step:
            self._logged[index] = step
            write(trainer, self._metrics(trainer, index))

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count what torch's own hooks could not; end a run that has no other end."""
        if self._updates is None or self._clock is None:
            return
        self._updates.batch_ended()
        self._clock.batch_ended()
        self._say_what_was_cut()
        if self._stops and not trainer.should_stop and self._all_have_ended(trainer):
            rank_zero_info(f"{self.label}: the schedule has come to its end, and so does the run.")
            trainer.should_stop = True

    def _all_have_ended(self, trainer: Trainer) -> bool:
        """Whether this schedule and all others that end the run have come to their ends."""
        others = [other for other in trainer.callbacks if isinstance(other, Scheduled)]  # type: ignore[attr-defined]
        return all(other.has_ended() for other in others if other._stops)

    def has_ended(self) -> bool:
        """Whether the schedule has come to its end, for every optimizer that it drives."""
        return self._playing is not None and all(self._playing.ended(index) for index in self._mine)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember where the counts belong."""
        self._leave(trainer)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the optimizers."""
        self._let_go(trainer)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let go of the optimizers; remember where the counts belong, should the same Trainer go on."""
        self._leave(trainer)
        self._let_go(trainer)

    @override
    def state_dict(self) -> dict[str, Any]:
        """How far each optimizer is, the values of its next update, and what they came from."""
        if self._entries is None or self._counts is None or self._clock is None or self._playing is None:
            return self._saved or {}
        indices = range(len(self._counts))
        return {
            "updates": list(self._counts),
            "rates": [self._entries.values(index) for index in indices],
            "run": list(self._run),
            "bases": [list(bases) for bases in self._bases_in_force],
            "plan": self._playing.plan.to_plain(),
            "said": dict(self._said),
            "clock": {"units": sorted(self._playing.plan.units()), **self._clock.state_dict()},
            "playing": self._playing.state_dict(),
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what was saved until training starts."""
        self._saved = state_dict

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add what batches hold that wait for their update: every rank is here, so it can be summed."""
        if self._clock is not None and self._clock.contents and self._entries is not None:
            done = batch_is_done(trainer)
            checkpoint["callbacks"][self.state_key]["clock"]["windows"] = self._clock.open_windows(whole=done)

    def _value(self, index: int) -> float:
        """Multiplier of the coming update."""
        return self._playing(index) if self._playing is not None else 1.0

    def _after_update(self, index: int) -> None:
        """An update was applied: the next one's values."""
        if self._clock is not None and not self._clock.idle:
            self._clock.applied(index)
        if self._entries is not None:
            self._entries.write(index)

    def _about_to_update(self, trainer: Trainer, index: int) -> None:
        """For subclasses: the coming update's values are final."""

    def _metrics(self, trainer: Trainer, index: int) -> dict[str, float]:
        """What is logged of one optimizer."""
        values = self._entries.values(index) if self._entries else []
        return dict(zip(self._tags(trainer, index), values, strict=True))

    def _tags(self, trainer: Trainer, index: int) -> list[str]:
        """Tags of the chosen groups of one optimizer."""
        names, optimizer = group_names(trainer.optimizers[index]), optimizer_names(trainer)[index]
        chosen = self._entries.chosen(index) if self._entries else []
        return [f"{self.entry.name}/{optimizer}/{names[at]}" for at in chosen]

    def _select(self, trainer: Trainer) -> Callable[[int, Optimizer], list[int]]:
        return lambda index, optimizer: self.target.groups(trainer, index, optimizer)

    def _chosen(self, new: Plan, trainer: Trainer) -> tuple[Plan, list[list[float]]]:
        """The new plan and base values, or what the checkpoint had if that is to be kept."""
        if self.on_change != "keep" or (self._saved is None and not trainer.global_step):
            return new, self._bases
        if self._saved is None and self._kept(trainer):
            return new, self._bases
        if self._saved is None or "plan" not in self._saved:
            raise MisconfigurationException(
                f'{type(self).__name__}(on_change="keep"): the checkpoint has no schedule of {self.label}{self.target}'
                '. Resume from one that was written with it, or say on_change="adopt".'
            )
        if self._saved["plan"] is None:
            raise MisconfigurationException(
                f'{self.label}: on_change="keep" needs the checkpoint\'s schedule, and a function cannot be saved. '
                'Give the same function with on_change="adopt", or write it as piecewise(points=...).'
            )
        bases = [list(saved) for saved in self._saved["bases"]]
        return Plan.from_plain(self._saved["plan"]), bases

    def _units(self, chosen: Plan) -> set[str]:
        """Clocks that must be counted; that of a cooldown under way too."""
        saved = (self._saved or {}).get("playing", {}).get("cooldowns", [])
        return chosen.units() | {cooldown["unit"] for cooldown in saved if cooldown}

    def _restore_clock(self, chosen: Plan, clock: RunClock, saved: dict[str, Any] | None) -> None:
        """Go on counting where the checkpoint was; what only a cooldown looks at may begin now."""
        counted = set(saved["clock"]["units"]) if saved and "clock" in saved else set()
        missing = sorted(chosen.units() - {"updates"} - counted)
        if missing and any(self._counts or []) and not (missing == ["seconds"] and clock.has_timer):
            raise MisconfigurationException(
                f"{self.label} counts {' and '.join(missing)}, and the checkpoint does not say how many there were "
                f"before update {max(self._counts or [0])}: it was written without that. Say lengths in updates, or "
                "start a new fit without ckpt_path."
            )
        if saved and "clock" in saved:
            clock.load_state_dict(saved["clock"])
        elif any(self._counts or []):
            clock.look_at_watch()

    def _before_this_run(self, trainer: Trainer) -> dict[str, Any] | None:
        """What is known of the run that this one goes on from."""
        return self._saved if self._saved is not None else self._kept(trainer)

    def _restored_without_us(self, trainer: Trainer) -> dict[str, Any] | None:
        """The values that a checkpoint put into the groups which knows nothing of this callback."""
        if not trainer.global_step:
            return None
        return {"rates": [self._found(trainer, index) for index in range(len(trainer.optimizers))]}

    def _found(self, trainer: Trainer, index: int) -> list[float]:
        """What the chosen groups of an optimizer hold, before anything is written."""
        optimizer = trainer.optimizers[index]
        chosen = [optimizer.param_groups[at] for at in self.target.groups(trainer, index, optimizer)]
        return [float(self.entry.of(group)) for group in chosen if self.entry.is_in(group)]

    def _kept(self, trainer: Trainer) -> dict[str, Any] | None:
        """State of the last fit, if this one goes on from there without a checkpoint."""
        return self._left if self._left and trainer.global_step == self._left_at else None

    def _settle_changes(self, trainer: Trainer, chosen: Plan, before: dict[str, Any] | None) -> None:
        """See to it that nothing jumps in silence."""
        length = str(chosen.horizon) + (f", at most {chosen.time_limit / 1e6:g} seconds" if chosen.timed else "")
        self._said = {"schedule": _described(self.schedule), "length of the run": length}
        self._bases_in_force = [[float(base) for base in bases] for bases in self._bases]
        if self._entries is None or self._counts is None or before is None:
            return
        if self.on_change == "keep" and "bases" in before:
            self._said, self._bases_in_force = before["said"], before["bases"]
        elif not trainer.fast_dev_run:  # type: ignore[attr-defined]
            indices = range(len(self._counts))
            now: dict[str, Any] = {
                "said": self._said,
                "bases": self._bases_in_force,
                "rates": [*map(self._entries.values, indices)],
            }
            now["further"] = self._further_jumps(trainer, before)
            tags = [self._tags(trainer, index) for index in indices]
            choice = self.on_change if self._saved is not None else "adopt"
            settle(self.label, type(self).__name__, choice, tags, before, now)

    def _further_jumps(self, trainer: Trainer, before: dict[str, Any]) -> list[Jump]:
        """For subclasses: what else would not go on where it was."""
        return []

    def _length_of(self, trainer: Trainer) -> int | None:
        """The Trainer's own length in updates: the saved one if nothing that it depends on has changed."""
        depends_on = what_sets_the_length(trainer)
        if self._saved is not None and self._saved.get("run", [])[1:] == depends_on:
            length = self._saved["run"][0]
        else:
            length = updates_per_optimizer(trainer)
        self._run = [length, *depends_on]
        return length

    def targeted(self, trainer: Trainer) -> set[tuple[int, int]]:
        """(optimizer, group) of everything chosen."""
        return {
            (index, at)
            for index, optimizer in enumerate(trainer.optimizers)
            for at in self.target.groups(trainer, index, optimizer)
        }

    def _applied_so_far(self, trainer: Trainer) -> list[int]:
        """Applied updates of each optimizer: saved, kept from the last fit, or told by the Trainer."""
        kept = self._counts if trainer.global_step == self._left_at else None
        known = kept if self._saved is None else list(self._saved["updates"])
        if known is not None and len(known) == len(trainer.optimizers):
            return known
        if trainer.global_step and len(trainer.optimizers) > 1:
            raise MisconfigurationException(
                f"{self.label} cannot tell how many of the {trainer.global_step} updates so far belong to which of "
                f"{len(trainer.optimizers)} optimizers: the checkpoint does not say. Resume from one that was "
                f"written with {self.label} and the same optimizers, or start a new fit without ckpt_path."
            )
        return [trainer.global_step] * len(trainer.optimizers)

    def __getstate__(self) -> dict[str, Any]:
        """Configuration only: a pickled or copied callback is attached to nothing."""
        return {name: self.__dict__[name] for name in self._CONFIGURATION}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A callback that has not run yet."""
        self.__dict__.update(state)
        self._detached()

    def _detached(self) -> None:
        """What the callback knows before a run."""
        self._bases, self._bases_in_force = [], []
        self._entries = self._updates = self._counts = self._saved = self._clock = self._playing = None
        self._left_at, self._left, self._run = 0, dict[str, Any](), list[Any]()
        self._logged: dict[int, int] = {}
        self._mine, self._said, self._stops, self._cut_said = [], {}, False, False

    def _leave(self, trainer: Trainer) -> None:
        """Remember where this fit has ended."""
        self._left_at, self._left = trainer.global_step, self.state_dict()

    def _say_what_was_cut(self) -> None:
        """One line if phases turned out not to fit."""
        if self._playing is not None and not self._cut_said and (cut := self._playing.cut_short()):
            self._cut_said = True
            rank_zero_warn(f"{self.label}: {cut}")

    def _let_go(self, trainer: Trainer) -> None:
        if self._updates is not None:
            self._updates.detach()
        self._updates = None
        self._logged.clear()


def _length(total: int | float | str) -> Duration:
    """The length of a run.

    Raises:
        ValueError: If it is none.
    """
    rule = "total must be a whole number of updates >= 1 (10_000, '10000 steps'), epochs, tokens, samples or a time"
    if isinstance(total, float) and total.is_integer():
        total = int(total)  # no part of the run can be its length: 1e6 are updates
    try:
        duration = None if isinstance(total, float) else parse_duration("total", total)
    except ValueError:
        duration = None
    if duration is None or duration.relative or duration.ticks() < 1:
        raise ValueError(f"{rule}, got {total!r}.")
    return duration


def _described(schedule: Any) -> str:
    """A schedule as it is written, without addresses."""
    if isinstance(schedule, ScheduleSpec | Schedule):
        return repr(schedule)
    return f"function {getattr(schedule, '__qualname__', type(schedule).__name__)}"
