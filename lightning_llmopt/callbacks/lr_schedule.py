"""The learning rate of every update, by a schedule."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from typing_extensions import override

from .._lightning import (
    LightningModule,
    MisconfigurationException,
    Trainer,
    rank_zero_info,
    rank_zero_warn,
)
from ..schedules import Anneal, Description, Schedule, ScheduleSpec
from ..schedules.arguments import Length
from ._bar import hide, show
from ._batches import Count
from ._cooling import cooldown_length
from ._during import PhaseValues, check_during
from ._entries import LR
from ._finished import keep_finished_model
from ._horizon import Horizon
from ._length_hints import LengthHints
from ._optimizers import optimizer_names
from ._playing import Plan
from ._previewing import check_preview, values_by_phase, write_preview
from ._replaced import Replaced, replace_all
from ._requests import Requests
from ._resume import Jump
from ._scheduled import Scheduled
from ._strategy import refuse_rate_writers
from ._targets import Target


class LRSchedule(Scheduled):
    """Run every parameter group at its own base rate times the schedule's multiplier.

    The base rates are the ones that ``configure_optimizers`` returns, so ratios between groups are
    kept. Each optimizer follows its own count of applied updates: micro-batches inside an accumulation
    window, updates that the fp16 scaler skipped and steps of other optimizers do not move it. Works
    with several optimizers, manual optimization, rates held as tensors and groups added during the run.
    Where lengths are tokens, samples or time, those are counted too, over all ranks, applied updates only.

    Saved with the checkpoint are these counts, the coming rates, and the plan that they came from: a resumed
    run computes the very same rates, and one whose configuration would let them jump is refused, unless
    ``on_change`` says what to do.

    A run can be told to come to its end: ``anneal_now`` in code, ``touch ANNEAL`` in the run's folder
    (``default_root_dir`` or the logger's), or ``kill -USR2``. It then cools down and stops.

    Logged at each logging step of the Trainer, on the x axis of ``self.log``:

    - ``lr/<optimizer>/<group>``: rate of that group in this update, such as ``lr/AdamW/group0``; the group
      is called by its ``name`` entry where it has one.
    - ``schedule/phase``: number of the phase, from 0; with several optimizers ``schedule/phase/<optimizer>``,
      with ``group=`` the group's name behind it.
    - ``schedule/progress``: part of the run that lies behind, in [0, 1], if the run has a known end.
    - ``schedule/tokens``, ``schedule/samples``: consumed so far, where they are counted.

    The progress bar shows the first group's rate as ``lr`` and the schedule's ``phase``.

    Args:
        schedule: A recipe such as ``wsd(...)``, resolved against the length of the run; or a ``Schedule``;
            or any function from an update number, counted from 0, to a multiplier [1], >= 0. For YAML and command
            lines a recipe's name (``"cosine"``), or ``{"recipe": "wsd", "warmup": "2%"}``.
        total: Length of the run, if not the Trainer's own (``max_steps``; ``max_epochs`` with a loader that has a
            length; else ``max_time``): updates of each optimizer (``10_000``), ``"3 epochs"``, ``"10B tokens"``,
            ``"5M samples"``, ``"8 h"``. A Trainer without an end of its own (``max_epochs=-1``) is stopped there.
        tokens: Counts the tokens in a batch, on one rank; by default what ``attention_mask`` lets through, or
            all of ``input_ids`` or of a tensor of token ids.
        samples: Counts the samples in a batch; by default the first dimension of its first tensor.
        during: Values of other entries in some phases, such as ``{"decay": {"beta2": 0.99}}``; written when the
            phase begins (or is resumed), taken back when it ends. Where an entry is 0 it stays 0.
        optimizer: Position or name (``"AdamW"``) of the only optimizer that is meant; by default all.
        group: Position or ``name`` entry of the only group that is meant; by default all. Several schedules can
            share a Trainer if no group has two.
        on_change: If a resumed run's rates would jump: ``"error"``, ``"adopt"`` (go on with the new configuration,
            and say so), or ``"keep"`` (go on with the checkpoint's).
        anneal: What a file or a signal starts, and what ``anneal_now`` does by default.
        preview: Whether to draw the schedule at fit start: as ``lr_schedule.png`` and ``.csv`` in the logger's folder
            (or ``default_root_dir``), or in the PNG file that is named here; and in TensorBoard, as
            ``schedule/preview``. What looks unintended, such as a first update at rate 0, is then warned of.
        replace_schedulers: Whether to drop the schedulers that ``configure_optimizers`` returns, for modules
            that are not yours to edit. By default they are refused: two writers of one rate.

    Raises:
        ValueError: If an argument is nothing of the kind.
        MisconfigurationException: At fit start, if somebody else writes the rate too, if the length of the
            run is not known, if the schedule does not fit into it, or if a resumed run's rates would jump;
            while training, if somebody changes a rate between two updates, or a batch's tokens cannot be counted.

    Source:
        Values by phase: Dremov et al. 2025, https://arxiv.org/abs/2508.01483.

    Example:
        >>> from lightning_llmopt.schedules import wsd
        >>> callback = LRSchedule(wsd(warmup="2%", decay="20%", shape="sqrt"), during={"decay": {"beta2": 0.99}})
    """

    ENDS_RUNS = True
    _CONFIGURATION = (
        *Scheduled._CONFIGURATION,
        "during",
        "anneal",
        "preview",
        "replace_schedulers",
        "_anneal_from_start",
    )

    _requests: Requests | None
    _trainer: Trainer | None
    _hints: LengthHints | None
    _in_force: tuple[float, str | None]

    def __init__(
        self,
        schedule: Description | Schedule | str | dict[str, Any] | Callable[[int], float],
        *,
        total: int | float | str | None = None,
        tokens: Count | None = None,
        samples: Count | None = None,
        during: Mapping[str, Mapping[str, float]] | None = None,
        optimizer: int | str | None = None,
        group: int | str | None = None,
        on_change: str = "error",
        anneal: Anneal | None = None,
        preview: bool | str | Path = False,
        replace_schedulers: bool = False,
    ) -> None:
        if not isinstance(replace_schedulers, bool):
            raise ValueError(f"replace_schedulers must be True or False, got {replace_schedulers!r}.")
        if not (anneal is None or isinstance(anneal, Anneal)):
            raise ValueError(f"anneal must be Anneal(duration=..., shape=...), got {anneal!r}.")
        self.during = check_during(during or {})
        self.anneal = anneal or Anneal()
        self.preview = check_preview(preview)
        self.replace_schedulers = replace_schedulers
        self._anneal_from_start = False
        super().__init__(
            schedule, entry=LR, between=None, total=total, tokens=tokens, samples=samples,
            target=Target(optimizer, group), on_change=on_change,
        )  # fmt: skip

    @property
    @override
    def state_key(self) -> str:
        """Fixed by what it is meant for, so that a change of other arguments does not lose the state."""
        return f"LRSchedule{self.target}"

    @property
    @override
    def peak(self) -> bool:
        """Schedulers that were replaced leave their peak in ``max_lr``."""
        return self.replace_schedulers

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot work, before anything has begun."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            refuse_rate_writers(trainer, "LRSchedule")

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take down the base rates: the last moment before a checkpoint overwrites them."""
        if self.replace_schedulers:
            replace_all(trainer)
        _refuse_second_writer(trainer, pl_module)
        super().on_fit_start(trainer, pl_module)
        self._phase_values = PhaseValues(self.during, self.target)
        self._phase_values.take_down(trainer, "LRSchedule", self.targeted(trainer))

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the first rates, and the values of the phase that the run is in."""
        saved = (self._saved or {}).get("during", {})
        if self.on_change == "keep" and self._saved and not self._anneal_from_start:
            self._phase_values = PhaseValues(saved, self.target)
        super().on_train_start(trainer, pl_module)
        self._trainer, self._hints = trainer, LengthHints(follows=self._follows_trainer())
        left = {entry for values in saved.values() for entry in values}
        self._phase_values.release(trainer, left - {entry.name for entry in self._phase_values.entries})
        if self._playing is None:
            return
        if self.during and self._phase_values.during is self.during:
            described = [phase.name for phase in getattr(self.schedule, "phases", ())]  # one may have no length now
            self._phase_values.refuse_unknown([*described, *self._playing.phase_names()], "LRSchedule")
        if self._anneal_from_start:
            if self._saved is None:
                raise MisconfigurationException(
                    "branch: fit was not given the checkpoint. Say trainer.fit(module, ..., ckpt_path=checkpoint)."
                )
            self.anneal_now()
        self._stops = self._stops or any(self._playing.cooldowns)
        for index in self._mine:
            self._enter_phase(index)
        self._note(next(iter(self._mine), 0))
        if self.preview is not False and self._mine:
            self._draw(trainer, self._playing.plan)
        family = self._family(trainer)
        if family[0] is self:  # one listens for all
            files = {other.anneal.file for other in family if other.anneal.file}
            signals = {other.anneal.signal for other in family if other.anneal.signal}
            self._requests = Requests(trainer, files=files, signals=signals)
        tag = self.target.tag().replace("/", " ")
        show(trainer, f"lr{tag}", lambda: f"{self._in_force[0]:.2e}")
        show(trainer, f"phase{tag}", lambda: self._in_force[1])

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """See whether somebody wants the run to come to its end."""
        waits = self._playing is not None and not any(self._playing.cooldowns)
        if self._requests is not None and waits and self._requests.arrived():
            for other in self._family(trainer):
                other._anneal_on_request()
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say if the schedule was not played out."""
        super().on_train_end(trainer, pl_module)
        if self._playing is None or self._hints is None:
            return
        self._hints.ended(trainer, self._playing, self._mine)
        if any(self._playing.cooldowns) and self.has_ended() and self._family(trainer)[0] is self:
            keep_finished_model(trainer)

    def anneal_now(
        self, duration: Length | None = None, shape: str | None = None, *, floor: float | None = None
    ) -> None:
        """Let the run come to its end: a fall from the rate in force, from the next update on, and then a stop.

        With several processes every rank must call it, at the same update. A second call changes nothing.

        Args:
            duration: Length of the fall; a part of the run is one of the run as it will then have been.
            shape: Curve of the fall, a key of ``SHAPES`` with its settings.
            floor: Multiplier of the base rate at its end [1].

        Raises:
            ValueError: If an argument is out of range.
            MisconfigurationException: If no run is under way, the Trainer ends before the fall would, or
                ``duration`` is in a unit that this run does not count.
        """
        given: dict[str, Any] = {"duration": duration, "shape": shape, "floor": floor}
        anneal = replace(self.anneal, **{name: value for name, value in given.items() if value is not None})
        if self._playing is None or self._trainer is None or self._updates is None:
            raise MisconfigurationException("anneal_now: no run is under way. Call it while trainer.fit is training.")
        for index in self._mine:
            length, unit = cooldown_length(anneal, self.schedule, self._playing, index, self._trainer)
            self._playing.anneal(index, length, unit, shape=anneal.shape, floor=float(anneal.floor))
            if self._entries is not None:
                self._entries.write(index)
            self._enter_phase(index)
            if index == self._mine[0]:
                rank_zero_info(
                    f"LRSchedule: the run comes to its end: {anneal.shape} over {Horizon(length, unit)}, then it stops."
                )
        self._stops = True

    @override
    def state_dict(self) -> dict[str, Any]:
        """Counts, coming rates and the plan they came from; the phases' further values, and those in force."""
        state = super().state_dict()
        if self._playing is None or self._entries is None or not self._phase_values.during:
            return state
        indices = range(len(self.counts))
        in_force = [self._phase_values.values_in(self._playing.phase(index)) for index in indices]
        return {**state, "during": self._phase_values.during, "phase_values": in_force}

    @override
    def _further_jumps(self, trainer: Trainer, before: dict[str, Any]) -> list[Jump]:
        """Entries of the phase under way that had another value."""
        found: list[Jump] = []
        for index in self._mine:
            old = (before.get("phase_values") or {index: {}})[index]
            new = self._phase_values.values_in(self._playing.phase(index)) if self._playing is not None else {}
            for entry in sorted(old.keys() | new.keys()):
                base = self._phase_values.base_in(trainer, index, entry)
                was, now = old.get(entry, base), new.get(entry, base)
                if was != now and base:
                    found.append(Jump(f"{entry}/{optimizer_names(trainer)[index]}", was, now))
        return found if "updates" in before else []

    @override
    def _units(self, chosen: Plan) -> set[str]:
        length = self.anneal.length()
        units = {length.unit} if length is not None else set()
        return super()._units(chosen) | units - {"run", "epochs"}

    @override
    def _after_update(self, index: int) -> None:
        super()._after_update(index)
        self._enter_phase(index)

    @override
    def _about_to_update(self, trainer: Trainer, index: int) -> None:
        self._enter_phase(index)
        self._note(index)
        if self._hints is not None and self._playing is not None and index in self._mine:
            self._hints.under_way(trainer, self._playing, index)

    @override
    def _metrics(self, trainer: Trainer, index: int) -> dict[str, float]:
        """Rates, and where in the schedule they come from."""
        metrics = super()._metrics(trainer, index)
        if self._playing is None or self._clock is None:
            return metrics
        name = f"/{optimizer_names(trainer)[index]}" if len(trainer.optimizers) > 1 else ""
        tag = f"{name}{self.target.tag()}"
        phase, progress = self._playing.phase(index), self._playing.progress(index)
        if phase is not None:
            metrics[f"schedule/phase{tag}"] = float(self._playing.phase_names().index(phase))
        if progress is not None:
            metrics[f"schedule/progress{tag}"] = progress
        for unit in self._clock.contents:
            metrics[f"schedule/{unit}{tag}"] = float(self._clock.before(index)[unit])
        return metrics

    def _draw(self, trainer: Trainer, plan: Plan) -> None:
        """The rates of all groups, and what else moves with them."""
        groups: dict[str, float] = {}
        for index in self._mine:
            own = self._entries.bases(index) if self._entries else []
            groups.update(zip(self._tags(trainer, index), own, strict=True))
        held = self._phase_values
        bases = {entry.name: held.base_in(trainer, self._mine[0], entry.name) for entry in held.entries}
        values = values_by_phase(plan, self.during, bases)
        for other in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(other, Scheduled) and other.entry != LR:
                values.update(other.curve(trainer, plan))
        write_preview(trainer, plan, self.preview, name=self.target.tag(), groups=groups, values=values)

    def _family(self, trainer: Trainer) -> "list[LRSchedule]":
        """All of its kind in this Trainer; requests from outside are for all of them."""
        return [other for other in trainer.callbacks if isinstance(other, LRSchedule)]  # type: ignore[attr-defined]

    def _enter_phase(self, index: int) -> None:
        if self._phase_values.during and self._playing is not None and self._trainer is not None:
            self._phase_values.enter(self._trainer, index, self._playing.phase(index))

    def _anneal_on_request(self) -> None:
        """What was asked for from outside: a mistake there must not end the run."""
        try:
            self.anneal_now()
        except MisconfigurationException as error:
            rank_zero_warn(f"LRSchedule: the request to anneal cannot be met, and training goes on. {error}")

    def _follows_trainer(self) -> bool:
        """Whether the length of the schedule was the Trainer's to say, and matters."""
        return self.total is None and isinstance(self.schedule, ScheduleSpec) and self.schedule.needs_total_steps()

    def _note(self, index: int) -> None:
        """Remember what the first optimizer's coming update runs at, for the progress bar."""
        if self._mine and index == self._mine[0] and self._entries is not None and self._playing is not None:
            self._in_force = self._entries.first_value(), self._playing.phase(index)

    @override
    def _detached(self) -> None:
        super()._detached()
        self._phase_values = PhaseValues(self.during, self.target)
        self._requests = self._trainer = None
        self._in_force, self._hints = (0.0, None), None

    @override
    def _let_go(self, trainer: Trainer) -> None:
        super()._let_go(trainer)
        if self._requests is not None:
            self._requests.close()
        self._requests = self._trainer = None
        tag = self.target.tag().replace("/", " ")
        hide(trainer, f"lr{tag}", f"phase{tag}")


def _refuse_second_writer(trainer: Trainer, pl_module: LightningModule) -> None:
    if not all(isinstance(config.scheduler, Replaced) for config in trainer.lr_scheduler_configs):
        names = ", ".join(type(config.scheduler).__name__ for config in trainer.lr_scheduler_configs)
        raise MisconfigurationException(
            f"Two writers of the learning rate: LRSchedule and {names}, returned by "
            f"{type(pl_module).__name__}.configure_optimizers. Return only the optimizer (if the "
            "module is not yours: LRSchedule(..., replace_schedulers=True)), or remove LRSchedule from the callbacks."
        )
