"""Real Trainers: one that is still, one that can be worked in, and several that take turns."""

import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader


def quiet_trainer(**settings: Any) -> Trainer:
    """A Trainer on one device that prints nothing and saves nothing.

    Args:
        settings: Arguments of the Trainer; ``accelerator`` is ``"cpu"`` unless given.
    """
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Trainer(**{**defaults, **settings})


class Inside(Callback):
    """Does something in the first training step, while everything is set up and alive.

    Args:
        work: Called once with the Trainer and the module.
    """

    def __init__(self, work: Callable[[Trainer, LightningModule], None]) -> None:
        self._work = work

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """The first step is done: optimizers have stepped, hooks are attached."""
        self._work(trainer, pl_module)


class TurnTaking(Callback):
    """A training that goes on for some steps when told, and stands still otherwise.

    Several of them can be stepped in any order in one process, so that all see the same minute of a busy machine.
    Each sits in a thread only because ``Trainer.fit`` does not return in between; never do two run at once.

    Args:
        steps: Steps of one turn.
        device: On ``"cpu"`` with one thread a turn is timed in CPU seconds of the process, which other processes
            cannot stretch; otherwise by the clock on the wall, on ``"cuda"`` waiting for the GPU at both ends.
    """

    def __init__(self, *, steps: int, device: str) -> None:
        self.steps = steps
        self._cuda = device == "cuda"
        alone = device == "cpu" and torch.get_num_threads() == 1
        self._now = time.process_time if alone else time.perf_counter
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._start = self._seconds = 0.0
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._trainer: Trainer | None = None

    def begin(self, trainer: Trainer, module: LightningModule, loader: DataLoader[Any]) -> None:
        """Start the fit, and stop after its first turn."""

        def fit() -> None:
            try:
                trainer.fit(module, loader)
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
                self._error = error
            self._done.release()

        self._trainer = trainer
        self._thread = threading.Thread(target=fit, daemon=True)
        self._thread.start()
        self._until_done()

    def turn(self) -> float:
        """Make the next steps; the seconds they took."""
        self._go.release()
        self._until_done()
        return self._seconds

    def end(self) -> None:
        """Let the fit come to its end."""
        if self._trainer is not None and self._thread is not None:
            self._trainer.should_stop = True
            self._go.release()
            self._thread.join()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """At the end of a turn, stand still until the next one.

        A turn ends here and began here, so it holds whole iterations of the loop with all they do.
        """
        if (batch_idx + 1) % self.steps == 0 and not trainer.should_stop:
            if self._cuda:
                torch.cuda.synchronize()
            self._seconds = self._now() - self._start
            self._done.release()
            self._go.acquire()
            self._start = self._now()

    def _until_done(self) -> None:
        self._done.acquire()
        if self._error is not None:
            raise self._error
