"""Sets of parameters with gradients, always the same numbers."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Shapes:
    """A GPT-2 of some size: 148 tensors with 12 layers.

    Args:
        name: What tables call it.
        width: Size of the residual stream.
        vocabulary: Number of tokens.
        context: Number of positions.
        layers: Number of blocks, 12 tensors each.
    """

    name: str
    width: int
    vocabulary: int
    context: int
    layers: int = 12

    def sizes(self) -> list[tuple[int, ...]]:
        """Shape of each parameter, in the order of the model."""
        d = self.width
        linear = [(d, 3 * d), (3 * d,), (d, d), (d,), (d,), (d,), (d, 4 * d), (4 * d,), (4 * d, d), (d,)]
        return [(self.vocabulary, d), (self.context, d), *([(d,), (d,), *linear] * self.layers), (d,), (d,)]

    def numbers(self) -> int:
        """How many parameters, counted one by one."""
        return sum(torch.Size(size).numel() for size in self.sizes())


GPT2_SMALL = Shapes("GPT-2 small", width=768, vocabulary=50257, context=1024)  # limited by memory bandwidth
TINY = Shapes("tiny", width=64, vocabulary=256, context=128)  # limited by the cost of a call


class Gradients:
    """Parameters whose gradients can be put back to where they were.

    Args:
        shapes: Their sizes.
        device: Where they live.
        norm: Norm of the whole gradient.
    """

    def __init__(self, shapes: Shapes, *, device: str, norm: float) -> None:
        generator = torch.Generator().manual_seed(0)
        scale = norm / shapes.numbers() ** 0.5
        values = [torch.randn(size, generator=generator).mul_(scale).to(device) for size in shapes.sizes()]
        self.module = nn.ParameterList([nn.Parameter(torch.zeros_like(value)) for value in values])
        self.parameters: list[Tensor] = list(self.module.parameters())
        self._values = values
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.grad = value.clone()
        self.flat = torch.zeros(shapes.numbers(), device=device)  # for the limit: as many bytes, one tensor

    def reset(self) -> None:
        """Undo whatever was done to the gradients."""
        for parameter, value in zip(self.parameters, self._values, strict=True):
            assert parameter.grad is not None
            parameter.grad.copy_(value)
