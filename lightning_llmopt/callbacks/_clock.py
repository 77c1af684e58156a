"""How far a run has come, optimizer by optimizer, on every clock that somebody looks at."""

import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from .._lightning import MisconfigurationException, Trainer, data_parallel_share, training_timer
from ..schedules import Place
from ._batches import Count, checked, count_samples, count_tokens

_CONTENTS = ("tokens", "samples")


class RunClock:
    """Counts what each optimizer's applied updates have consumed, over all ranks.

    Tokens and samples are counted from the batches on every rank and summed over the ranks once an update;
    those of an update that is skipped in the end are not counted. Time is that of the Trainer's ``Timer``
    (``max_time``) if there is one, else the time spent in ``fit``, of rank 0. Clocks that nobody needs cost nothing.

    Args:
        trainer: Whose run it is.
        counts: Updates applied so far, one number an optimizer; kept by ``AppliedUpdates``.
        units: Clocks that are needed.
        tokens: Counts the tokens of a batch; by default ``count_tokens``.
        samples: Counts its samples; by default ``count_samples``.
    """

    def __init__(
        self,
        trainer: Trainer,
        counts: list[int],
        units: Iterable[str],
        *,
        tokens: Count | None = None,
        samples: Count | None = None,
    ) -> None:
        self.trainer, self.counts = trainer, counts
        self.contents = [unit for unit in _CONTENTS if unit in units]
        self.timed = "seconds" in units
        self._count = {"tokens": tokens or count_tokens, "samples": samples or count_samples}
        self._applied: list[dict[str, int]] = [dict.fromkeys(_CONTENTS, 0) for _ in counts]
        self._coming: list[dict[str, int]] = [dict.fromkeys(_CONTENTS, 0) for _ in counts]
        self._window: list[dict[str, Tensor | int]] = [dict.fromkeys(_CONTENTS, 0) for _ in counts]
        self._restored: list[dict[str, int]] = [dict.fromkeys(_CONTENTS, 0) for _ in counts]
        self._measured: set[int] = set()
        self._under_way: dict[str, Tensor] = {}
        self._now = self._offset = 0
        self._started = time.monotonic()

    @property
    def idle(self) -> bool:
        """Whether updates are all that is counted."""
        return not (self.contents or self.timed)

    @property
    def has_timer(self) -> bool:
        """Whether the Trainer keeps the time, and its checkpoints do."""
        return training_timer(self.trainer) is not None

    def before(self, index: int) -> Place:
        """Where the coming update of that optimizer begins."""
        return {"updates": self.counts[index], "seconds": self._now, **self._applied[index]}

    def after(self, index: int) -> Place:
        """Where it ends; until its batches are counted, as far on as the one before it."""
        coming = {unit: self._applied[index][unit] + self._coming[index][unit] for unit in _CONTENTS}
        return {"updates": self.counts[index] + 1, "seconds": self._now, **coming}

    def saw(self, batch: Any, *, window: int) -> list[int]:
        """Count a batch; the optimizers whose first update it begins, of which only this much is known.

        Args:
            batch: What ``training_step`` gets.
            window: Batches that make an update.
        """
        found = {unit: checked(unit, self._count[unit], batch) for unit in self.contents}
        self._measured.clear()
        for here in self._window:
            for unit, number in found.items():
                here[unit] = here[unit] + number - self._under_way.get(unit, 0)  # a batch that was begun and skipped
        self._under_way = found
        new = [index for index, coming in enumerate(self._coming) if found and not any(coming.values())]
        share = data_parallel_share(self.trainer) if new else 1
        for index in new:
            guess = {
                unit: int(int(number) * self.trainer.world_size * share) * window for unit, number in found.items()
            }
            self._coming[index].update(guess)
        return new

    def batch_ended(self) -> None:
        """The batch that was seen last has been trained on."""
        self._under_way = {}

    def measure(self, index: int) -> None:
        """Sum over ranks what the update that is about to be applied has consumed: one small reduction."""
        if self.idle or index in self._measured:  # a closure that runs several times in a step
            return
        self._measured.add(index)
        window, self._window[index] = self._window[index], dict.fromkeys(_CONTENTS, 0)
        restored, self._restored[index] = self._restored[index], dict.fromkeys(_CONTENTS, 0)
        for unit, number in self._summed(window).items():
            self._coming[index][unit] = restored[unit] + number

    def applied(self, index: int) -> None:
        """What was about to be applied has been; without a batch in between, the next update consumes nothing."""
        self.measure(index)  # steps that bypass Lightning were not announced
        self._measured.discard(index)
        for unit in self.contents:
            self._applied[index][unit] += self._coming[index][unit]

    def state_dict(self) -> dict[str, Any]:
        """Where every optimizer is, in plain types."""
        return {
            "applied": [dict(place) for place in self._applied],
            "coming": [dict(place) for place in self._coming],
            "seconds": self._now,
        }

    def look_at_watch(self) -> None:
        """Set the clock of a run that begins with time on it; every rank must ask."""
        if self.timed:
            self._summed(dict.fromkeys(_CONTENTS, 0))

    def open_windows(self, *, whole: bool) -> list[dict[str, int]]:
        """What batches hold that wait for their update, over all ranks; every rank must ask.

        Args:
            whole: Whether the batch that was seen last has been trained on; if not, a resumed run begins with it.
        """
        windows = []
        for seen, restored in zip(self._window, self._restored, strict=True):
            window = dict(seen) if whole else {unit: seen[unit] - self._under_way.get(unit, 0) for unit in seen}
            summed = self._summed(window) if self.contents else {}
            windows.append({unit: summed.get(unit, 0) + restored[unit] for unit in _CONTENTS})
        return windows

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        for name in ("applied", "coming"):
            for here, saved in zip(getattr(self, f"_{name}"), state[name], strict=False):
                here.update(saved)
        for restored, saved in zip(self._restored, state.get("windows", []), strict=False):
            restored.update(saved)
        self._now = self._offset = state["seconds"]

    def _summed(self, window: dict[str, Tensor | int]) -> dict[str, int]:
        """Over all ranks; ranks that share a batch count it once. Sets the clock by rank 0's watch."""
        values = [window[unit] for unit in self.contents]
        watch = self._watch() if self.timed and self.trainer.is_global_zero else 0
        device = self.trainer.strategy.root_device
        local = torch.stack([torch.as_tensor(value).to(device, torch.int64) for value in [*values, watch]])
        *summed, now = self.trainer.strategy.reduce(local, reduce_op="sum").tolist()
        if self.timed:
            self._now = max(self._now, int(now))
        share = data_parallel_share(self.trainer)
        for unit, number in zip(self.contents, summed, strict=True):
            if number < 0:
                raise MisconfigurationException(
                    f"{unit}(batch) must return a whole number >= 0, got a sum of {number}."
                )
        return {unit: int(number * share) for unit, number in zip(self.contents, summed, strict=True)}

    def _watch(self) -> int:
        """Time spent training so far [microseconds]."""
        timer = training_timer(self.trainer)
        if timer is not None:
            return int(timer.time_elapsed() * 1e6)
        return self._offset + int((time.monotonic() - self._started) * 1e6)
