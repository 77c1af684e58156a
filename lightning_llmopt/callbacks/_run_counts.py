"""What happened in a run, counted without a look at the device before its end."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .._lightning import Trainer, loss_scaler
from ..gradients import clip_coefficient
from ._clipper import Clipper, bound_of_others, others_clip_otherwise
from ._engine import engine_scales
from ._facts import duration
from ._optimizers import index_of, may_step, optimizer_names
from ._readings import reading_there
from ._scheduled import Scheduled
from ._shards import has_engine, update_is_due
from ._updates import AppliedUpdates
from .lr_schedule import LRSchedule
from .skip_bad_steps import SkipBadSteps

_FLUSH = 64  # factors kept before they are counted in one go
_CLIPPED = 1 - 1e-6  # a factor below this; what is left is rounding


class RunCounts:
    """Attempted and applied updates, clipped ones, last rates and time of one fit.

    Args:
        trainer: Whose fit begins now; every callback has seen ``on_train_start``.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._begun = time.perf_counter()
        self._at = trainer.global_step
        scheduled = self._scheduled(trainer)
        self._own = None if scheduled else AppliedUpdates([0] * len(trainer.optimizers), after=lambda index: None)
        if self._own is not None:
            self._own.attach(list(trainer.optimizers))
        self._before = [0] * len(trainer.optimizers) if scheduled is None else scheduled.counts
        self._attempts = [0] * len(trainer.optimizers)
        self._seen: dict[int, int] = {}
        self._rates: dict[int, Any] = {}
        skipping = _skipping(trainer)
        self._skipped = dict(skipping.counts) if skipping is not None else {}
        self._factors: list[Tensor] = []
        self._clipped: Tensor | None = None
        self._read = 0
        self._bound = bound_of_others(trainer)
        self._countable = not others_clip_otherwise(trainer)

    def about_to_update(self, trainer: Trainer, optimizer: Optimizer) -> None:
        """Everybody has had a say in the coming update."""
        if not update_is_due(trainer):
            return
        index = index_of(trainer, optimizer)
        if self._seen.get(index) == trainer.global_step:  # a closure that runs again
            return
        self._seen[index] = trainer.global_step
        self._attempts[index] += 1
        if self._own is not None:
            self._own.about_to_step(index, empty=not (has_engine(trainer) or may_step(optimizer)))
        rate = next((group["lr"] for group in trainer.optimizers[index].param_groups if "lr" in group), None)
        self._rates[index] = rate.detach().clone() if isinstance(rate, Tensor) else rate
        self._note_factor(trainer, optimizer)

    def batch_ended(self) -> None:
        """A batch has been trained on."""
        if self._own is not None:
            self._own.batch_ended()

    def ended(self, trainer: Trainer) -> dict[str, Any]:
        """Everything as plain values, by one copy to the host; nothing is counted from here on."""
        scheduled = self._scheduled(trainer)
        counts = self._own.counts if self._own is not None else scheduled.counts if scheduled is not None else []
        applied = [now - before for now, before in zip(counts, self._before, strict=False)]
        skipping, by_us = _skipping(trainer), dict[str, int]()
        if skipping is not None:
            by_us = {reason: count - self._skipped.get(reason, 0) for reason, count in skipping.counts.items()}
            if skipping.on_device and len(applied) == 1:  # schedules count what the optimizer left out
                applied[0] -= sum(by_us.values())
        self.detach()
        self._flush()
        return {
            "update": trainer.global_step,
            "optimizers": optimizer_names(trainer),
            "attempted": list(self._attempts),
            "applied": applied,
            "skipped": by_us,
            "clipped": 0 if self._clipped is None else int(self._clipped),
            "read": self._read,
            "rates": [float(rate) for _, rate in sorted(self._rates.items()) if rate is not None],
            "phase": next((one.phase for one in _callbacks(trainer, LRSchedule)), None),
            "scales": engine_scales(trainer) or loss_scaler(trainer) is not None,
            "seconds": time.perf_counter() - self._begun,
        }  # fmt: skip

    def detach(self) -> None:
        """Let go of the optimizers."""
        if self._own is not None:
            self._own.detach()

    def _note_factor(self, trainer: Trainer, optimizer: Optimizer) -> None:
        reading = reading_there(trainer, optimizer) if self._countable else None
        if reading is None or reading.skipped:
            return
        factor = reading.coefficient
        if self._bound < math.inf:
            factor = factor * clip_coefficient(reading.clipped, max_norm=self._bound)
        self._factors.append(factor)
        self._read += 1
        if len(self._factors) >= _FLUSH:
            self._flush()

    def _flush(self) -> None:
        """Count what was kept, on the device."""
        if not self._factors:
            return
        device = self._factors[0].device
        below = torch.stack([factor.to(device) for factor in self._factors]) < _CLIPPED
        self._clipped = below.sum() if self._clipped is None else self._clipped + below.sum()
        self._factors.clear()

    @staticmethod
    def _scheduled(trainer: Trainer) -> Scheduled | None:
        """Somebody who counts applied updates anyway."""
        return next((one for one in _callbacks(trainer, Scheduled) if one.counts), None)


def in_words(trainer: Trainer, found: dict[str, Any], *, stopped_by: str = "") -> list[tuple[str, str]]:
    """Label and text of each line at the end.

    Args:
        trainer: Whose fit has ended.
        found: What ``RunCounts.ended`` returned.
        stopped_by: What ended the run before its end, if anything did.
    """
    several = len(found["optimizers"]) > 1
    lines = [("stopped", f"by {stopped_by} at update {found['update']:,}")] if stopped_by else []
    applied = [
        f"{count:,}" + (f" of {name}" if several else "")
        for name, count in zip(found["optimizers"], found["applied"], strict=False)
    ]
    lines.append(("updates", f"{', '.join(applied) or '0'} applied, {_skips(found)}"))
    clips = _callbacks(trainer, Clipper) or trainer.gradient_clip_val or bound_of_others(trainer) < math.inf
    if clips:
        lines.append(("clipped", _clips(found)))
    rates = [f"{rate:.3g}" for rate in found["rates"]]
    if rates:
        lines.append(("last rate", ", ".join(rates) + (f" ({found['phase']})" if found["phase"] else "")))
    speed = sum(found["attempted"]) / found["seconds"] if found["seconds"] > 0 else 0.0
    lines.append(("time", f"{duration(found['seconds'])}, {speed:,.3g} updates a second, validation included"))
    if folder := next((path for one in trainer.loggers if (path := getattr(one, "log_dir", None))), None):
        lines.append(("log", str(Path(folder))))
    return lines


def _skips(found: dict[str, Any]) -> str:
    """How many were skipped, and why."""
    total = sum(found["attempted"]) - sum(found["applied"])
    reasons = [f"{count:,} {_WORDS[reason]}" for reason, count in found["skipped"].items() if count]
    rest = total - sum(found["skipped"].values())
    if rest > 0:
        reasons.append(f"{rest:,} {'by the fp16 scaler' if found['scales'] else 'without a gradient'}")
    return f"{total:,} skipped" + (f" ({', '.join(reasons)})" if reasons else "")


def _clips(found: dict[str, Any]) -> str:
    """The share of updates that were clipped."""
    read, attempted = found["read"], sum(found["attempted"])
    if not read:
        return "not counted, since nobody reads the norm of updates here"
    unseen = attempted - read - sum(found["skipped"].values())
    share = f"{found['clipped']:,} of {read:,} updates ({found['clipped'] / read:.1%})"
    return f"{share}; {unseen:,} more were not looked at" if unseen > 0 else share


_WORDS = {"nonfinite": "not finite", "spike": "spikes"}


def _callbacks(trainer: Trainer, kind: type[Any]) -> list[Any]:
    return [one for one in trainer.callbacks if isinstance(one, kind)]  # type: ignore[attr-defined]


def _skipping(trainer: Trainer) -> SkipBadSteps | None:
    return next(iter(_callbacks(trainer, SkipBadSteps)), None)
