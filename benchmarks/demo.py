"""The model of ``examples/train_gpt.py``, fed with noise and able to bring a scheduler of torch's."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from examples.gpt import GPT


@dataclass(frozen=True)
class Size:
    """Size of a model and of its batches.

    Args:
        width: Of the residual stream.
        depth: Number of blocks.
        context: Bytes of an example.
        batch: Examples of a batch.
    """

    width: int
    depth: int
    context: int
    batch: int


DEMO = Size(width=128, depth=4, context=128, batch=16)
BARELY_A_MODEL = Size(width=32, depth=24, context=8, batch=1)  # 146 tensors and next to no arithmetic


class Demo(GPT):
    """The demo's model.

    Args:
        size: Size of the model.
        lambda_lr: Whether to bring a LambdaLR, as one does without LRSchedule.
        total_steps: Length of its curve [updates].
    """

    def __init__(self, size: Size, *, lambda_lr: bool, total_steps: int) -> None:
        super().__init__(width=size.width, depth=size.depth)
        self._lambda_lr, self._total_steps = lambda_lr, total_steps

    def configure_optimizers(self) -> Any:
        """The demo's optimizer, with a scheduler beside it if asked for."""
        optimizer = super().configure_optimizers()
        if not self._lambda_lr:
            return optimizer
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._multiplier)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _multiplier(self, step: int) -> float:
        """Warmup over 2 % of the run, then hold, then a fall over its last 20 %."""
        warmup, decay = max(1, self._total_steps // 50), max(1, self._total_steps // 5)
        return max(0.0, min(1.0, (step + 1) / warmup, (self._total_steps - step) / decay))


class Noise(Dataset[tuple[Tensor, Tensor]]):
    """As many examples as asked for, all from one block of bytes: reading them costs next to nothing.

    Args:
        size: Size of an example.
        examples: How many.
    """

    def __init__(self, size: Size, examples: int) -> None:
        self._examples = examples
        self._bytes = torch.randint(256, (64, size.context + 1), generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return self._examples

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        line = self._bytes[index % len(self._bytes)]
        return line[:-1], line[1:]


def loader(size: Size, *, steps: int) -> DataLoader[tuple[Tensor, Tensor]]:
    """Batches for ``steps`` steps."""
    return DataLoader(Noise(size, steps * size.batch), batch_size=size.batch)
