"""How far an update moved a weight, and by what angle: sums that add up over parts, and what follows from them."""

from collections.abc import Sequence

import torch
from torch import Tensor

_PIECE = 1 << 18  # numbers that are held in fp64 at a time: 2 MB each for weight and difference


@torch.no_grad()
def move_sums(before: Sequence[Tensor | None], after: Sequence[Tensor | None]) -> Tensor:
    r"""For each tensor :math:`\|W\|^2`, :math:`\|W' - W\|^2` and :math:`W \cdot (W' - W)`, all of it in fp64.

    Sums over parts of a weight, and over weights, are the sums of the whole: add them before anything else.

    Args:
        before: The tensors :math:`W`, dense and of any shape; ``None`` where there is none.
        after: The same tensors later, :math:`W'`.

    Returns:
        Shape ``(len(before), 3)``, fp64, on the device of the first tensor (CPU if there is none). Nothing is copied
        to the host.

    Example:
        >>> move_sums([torch.tensor([3.0, 4.0])], [torch.tensor([3.0, 6.0])])
        tensor([[25.,  4.,  8.]], dtype=torch.float64)
    """
    device = next((tensor.device for tensor in before if tensor is not None), torch.device("cpu"))
    nothing = torch.zeros(3, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    rows = [
        nothing if old is None or new is None else _sums(old, new).to(device)
        for old, new in zip(before, after, strict=True)
    ]
    return torch.stack(rows) if rows else nothing.new_zeros((0, 3))


def angle_of(sums: Tensor) -> Tensor:
    r"""Angle between a weight before and after, from its ``move_sums``.

    :math:`\mathrm{atan2}(\sqrt{\|W\|^2 \|D\|^2 - (W \cdot D)^2}, \|W\|^2 + W \cdot D)` with
    :math:`D = W' - W`: the angle whose cosine is that of :math:`W` and :math:`W'`, right to all digits for small angles
    too, where the cosine itself is 1 and says nothing.

    Args:
        sums: Shape ``(..., 3)``.

    Returns:
        Shape ``(...)`` [radians], in [0, pi]; 0 where either weight is zero.

    Example:
        >>> angle_of(move_sums([torch.tensor([1.0, 0.0])], [torch.tensor([1.0, 1.0])]))
        tensor([0.7854], dtype=torch.float64)
    """
    weight, move, product = sums.unbind(-1)
    return torch.atan2((weight * move - product**2).clamp(min=0.0).sqrt(), weight + product)


def _sums(old: Tensor, new: Tensor) -> Tensor:
    parts = [
        _sums_of_piece(_wide(some), _wide(same))
        for some, same in zip(_pieces(old.detach()), _pieces(new.detach()), strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


def _pieces(tensor: Tensor) -> tuple[Tensor, ...]:
    flat = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).reshape(-1)
    return torch.split(flat, _PIECE)


def _wide(piece: Tensor) -> Tensor:
    return piece.to(torch.float32 if piece.device.type == "mps" else torch.float64)  # mps has no fp64


def _sums_of_piece(old: Tensor, new: Tensor) -> Tensor:
    move = new - old
    pair = torch.stack((old, move))
    products = pair @ pair.T  # [[W.W, W.D], [D.W, D.D]]
    return torch.stack((products[0, 0], products[1, 1], products[0, 1]))
