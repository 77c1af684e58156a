"""What optimizers keep for each parameter, and what a step takes on top."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from .network import Shape

QUANTIZED_FROM, GROUP = 4096, 256  # as bitsandbytes and torchao: smaller tensors stay whole; one scale for 256 codes


@dataclass(frozen=True)
class Optimizer:
    """Memory of an optimizer.

    Args:
        name: What ``plan`` knows it by.
        numbers: Numbers kept for a tensor of this shape, at the precision of the state.
        bytes_more: Bytes kept beside them, whatever the precision.
        step: Copies of all parameters that a step makes at once [1]; fused steps make none.

    Scalars such as step counters (4 bytes a tensor, on the host unless captured) are left out.
    """

    name: str
    numbers: Callable[[Shape], int]
    bytes_more: Callable[[Shape], int] = lambda shape: 0
    step: int = 0

    def state_bytes(self, shape: Shape, number: int = 4) -> int:
        """Bytes kept for a tensor.

        Args:
            shape: What a rank holds of it.
            number: Bytes of a number of the state.
        """
        return number * self.numbers(shape) + self.bytes_more(shape)


def _none(shape: Shape) -> int:
    return 0


def _one(shape: Shape) -> int:
    return math.prod(shape)


def _two(shape: Shape) -> int:
    return 2 * math.prod(shape)


def _factored(shape: Shape) -> int:
    """Mean squares of rows and of columns for matrices, all of them for vectors."""
    if len(shape) < 2 or not math.prod(shape):
        return math.prod(shape)
    return math.prod(shape) // shape[-1] + math.prod(shape) // shape[-2]


def _factored_and_momentum(shape: Shape) -> int:
    return _factored(shape) + math.prod(shape)


def _two_if_small(shape: Shape) -> int:
    return 2 * math.prod(shape) if math.prod(shape) < QUANTIZED_FROM else 0


def _codes(shape: Shape) -> int:
    """Two codes of a byte, and two fp32 scales for every 256 of them."""
    size = math.prod(shape)
    return 0 if size < QUANTIZED_FROM else 2 * size + 2 * 4 * math.ceil(size / GROUP)


OPTIMIZERS = {
    one.name: one
    for one in (
        Optimizer("sgd", _none),
        Optimizer("momentum", _one),
        Optimizer("lion", _one),
        Optimizer("adamw", _two, step=1),
        Optimizer("adamw_fused", _two),
        Optimizer("adamw_8bit", _two_if_small, _codes),
        Optimizer("adafactor", _factored),
        Optimizer("adafactor_momentum", _factored_and_momentum),
    )
}


def optimizer_of(name: str) -> Optimizer:
    """The optimizer of that name.

    - ``"sgd"``: nothing; ``"momentum"``, ``"lion"``: one number a parameter.
    - ``"adamw"``: two; a step of torch's default (foreach) implementation takes one more copy of all parameters on a
      GPU, which ``"adamw_fused"`` does not.
    - ``"adamw_8bit"``: two codes of a byte, a scale for 256 of them; tensors below 4,096 numbers stay whole.
    - ``"adafactor"``: rows and columns, as ``torch.optim.Adafactor``; ``"adafactor_momentum"``: one number more.

    Raises:
        ValueError: If there is none of that name.

    Example:
        >>> [optimizer_of(name).state_bytes((1000, 1000)) for name in ("sgd", "lion", "adamw", "adafactor")]
        [0, 4000000, 8000000, 8000]
    """
    if not isinstance(name, str) or name not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {list(OPTIMIZERS)}, got {name!r}.")
    return OPTIMIZERS[name]
