"""What can be counted instead of timed: calls into torch, and copies to the host."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_NO_WORK = {"alias", "detach", "expand", "select", "slice", "t", "transpose", "unbind", "view", "_unsafe_view"}


class CallCounter:
    """Counts calls into torch while it is entered, by the name of the operation.

    A fused call (``_foreach_mul_``) counts once, however many tensors it works on.

    Attributes:
        calls: How often each operation was called. ``hidden_reads`` are copies to the host that make no
            call of their own on CPU: ``Tensor.tolist``, ``Tensor.cpu``, ``Tensor.to("cpu")``, and each tensor in
            ``torch.tensor([a, b])``. ``Tensor.numpy`` is none: it shows the memory of a CPU tensor, and raises on any
            other device.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._modes = ExitStack()

    @property
    def host_reads(self) -> int:
        """Copies to where Python sees the numbers so far: ``item``, ``float``, ``bool``, ``tolist`` and the like."""
        return self.calls["_local_scalar_dense"] + self.calls["hidden_reads"]

    @property
    def launches(self) -> int:
        """Calls so far that do work on the device: all but views and copies to the host."""
        return self.calls.total() - self.host_reads - sum(self.calls[name] for name in _NO_WORK)

    def __enter__(self) -> "CallCounter":
        self._modes.enter_context(_HiddenReads(self.calls))
        self._modes.enter_context(_Calls(self.calls))
        return self

    def __exit__(self, *error: object) -> None:
        self._modes.close()


def count(run: Callable[[], object]) -> CallCounter:
    """The calls of one ``run``.

    Example:
        >>> counter = count(lambda: (torch.ones(3) + 1).sum().item())
        >>> counter.host_reads, counter.calls["add"]
        (1, 1)
    """
    with CallCounter() as counter:
        run()
    return counter


class _Calls(TorchDispatchMode):
    """Counts what reaches torch's dispatcher."""

    def __init__(self, calls: Counter[str]) -> None:
        super().__init__()
        self._calls = calls

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count ``func`` and run it."""
        self._calls[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


class _HiddenReads(TorchFunctionMode):
    """Counts copies to the host that the dispatcher does not see."""

    def __init__(self, calls: Counter[str]) -> None:
        super().__init__()
        self._calls = calls

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count what ``func`` reads and run it."""
        if func in (Tensor.tolist, Tensor.cpu) or (func is Tensor.to and _names_the_host(args, kwargs or {})):
            self._calls["hidden_reads"] += 1
        elif func is torch.tensor and args and isinstance(args[0], list | tuple):
            self._calls["hidden_reads"] += sum(isinstance(entry, Tensor) for entry in args[0])
        return func(*args, **(kwargs or {}))


def _names_the_host(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether ``tensor.to(...)`` asks for the CPU by name."""
    return "cpu" in (*args[1:2], kwargs.get("device"))
