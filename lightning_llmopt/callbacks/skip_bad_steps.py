"""Updates that would do harm are not applied."""

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer
from typing_extensions import override

from .._lightning import (
    Callback,
    LightningModule,
    MisconfigurationException,
    Trainer,
    is_logging_step,
    loss_scaler,
    not_compiled,
    rank_zero_warn,
)
from ..gradients import GradientReading
from ._device_skips import DeviceJudge, StepsLeftOut, Told, begins_momentum, refuse_on_device
from ._engine import EngineHold, engine_scales
from ._held import AveragesHold, GroupsHold, SchedulersHold
from ._log import write
from ._optimizers import index_of
from ._readings import reading_for, run_last
from ._seen import Seen, described, name_of, seen_in, sums_on_all_ranks, wide
from ._shards import has_engine, parameters_of_update, refuse_unknown_shards, update_is_due, warn_of_unsharded
from ._spikes import Accepted
from ._updates import skip_coming_step, step_counts_again

_REASONS = ("nonfinite", "spike")
_WAY_OUT = (
    "Resume from a checkpoint from before that with a lower rate or other data; if these updates are as they should "
    "be, set sigma=None or a larger max_consecutive."
)


class SkipBadSteps(Callback):
    """Leave out an update with a gradient or loss that is not finite, or that sticks out of those before it.

    An update that is skipped is skipped on every rank, and leaves parameters, optimizer state, ``LRSchedule``,
    ``HyperparameterSchedule``, torch's schedulers and Lightning's ``WeightAveraging`` bit for bit as if its batches had
    not been there: its gradients are set to None before the optimizer sees them. (Zeros would still decay the weights
    and move AdamW.) An accumulation window is skipped whole. Loss and gradient norm are means over ranks; the norm is
    the raw one of ``GradientNormMonitor``, read once and shared.

    A spike is a loss or norm above the mean plus ``sigma`` standard deviations of the last ``window`` accepted ones.
    Both are measured on their logarithms while they are positive, because gradient norms have heavy tails. Nothing
    is a spike before half a window has been accepted. Skipped values never enter the window. A change that
    lasts, such as new data with a loss far above the old, is skipped until ``max_consecutive`` stops the run.

    The decision needs one small reduction over ranks and one copy to the host per update. What a skipped
    batch left in buffers (the running statistics of BatchNorm) and in random generators stays, and ``max_steps``
    counts it. With the fp16 scaler, updates that are not finite are the scaler's: they are skipped but neither counted
    nor logged here, except that ``max_consecutive`` of them stop the run too. Under DeepSpeed ZeRO-1, 2 and 3 the
    engine is made to leave the step out as it does after overflow.

    ``on_device=True`` needs no copy to the host but at logging steps: a fused optimizer leaves the update out itself.
    Parameters and optimizer state stay as they were, but schedules do not know of it and move on, as if the update had
    been applied. What was skipped is told, and ``max_consecutive`` looked at, at logging steps.

    Logged at each logging step, over all optimizers and the whole run: ``skipped/total``, ``skipped/nonfinite``,
    ``skipped/spike``. Each skip is one warning on rank zero; after ten only every hundredth.

    Args:
        nonfinite: Skip updates whose loss or gradient holds NaN or infinity, anywhere on any rank.
        sigma: Standard deviations above the mean from which on a loss or norm is a spike, > 0; ``None`` for none.
        window: Accepted updates that a new one is judged by, >= 8.
        max_consecutive: Skipped updates in a row of one optimizer that stop the run, >= 1.
        on_device: Whether to decide on the device, for torch's AdamW, Adam, SGD or Adagrad with ``fused=True``.

    Raises:
        ValueError: If an argument is out of range, or if nothing would ever be skipped.
        MisconfigurationException: At fit start, if DeepSpeed offloads the optimizer; with an optimizer that
            evaluates its closure several times a step (LBFGS); with ``on_device`` under DeepSpeed, fp16 scaling, for
            DTensors and other optimizers, and beside ``WeightAveraging``, ``ZClip`` and ``AdaGC``, which have to
            know at once.
        RuntimeError: While training, after ``max_consecutive`` skipped updates in a row: it names the parameter.

    Source:
        Skipping by 6 standard deviations over 128 steps: OLMo-core, https://github.com/allenai/OLMo-core.

    Example:
        >>> SkipBadSteps(sigma=6.0).window
        128
    """

    _CONFIGURATION = ("nonfinite", "sigma", "window", "max_consecutive", "on_device")

    _accepted: list[Accepted]
    _counts: dict[str, int]
    _in_a_row: list[int]
    _saved: dict[str, Any] | None
    _not_applied: int
    _left_at: int
    _loss: Tensor | None
    _losses: int
    _due: bool
    _averages: AveragesHold
    _schedulers: SchedulersHold
    _groups: GroupsHold
    _engine: EngineHold
    _judges: list[DeviceJudge]
    _told: list[Told]
    _looked: int
    _left_out: StepsLeftOut

    def __init__(
        self,
        *,
        nonfinite: bool = True,
        sigma: float | None = 6.0,
        window: int = 128,
        max_consecutive: int = 100,
        on_device: bool = False,
    ) -> None:
        if not isinstance(nonfinite, bool):
            raise ValueError(f"nonfinite must be True or False, got {nonfinite!r}.")
        if not isinstance(on_device, bool):
            raise ValueError(f"on_device must be True or False, got {on_device!r}.")
        if sigma is not None and not (_is_number(sigma) and 0 < sigma < math.inf):
            raise ValueError(f"sigma must be a finite number > 0, or None, got {sigma!r}.")
        for name, value, least in (("window", window, 8), ("max_consecutive", max_consecutive, 1)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be a whole number of updates >= {least}, got {value!r}.")
        if not nonfinite and sigma is None:
            raise ValueError("nonfinite=False and sigma=None skip nothing: give one of the two, or no SkipBadSteps.")
        self.nonfinite, self.sigma = nonfinite, None if sigma is None else float(sigma)
        self.window, self.max_consecutive, self.on_device = window, max_consecutive, on_device
        self._detached()

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Move behind all others but the clippers."""
        if stage == "fit":
            self._saved = None
            run_last(trainer, self)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse optimizers that cannot be skipped."""
        for optimizer in trainer.optimizers:
            if isinstance(optimizer, LBFGS):
                raise MisconfigurationException(
                    f"SkipBadSteps cannot skip an update of {type(optimizer).__name__}, which takes several gradients "
                    "in one step. Use another optimizer, or remove SkipBadSteps from the callbacks."
                )

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on from the checkpoint or from the last fit, or begin anew."""
        refuse_unknown_shards(trainer, "SkipBadSteps")
        if self.on_device:
            refuse_on_device(trainer)
        warn_of_unsharded(trainer, "SkipBadSteps")
        before = self._saved
        if before is None and trainer.global_step and trainer.global_step == self._left_at:
            before = self.state_dict()
        self._begin(trainer, before)
        self._averages.attach(trainer)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Nothing has been skipped in this batch."""
        self._averages.batch_begins()

    @override
    @not_compiled
    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Add up the losses of the update, on the device."""
        value = loss.detach()
        whole: Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
        whole = whole.to(wide(whole)).mean()
        scaler = loss_scaler(trainer)
        if scaler is not None:
            whole = whole / scaler.scale(torch.ones((), device=whole.device))
        if trainer.lightning_module.automatic_optimization:
            whole = whole * trainer.accumulate_grad_batches
        self._loss = whole if self._loss is None else self._loss + whole
        self._losses += 1

    @override
    @not_compiled
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Judge the update, and take its gradients away if it is bad."""
        if not update_is_due(trainer):
            return
        index = index_of(trainer, optimizer)
        reading = reading_for(trainer, optimizer, self)
        sums = sums_on_all_ranks(trainer, reading, self._loss, self._losses)
        self._loss, self._losses = None, 0
        step_counts_again(optimizer)
        self._groups.release(optimizer)
        self._engine.release()
        self._left_out.release(optimizer)
        self._due |= is_logging_step(trainer)
        if self.on_device:
            self._decide_on_device(trainer, optimizer, reading, sums)
            return
        seen = seen_in(sums, ranks=trainer.world_size)
        if seen is None:
            self._averages.step(skipped=False)  # as without us
            return
        overflow = _scales(trainer) and not math.isfinite(seen.norm)
        reason, text = ("overflow", "the fp16 scaler found overflow") if overflow else self._judge(index, seen)
        self._averages.step(skipped=reason is not None)
        if reason is None:
            self._in_a_row[index] = 0
            self._accepted[index].accept(seen.values())
            return
        self._in_a_row[index] += 1
        self._not_applied += 1
        if self._in_a_row[index] >= self.max_consecutive:
            raise RuntimeError(self._end(trainer, pl_module, optimizer, reading, seen, text))
        if reason in self._counts:
            self._counts[reason] += 1
            self._warn(trainer, pl_module, optimizer, reading, seen, text)
        reading.skipped = True
        self._skip(trainer, optimizer, overflow=overflow)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Let go of what was held for this batch; log."""
        self._release(trainer)
        if self._due:
            self._due = False
            self._look(trainer, pl_module)
            write(trainer, {"skipped/total": float(self.skipped), **self._logged()})

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember where the counts belong."""
        self._look(trainer, pl_module)
        self._left_at = trainer.global_step

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave optimizers, schedulers and other callbacks as they were."""
        self._let_go(trainer)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave optimizers, schedulers and other callbacks as they were."""
        self._left_at = trainer.global_step
        self._let_go(trainer)

    @override
    def state_dict(self) -> dict[str, Any]:
        """Counts, and the accepted values of every optimizer, in plain types."""
        if not self._accepted:
            return self._saved or {}
        self._read()
        accepted: list[Any] = list(self._judges or self._accepted)
        return {
            "counts": dict(self._counts),
            "not_applied": self._not_applied,
            "in_a_row": list(self._in_a_row),
            "accepted": [one.state_dict() for one in accepted],
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what was saved until training starts."""
        self._saved = state_dict

    @property
    def counts(self) -> dict[str, int]:
        """Updates skipped so far, by reason: ``nonfinite`` and ``spike``."""
        return dict(self._counts)

    @property
    def skipped(self) -> int:
        """Updates skipped so far, of all optimizers."""
        return sum(self._counts.values())

    def _decide_on_device(self, trainer: Trainer, optimizer: Optimizer, reading: GradientReading, sums: Tensor) -> None:
        """Let the optimizer leave the update out if it is bad."""
        bad = self._judges[index_of(trainer, optimizer)].bad(sums, reading.norms, ranks=trainer.world_size)
        if not begins_momentum(optimizer):
            self._left_out.hold(optimizer, bad)
        elif bad:  # this once by the host
            reading.skipped = True
            self._skip(trainer, optimizer, overflow=False)

    def _read(self) -> None:
        """Copy what was decided on the device to the host."""
        for index, judge in enumerate(self._judges):
            before, told = self._told[index], judge.look()
            self._told[index] = told._replace(longest=max(told.longest, before.longest))
            self._in_a_row[index] = told.in_a_row
            for reason in _REASONS:
                new = getattr(told, reason) - getattr(before, reason)
                self._counts[reason] += new
                self._not_applied += new

    def _look(self, trainer: Trainer, module: LightningModule) -> None:
        """Tell what was decided on the device since the last time; end the run if that was too much."""
        before = self._looked
        self._read()
        self._looked = self.skipped
        for index, (optimizer, told) in enumerate(zip(trainer.optimizers, self._told, strict=False)):
            self._told[index] = told._replace(longest=told.in_a_row)
            which = name_of(trainer, module, optimizer, told.worst)
            if told.longest >= self.max_consecutive:
                raise RuntimeError(
                    f"SkipBadSteps: {told.longest} updates in a row were skipped, up to update {trainer.global_step} "
                    f"at most: in the last of them the worst gradient is that of {which}. {_WAY_OUT}"
                )
            if self.skipped > before:
                rank_zero_warn(
                    f"SkipBadSteps: {self.skipped - before} updates before update {trainer.global_step} were skipped, "
                    f"{self.skipped} in all; in the last of {type(optimizer).__name__} the worst gradient is that of "
                    f"{which}."
                )

    def _judge(self, index: int, seen: Seen) -> tuple[str | None, str]:
        """Why an update is to be skipped, as a count and in words."""
        if not seen.finite():
            return ("nonfinite", "not finite") if self.nonfinite else (None, "")
        spike = self._accepted[index].spike(seen.values())
        return (None, "") if spike is None else ("spike", f"{spike}, the limit by accepted updates")

    def _skip(self, trainer: Trainer, optimizer: Optimizer, *, overflow: bool) -> None:
        """Nothing is applied by the coming step, on this rank as on all others."""
        if not has_engine(trainer) and _scales(trainer) and getattr(optimizer, "_step_supports_amp_scaling", False):
            loss_scaler(trainer).unscale_(optimizer)  # type: ignore[union-attr] # it looks for overflow while it can
        self._engine.hold(trainer, overflow=overflow)
        for parameter in parameters_of_update(trainer, optimizer):
            parameter.grad = None
        skip_coming_step(optimizer)
        self._groups.hold(optimizer)
        self._schedulers.hold(trainer)

    def _warn(self, trainer: Trainer, module: LightningModule, optimizer: Optimizer, *what: Any) -> None:
        """One line for each of the first ten, then for every hundredth."""
        if self.skipped <= 10 or self.skipped % 100 == 0:
            rest = " From here on only every hundredth is told." if self.skipped == 10 else ""
            line = described(trainer, module, optimizer, *what)
            rank_zero_warn(
                f"SkipBadSteps: update {trainer.global_step} is skipped, number {self.skipped}: {line}{rest}"
            )

    def _end(self, trainer: Trainer, module: LightningModule, optimizer: Optimizer, *what: Any) -> str:
        line = described(trainer, module, optimizer, *what)
        return (
            f"SkipBadSteps: {self.max_consecutive} updates in a row would have been skipped, up to update "
            f"{trainer.global_step}: {line} {_WAY_OUT}"
        )

    def _logged(self) -> dict[str, float]:
        return {f"skipped/{reason}": float(count) for reason, count in self._counts.items()}

    def _begin(self, trainer: Trainer, before: dict[str, Any] | None) -> None:
        optimizers = len(trainer.optimizers)
        self._accepted = [Accepted(sigma=self.sigma, window=self.window) for _ in range(optimizers)]
        self._counts, self._not_applied = dict.fromkeys(_REASONS, 0), 0
        self._in_a_row = [0] * optimizers
        self._loss, self._losses, self._due = None, 0, False
        if before:
            self._counts.update(before["counts"])
            self._not_applied = before["not_applied"]
            if len(before["accepted"]) == optimizers:
                self._in_a_row = list(before["in_a_row"])
                for accepted, values in zip(self._accepted, before["accepted"], strict=True):
                    accepted.load_state_dict(values)
        self._judges, self._looked = [], self.skipped
        if self.on_device:
            self._begin_on_device(trainer)

    def _begin_on_device(self, trainer: Trainer) -> None:
        """Move what is known of accepted updates there."""
        device = trainer.strategy.root_device
        like = torch.zeros((), device=device).to(wide(torch.zeros((), device=device)))
        for accepted, in_a_row in zip(self._accepted, self._in_a_row, strict=True):
            judge = DeviceJudge(nonfinite=self.nonfinite, sigma=self.sigma, window=self.window, like=like)
            judge.load_state_dict(accepted.state_dict(), in_a_row=in_a_row)
            self._judges.append(judge)
        self._told = [Told(0, 0, in_a_row, in_a_row, 0) for in_a_row in self._in_a_row]

    def _let_go(self, trainer: Trainer) -> None:
        self._averages.detach()
        self._release(trainer)
        for optimizer in trainer.optimizers:
            step_counts_again(optimizer)

    def _release(self, trainer: Trainer) -> None:
        """Nothing is held any more."""
        for optimizer in trainer.optimizers:
            self._left_out.release(optimizer)
        self._schedulers.release()
        self._groups.release_all()
        self._engine.release()

    def __getstate__(self) -> dict[str, Any]:
        """Configuration only: a pickled or copied callback is attached to nothing."""
        return {name: self.__dict__[name] for name in self._CONFIGURATION}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A callback that has not run yet."""
        self.__dict__.update(state)
        self._detached()

    def _detached(self) -> None:
        """What the callback knows before a run."""
        self._accepted, self._in_a_row, self._saved = [], [], None
        self._judges, self._told, self._looked, self._left_out = [], [], 0, StepsLeftOut()
        self._counts = dict.fromkeys(_REASONS, 0)
        self._left_at = self._not_applied = self._losses = 0
        self._loss, self._due = None, False
        self._averages = AveragesHold(lambda: self._not_applied)
        self._schedulers, self._groups, self._engine = SchedulersHold(), GroupsHold(), EngineHold()


def _scales(trainer: Trainer) -> bool:
    """Whether an fp16 scaler looks for overflow."""
    scaler = loss_scaler(trainer)
    return engine_scales(trainer) or (scaler is not None and bool(scaler.is_enabled()))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
