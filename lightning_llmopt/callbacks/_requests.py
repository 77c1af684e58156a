"""Requests from outside of the process: a file that appears, a signal."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from .._lightning import Trainer, log_folder


class Requests:
    """Notices a file in the run's folder, or a signal, and tells all ranks at the same update.

    With one process it looks after every batch. With several it looks once in ``log_every_n_steps``
    updates, since the ranks have to agree: one small reduction.

    Args:
        file: Name of the file, looked for by rank 0 in the log folder and in ``default_root_dir``; taken away when
            it is found. ``None`` looks for none.
        signal_name: Such as ``"SIGUSR2"``, on any rank; left to whoever listens to it already. ``None``: none.
    """

    def __init__(self, trainer: Trainer, *, file: str | None, signal_name: str | None) -> None:
        self._trainer = trainer
        folders = [trainer.default_root_dir, log_folder(trainer)] if file else []
        self._files = [Path(folder) / str(file) for folder in dict.fromkeys(folders) if folder]
        self._signal = getattr(signal, signal_name, None) if signal_name else None
        self._before: Any = None
        self._heard = False
        in_main_thread = threading.current_thread() is threading.main_thread()
        if self._signal is not None and in_main_thread and signal.getsignal(self._signal) == signal.SIG_DFL:
            self._before = signal.signal(self._signal, self._hear)

    def close(self) -> None:
        """Listen no more."""
        if self._before is not None and self._signal is not None:
            signal.signal(self._signal, self._before)
        self._before = None

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
        if not self._files and self._signal is None:
            return False
        every = self._trainer.log_every_n_steps or 50  # type: ignore[attr-defined]
        return self._trainer.fit_loop.epoch_loop.total_batch_idx % every == every - 1

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._heard = True
