"""The folder of a run: what lies where, and how a run is taken up again."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class RunFolder:
    """Everything that a run leaves behind.

    Args:
        root: The folder itself; its parents are made if need be.
    """

    root: Path

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint, rewritten as the run goes on."""
        return self.root / "last.ckpt"

    @property
    def tensorboard(self) -> Path:
        """Folder of the TensorBoard events."""
        return self.root / "tensorboard"

    @property
    def picture(self) -> Path:
        """The learning rate, planned and applied."""
        return self.root / "schedule.png"

    @property
    def page(self) -> Path:
        """All curves on one page."""
        return self.root / "report.html"

    @property
    def _settings(self) -> Path:
        return self.root / "settings.json"

    def settings(self) -> dict[str, Any]:
        """Settings of the run that lives here, none if there is no checkpoint to go on from.

        Raises:
            ValueError: If there is no run to take up.
        """
        if not (self.checkpoint.is_file() and self._settings.is_file()):
            raise ValueError(f"--resume needs a checkpoint in --out, found no {self.checkpoint}.")
        return dict(json.loads(self._settings.read_text()))

    def updates_done(self) -> int:
        """Updates made before the checkpoint was written."""
        return int(torch.load(self.checkpoint, map_location="cpu", weights_only=True)["global_step"])

    def open(self, settings: dict[str, Any], *, resume: bool) -> None:
        """Make room for a run: a new one takes the place of an earlier one.

        Raises:
            ValueError: If ``root`` is a file, or a folder with other things in it.
        """
        if self.root.exists() and not self.root.is_dir():
            raise ValueError(f"--out must be a folder, got the file {self.root}.")
        if self.root.is_dir() and any(self.root.iterdir()) and not self._settings.is_file():
            raise ValueError(f"--out must be new, empty or an earlier run's folder, got {self.root} with other files.")
        if not resume:
            self.checkpoint.unlink(missing_ok=True)
            self.picture.unlink(missing_ok=True)
            self.page.unlink(missing_ok=True)
            shutil.rmtree(self.tensorboard, ignore_errors=True)
        self.root.mkdir(parents=True, exist_ok=True)
        self._settings.write_text(json.dumps(settings, indent=2) + "\n")
