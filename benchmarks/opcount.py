"""What can be counted instead of timed: calls into torch, and copies to the host."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_VIEWS = {"view", "detach", "alias", "t", "transpose", "unbind", "select", "slice", "expand", "_unsafe_view"}


class CallCounter(TorchDispatchMode):
    """Counts calls into torch while it is entered, by the name of the operation.

    A fused call (``_foreach_mul_``) counts once, however many tensors it works on. On CPU
    ``Tensor.tolist`` reads memory without a call into torch, so it is counted on its own.

    Attributes:
        calls: How often each operation was called.
        host_reads: Numbers or tensors copied to where Python can see them (``item``, ``float``, ``bool``,
            ``tolist``).
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self._tolist = Tensor.tolist

    @property
    def host_reads(self) -> int:
        """Copies to the host so far."""
        return self.calls["_local_scalar_dense"] + self.calls["tolist"]

    @property
    def launches(self) -> int:
        """Calls that do work on the device: all but views and copies to the host."""
        return sum(count for name, count in self.calls.items() if name not in _VIEWS | {"tolist"})

    def __enter__(self) -> "CallCounter":
        counter = self

        def tolist(tensor: Tensor) -> Any:
            counter.calls["tolist"] += 1
            return counter._tolist(tensor)

        Tensor.tolist = tolist  # type: ignore[method-assign]
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        del Tensor.tolist  # the original is inherited from torch._C.TensorBase

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count ``func`` and run it."""
        self.calls[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


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
