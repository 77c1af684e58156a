"""Requests from outside of the process: a file that appears, a signal."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from .._lightning import Trainer, log_folder, rank_zero_warn


class Requests:
    """Notices a file in the run's folder, or a signal, and tells all ranks at the same update.

    With one process it looks after every batch. With several it looks once in ``log_every_n_steps``
    updates, since the ranks have to agree: one small reduction.

    Args:
        trainer: Whose run it is.
        files: Names of files, looked for by rank 0 in the log folder and in ``default_root_dir``; taken away when
            it is found. One from before the run is taken away with a line.
        signals: Names such as ``"SIGUSR2"``, on any rank; left to whoever listens to one already.
    """

    def __init__(self, trainer: Trainer, *, files: set[str], signals: set[str]) -> None:
        self._trainer = trainer
        folders = {str(folder) for folder in (trainer.default_root_dir, log_folder(trainer)) if folder}
        local = sorted(folder for folder in folders if "://" not in folder)
        self._files = [Path(folder) / file for folder in local for file in sorted(files)]
        self._before: dict[int, Any] = {}
        self._heard = False
        if trainer.is_global_zero:
            self._clear()
        in_main_thread = threading.current_thread() is threading.main_thread()
        for number in (getattr(signal, name) for name in sorted(signals) if in_main_thread and hasattr(signal, name)):
            if signal.getsignal(number) == signal.SIG_DFL:
                self._before[number] = signal.signal(number, self._hear)

    def close(self) -> None:
        """Listen no more."""
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}

    def arrived(self) -> bool:
        """Whether there is a request; the same on all ranks, and each is told once."""
        if not self._looks_now():
            return False
        mine = self._heard or (self._trainer.is_global_zero and any(file.exists() for file in self._files))
        if self._trainer.world_size > 1:
            told = torch.tensor(int(mine), device=self._trainer.strategy.root_device)
            mine = bool(self._trainer.strategy.reduce(told, reduce_op="sum"))
        if mine:
            self._heard = False
            if self._trainer.is_global_zero:
                for file in self._files:
                    file.unlink(missing_ok=True)
        return mine

    def _looks_now(self) -> bool:
        if self._trainer.world_size == 1:
            return True
        if not self._files and not self._before:
            return False
        every = self._trainer.log_every_n_steps or 50  # type: ignore[attr-defined]
        return self._trainer.fit_loop.epoch_loop.total_batch_idx % every == every - 1

    def _clear(self) -> None:
        for file in self._files:
            if file.exists():
                file.unlink(missing_ok=True)
                rank_zero_warn(f"LRSchedule: {file} is from before this run, and was taken away. Touch it again.")

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._heard = True
