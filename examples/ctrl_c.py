"""Ctrl-C that waits for the update under way."""

import signal
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class StopAfterUpdate(Callback):
    """On Ctrl-C finish the update under way, then end the fit as if Ctrl-C had come just there.

    An interrupt in the middle of an update could leave weights and counters that do not belong together;
    between two updates the checkpoint is a whole one. A second Ctrl-C ends the process at once.
    """

    def __init__(self) -> None:
        self.asked = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen, from here on."""
        signal.signal(signal.SIGINT, self._note)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the fit if Ctrl-C came."""
        if self.asked:
            raise KeyboardInterrupt

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Back to Python's own handler."""
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)
