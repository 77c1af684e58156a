"""What is known of a network that nobody here wrote, and how to feed and score it."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import torch
from torch import Tensor, nn

VOCABULARY, LENGTH, CLASSES = 64, 12, 5

Loss = Callable[[nn.Module], Tensor]


@dataclass(frozen=True)
class Entry:
    """A network, and what is known of it by hand.

    Attributes:
        name: What tables call it.
        package: Where it comes from.
        build: Makes it, with random weights.
        loss: A loss of it, on random inputs of its own.
        stacks: Modules that hold its blocks, and how many each holds, in order of depth.
        embedding: Modules or parameters before the blocks, by the names they start with.
        head: Modules or parameters after the blocks, by the names they start with.
        tied: Names that share one parameter.
    """

    name: str
    package: str
    build: Callable[[], nn.Module]
    loss: Loss
    stacks: dict[str, int]
    embedding: tuple[str, ...]
    head: tuple[str, ...]
    tied: tuple[tuple[str, ...], ...] = ()

    @property
    def blocks(self) -> int:
        return sum(self.stacks.values())

    @property
    def version(self) -> str:
        return version(self.package)


def labelled(model: nn.Module) -> Tensor:
    """Loss of Hugging Face's language models."""
    ids = torch.randint(VOCABULARY, (2, LENGTH))
    return model(input_ids=ids, labels=ids).loss


def next_token(model: nn.Module) -> Tensor:
    """Loss of a language model that gives logits."""
    ids = torch.randint(VOCABULARY, (2, LENGTH))
    return nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten())


def classified(model: nn.Module) -> Tensor:
    out = model(torch.randn(2, 3, 32, 32))
    return nn.functional.cross_entropy(getattr(out, "logits", out), torch.tensor([0, 1]))


def segmented(model: nn.Module) -> Tensor:
    return nn.functional.cross_entropy(model(torch.randn(2, 3, 64, 64)), torch.randint(CLASSES, (2, 64, 64)))


def nodes(model: nn.Module) -> Tensor:
    out = model(torch.randn(10, 8), torch.randint(10, (2, 40)))
    return nn.functional.cross_entropy(out, torch.randint(CLASSES, (10,)))
