"""One device, in a precision of its own name."""

from typing import Any

import torch
from typing_extensions import override

from .._lightning import MisconfigurationException, Precision, SingleDeviceStrategy, Trainer
from ._recompute import recompute_blocks
from ._values import is_word
from .checkpointing import check_mode
from .precision import PRECISIONS, precision_plugin


class OneDevice(SingleDeviceStrategy):
    """A single process on the device that the Trainer chose.

    Args:
        precision: ``"fp32"``, ``"bf16"``, ``"bf16_pure"``, ``"fp16"`` or ``"fp8"``; None for the Trainer's.
        checkpointing: Activation checkpointing of the blocks.

    Raises:
        ValueError: If ``precision`` is unknown.
        MisconfigurationException: If the Trainer has several devices, or asks for another precision.

    Example:
        >>> OneDevice(precision="fp64")
        Traceback (most recent call last):
        ValueError: precision must be one of ['fp32', 'bf16', 'bf16_pure', 'fp16', 'fp8'], got 'fp64'.
    """

    def __init__(self, *, precision: str | None = None, checkpointing: str | int = "none") -> None:
        check_mode(checkpointing)
        if precision is not None and not is_word(precision, PRECISIONS):
            raise ValueError(f"precision must be one of {list(PRECISIONS)}, got {precision!r}.")
        self.precision, self.checkpointing = precision, checkpointing
        super().__init__()

    @property
    def parallel_devices(self) -> list[torch.device]:
        """What the Trainer chose is told by this name."""
        return []

    @parallel_devices.setter
    def parallel_devices(self, devices: list[torch.device]) -> None:
        if len(devices) > 1:
            name = f"llmopt_{self.precision}" if self.precision else type(self).__name__
            raise MisconfigurationException(
                f"{name} runs on one device, and the Trainer has {len(devices)}: set devices=1, or use "
                "preset('ddp', precision=...)."
            )
        self._root_device = devices[0]

    @property
    def precision_plugin(self) -> Precision:
        """The precision of this strategy's name, if it has one."""
        return self._precision_plugin if self._precision_plugin is not None else Precision()

    @precision_plugin.setter
    def precision_plugin(self, plugin: Precision | None) -> None:
        wanted = None if self.precision is None else PRECISIONS[self.precision]
        got = getattr(plugin, "precision", "32-true")
        if plugin is not None and wanted is not None:
            if got not in ("32-true", wanted):
                raise MisconfigurationException(
                    f"llmopt_{self.precision} computes in {wanted}, and the Trainer asks for precision={got!r}: drop "
                    "one of the two."
                )
            plugin = precision_plugin(str(self.precision))
        self._precision_plugin = plugin

    @override
    def setup(self, trainer: Trainer) -> None:
        module: Any = self.lightning_module
        recompute_blocks(module, self.checkpointing)
        super().setup(trainer)
