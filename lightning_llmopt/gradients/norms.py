"""How big tensors are: exact L2 norms of whole tensors, one fused pass, nothing copied to the host."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

_ROW = 1024  # one running fp32 sum over many numbers loses digits on CPU: 2.7e-3 at 38 million


@torch.no_grad()
def gradients_of(parameters: Iterable[Tensor]) -> list[Tensor]:
    """The gradients that exist, each parameter counted once however often it is listed.

    Args:
        parameters: Parameters in any order; those without a gradient are left out.

    Returns:
        The ``grad`` of each, as it is (sparse stays sparse), in the order of first mention.
    """
    distinct = dict.fromkeys(parameters)
    return [gradient for parameter in distinct if (gradient := parameter.grad) is not None]


@torch.no_grad()
def tensor_norms(tensors: Sequence[Tensor]) -> Tensor:
    """L2 norm of each tensor.

    Half-precision inputs are summed in fp32, sparse ones by their values, complex ones by their
    magnitudes. Large tensors on CPU are summed in rows, which keeps the error under 1e-6.

    Args:
        tensors: Any shapes, dtypes and devices. One of size 0 has norm 0.

    Returns:
        Shape ``(len(tensors),)``, fp32 (fp64 if any input is fp64 or complex128), on the device of the
        first tensor; shape ``(0,)`` on CPU for no tensors.

    Example:
        >>> tensor_norms([torch.tensor([3.0, 4.0]), torch.zeros(2, 2)])
        tensor([5., 0.])
    """
    if not tensors:
        return torch.zeros(0)

    wide = any(tensor.dtype in (torch.float64, torch.complex128) for tensor in tensors)
    dtype, device = torch.float64 if wide else torch.float32, tensors[0].device
    groups = alike(tensors)
    found = [torch.stack(_norms_of_alike([tensors[index] for index in group])).to(device, dtype) for group in groups]
    if len(groups) == 1:
        return found[0]
    in_groups = dict(zip([index for group in groups for index in group], torch.cat(found), strict=True))
    return torch.stack([in_groups[index] for index in range(len(tensors))])


def alike(tensors: Sequence[Tensor]) -> list[list[int]]:
    """Indices of the tensors, gathered by device, dtype and layout: what one fused call can take."""
    groups: dict[tuple[torch.device, torch.dtype, torch.layout], list[int]] = {}
    for index, tensor in enumerate(tensors):
        groups.setdefault((tensor.device, tensor.dtype, tensor.layout), []).append(index)
    return list(groups.values())


@torch.no_grad()
def total_norm(norms: Tensor) -> Tensor:
    """L2 norm of everything together, from the norms of its parts.

    Args:
        norms: Shape ``(n,)``, as ``tensor_norms`` returns them.

    Returns:
        Shape ``()``, same dtype and device; 0 for no parts.

    Example:
        >>> total_norm(torch.tensor([3.0, 4.0]))
        tensor(5.)
    """
    return torch.linalg.vector_norm(norms)


def _norms_of_alike(tensors: list[Tensor]) -> list[Tensor]:
    """Norms of tensors that share device, dtype and layout, in one fused call."""
    if tensors[0].layout != torch.strided:
        tensors = [tensor.coalesce().values() for tensor in tensors]
    if tensors[0].is_complex():
        tensors = [torch.view_as_real(tensor) for tensor in tensors]
    if tensors[0].device.type == "cpu":
        return _fused_norms([_row_norms(tensor) for tensor in tensors], torch.float64)
    return _fused_norms(tensors, torch.float64 if tensors[0].dtype == torch.float64 else torch.float32)


def _row_norms(tensor: Tensor) -> Tensor:
    """A vector with the norm of ``tensor``: the norms of its rows of ``_ROW`` numbers, and what is left over."""
    if tensor.numel() <= _ROW:
        return tensor
    flat = tensor.reshape(-1)
    dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    over = flat.numel() % _ROW
    rows = torch.linalg.vector_norm(flat[: flat.numel() - over].view(-1, _ROW), dim=1, dtype=dtype)
    return torch.cat([rows, flat[-over:].to(dtype)]) if over else rows


def _fused_norms(tensors: list[Tensor], accumulator: torch.dtype) -> list[Tensor]:
    """One kernel for many tensors (``torch._foreach_norm``, private; torch's own clipping is built on it)."""
    return list(torch._foreach_norm(tensors, 2.0, accumulator))
