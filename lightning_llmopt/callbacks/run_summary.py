"""What a run is about to do, and what it has done, on one page each."""

import json
from pathlib import Path
from typing import Any, ClassVar

from torch.optim import Optimizer
from typing_extensions import override

from .._lightning import Callback, Checkpoint, LightningModule, Trainer, not_compiled, rank_zero_warn
from ..structure.tree import class_of
from ._facts import facts, groups, phases
from ._page import page, say
from ._quiet import is_quiet
from ._run_counts import RunCounts, in_words
from .lr_schedule import LRSchedule

FILE = "run_summary.json"


class RunSummary(Callback):
    """Print what is known when training begins, and what came of it when it ends.

    At the start: length of the run, schedule with its phases and curve, clipping, skipping, strategy, every other
    callback of ours, and the parameter groups; callbacks that would print their groups leave that to this page. At the
    end: updates applied and skipped, the share that was clipped, the last update's rate, time, and where the log is.
    It works with any of our callbacks, and with none. By Rich in a terminal, where that is installed; else plain text.

    Only rank 0 prints. Nothing is printed in quiet runs: with ``barebones=True``; with
    ``enable_progress_bar=False`` and ``enable_model_summary=False`` together; or where Lightning's logger
    ``lightning.pytorch.utilities.rank_zero`` has a level above INFO. The tables of ``WeightDecaySplit`` and the other
    callbacks that make groups follow the same rule. A run without a progress bar alone, as in a log file, is not quiet.

    Counts are of this fit; one that goes on from a checkpoint says how many updates lie behind. Whether an update
    was clipped is known where somebody reads its norm: always with ``GradientNormClip``, ``ZClip`` and ``AdaGC``; at
    logging steps with ``GradientNormMonitor`` alone. The counting stays on the device until the end of training. With
    ``SkipBadSteps(on_device=True)`` and several optimizers, what was left out counts as applied.

    Args:
        save: Whether to write the same as ``run_summary.json`` into the folder of the first logger that has a
            ``log_dir``, for ``lightning_llmopt.reporting.report``. A file that cannot be written is warned of.

    Raises:
        ValueError: If ``save`` is neither True nor False.

    Example:
        >>> RunSummary(save=False).save
        False
    """

    CLIPS: ClassVar[bool] = True  # behind those who change gradients, see run_last
    SHOWS_ALL: ClassVar[bool] = True

    _counts: RunCounts | None = None
    _end: list[tuple[str, str]]
    _kept: dict[str, Any]

    def __init__(self, *, save: bool = True) -> None:
        if not isinstance(save, bool):
            raise ValueError(f"save must be True or False, got {save!r}.")
        self.save = save
        self._detached()

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move behind everybody else: by now nobody moves any more."""
        self._detached()
        others = [one for one in trainer.callbacks if one is not self]  # type: ignore[attr-defined]
        checkpoints = [one for one in others if isinstance(one, Checkpoint)]
        trainer.callbacks = [*(one for one in others if one not in checkpoints), self, *checkpoints]  # type: ignore[attr-defined]

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what is about to happen; begin to count."""
        self._counts = RunCounts(trainer)
        if not trainer.is_global_zero:
            return
        lines, tables = facts(trainer), groups(trainer, pl_module)
        self._kept = {"start": _plain(lines), "phases": _phases(trainer), "module": class_of(pl_module).__name__}
        self._kept["groups"] = [{"title": title, "rows": [row.cells() for row in rows]} for title, rows in tables]
        self._write(trainer)
        if not is_quiet(trainer):
            say(trainer, page(lines, tables, title=f"Run of {class_of(pl_module).__name__}", shorten=True))

    @override
    @not_compiled
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Count the coming update."""
        if self._counts is not None:
            self._counts.about_to_update(trainer, optimizer)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count what torch's own hooks could not."""
        if self._counts is not None:
            self._counts.batch_ended()

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum up, while everybody still knows."""
        self._sum_up(trainer)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Say what came of it, below the bar."""
        self._say_end(trainer)
        self._detached()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say how far the run came."""
        try:
            self._sum_up(trainer, stopped_by=type(exception).__name__)
            self._say_end(trainer)
        except RuntimeError:  # a device that is lost answers nothing; what has happened is what the user is to see
            self._end = []
        self._detached()

    def _sum_up(self, trainer: Trainer, *, stopped_by: str = "") -> None:
        if self._counts is None:
            return
        found, self._counts = self._counts.ended(trainer), None
        self._end = in_words(trainer, found, stopped_by=stopped_by)
        self._kept.update(end=_plain(self._end), counts=found)
        self._write(trainer)

    def _say_end(self, trainer: Trainer) -> None:
        if self._end and trainer.is_global_zero and not is_quiet(trainer):
            say(trainer, page(self._end, [], title="End of the run"))
        self._end = []

    def _write(self, trainer: Trainer) -> None:
        """Keep it in the folder of the log."""
        folder = next((path for one in trainer.loggers if (path := getattr(one, "log_dir", None))), None)
        if not self.save or folder is None or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            (Path(folder) / FILE).write_text(json.dumps(self._kept, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            rank_zero_warn(f"RunSummary could not write {Path(folder) / FILE}: {error}. Training goes on.")

    def __getstate__(self) -> dict[str, Any]:
        """Configuration only: a pickled or copied callback is attached to nothing."""
        return {"save": self.save}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A callback that has not run yet."""
        self.__dict__.update(state)
        self._detached()

    def _detached(self) -> None:
        """What the callback knows before a run."""
        if self._counts is not None:
            self._counts.detach()
        self._counts, self._end, self._kept = None, [], {}


def _plain(lines: list[tuple[str, str]]) -> list[list[str]]:
    return [list(line) for line in lines]


def _phases(trainer: Trainer) -> list[dict[str, Any]]:
    """Of the first schedule of the learning rate."""
    rates = [one for one in trainer.callbacks if isinstance(one, LRSchedule)]  # type: ignore[attr-defined]
    return phases(rates[0].plan) if rates else []
