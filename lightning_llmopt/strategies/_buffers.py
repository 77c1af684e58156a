"""Buffers that a forward pass writes to, such as BatchNorm's running statistics, when that pass runs a second time."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Held(NamedTuple):
    """A buffer as it was: where it is registered, and its numbers; None where nothing can write to it."""

    where: dict[str, Tensor | None]
    name: str
    tensor: Tensor
    version: int
    numbers: Tensor | None


class WrittenOnce:
    """Lets the second pass of a module read its buffers as the first one did, and leave them as that left them.

    Writing by autograd's own kernels, as BatchNorm does, cannot be told from a tensor's version: these are not read in
    training. All others that were written to, or replaced, are given the numbers from before the first pass.

    Args:
        module: What runs twice.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.before: list[Held] = []

    @contextmanager
    def first(self) -> Iterator[None]:
        """Around the first pass: remember what is written to."""
        held = list(_held(self.module))
        yield
        self.before = [one for one in held if one.where.get(one.name) is not one.tensor or _version(one) != one.version]

    @contextmanager
    def again(self) -> Iterator[None]:
        """Around the second pass, which may end early."""
        now = list(_held(self.module))
        _put_back(self.before)
        try:
            yield
        finally:
            _put_back(now)


def around_both(module: nn.Module, inner: Any) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts for the two passes, as ``torch.utils.checkpoint`` takes them, outside of those that ``inner`` makes."""
    buffers, (first, again) = WrittenOnce(module), inner() if inner is not None else (ExitStack(), ExitStack())
    return _both(buffers.first(), first), _both(buffers.again(), again)


@contextmanager
def _both(outer: AbstractContextManager[Any], inner: AbstractContextManager[Any]) -> Iterator[None]:
    with outer, inner:
        yield


@torch.no_grad()
def _held(module: nn.Module) -> Iterator[Held]:
    for part in module.modules():
        for name, tensor in part._buffers.items():
            if tensor is not None and tensor.is_inference():
                yield Held(part._buffers, name, tensor, 0, None)
            elif tensor is not None:
                yield Held(part._buffers, name, tensor, tensor._version, tensor.clone())


def _version(held: Held) -> int:
    return 0 if held.numbers is None else held.tensor._version


@torch.no_grad()
def _put_back(held: list[Held]) -> None:
    for one in held:
        if one.numbers is not None:
            _fill_(one.tensor, one.numbers)
        one.where[one.name] = one.tensor


def _fill_(tensor: Tensor, numbers: Tensor) -> None:
    """Give ``tensor`` these numbers, and their shape, by ways that autograd does not take for a change."""
    if tensor.shape == numbers.shape:
        _once(tensor.data, like=tensor).copy_(_once(numbers, like=tensor))
    else:  # it was resized
        tensor.data = numbers.clone()


def _once(tensor: Tensor, *, like: Tensor) -> Tensor:
    """``tensor`` without the places that ``like`` shows a second time, as after ``expand``: torch writes to no such."""
    if like.layout is not torch.strided or like.is_nested:
        return tensor
    for dim, (size, stride) in enumerate(zip(like.shape, like.stride(), strict=True)):
        if stride == 0 and size > 1:
            tensor = tensor.narrow(dim, 0, 1)
    return tensor
