"""How much to shrink gradients, and shrinking them."""

import math
import reprlib
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ._local import shared_value


def check_between(name: str, value: Any, lower: float = 0.0, upper: float = math.inf) -> float:
    """``value`` as a float, or a refusal.

    Args:
        name: What the user called it, for the message.
        value: What the user gave.
        lower: It has to be above this.
        upper: It has to be below this.

    Raises:
        ValueError: If it is no such number.
    """
    try:
        number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.inf
    if not lower < number < upper:
        rule = f"in ({lower:g}, {upper:g})" if upper < math.inf else f"a finite number > {lower:g}"
        raise ValueError(f"{name} must be {rule}, got {reprlib.repr(value)}.")
    return number


def check_max_norm(max_norm: float) -> float:
    """``max_norm`` as a float, or a refusal.

    Raises:
        ValueError: If it is not a finite number > 0. (torch takes -1 and flips every gradient.)
    """
    return check_between("max_norm", max_norm)


@torch.no_grad()
def clip_coefficient(total: Tensor, *, max_norm: float) -> Tensor:
    r"""The factor that brings a gradient of norm ``total`` down to ``max_norm``.

    :math:`\min(1, \mathrm{max\_norm} / (\mathrm{total} + 10^{-6}))`, the same as
    ``torch.nn.utils.clip_grad_norm_``, and so 0 for an infinite norm. A total that is NaN gives 1: no factor
    could mend such a gradient, and a factor of NaN would spread it from one parameter to all of them.

    Args:
        total: Norm of the whole gradient, shape ``()``.
        max_norm: Largest norm left alone [unit of the gradient], > 0.

    Returns:
        Shape ``()``, in [0, 1], on the device of ``total``.

    Raises:
        ValueError: If ``max_norm`` is not a finite number > 0.

    Source:
        Pascanu et al. 2013, https://arxiv.org/abs/1211.5063, algorithm 1.

    Example:
        >>> clip_coefficient(torch.tensor(4.0), max_norm=1.0)
        tensor(0.2500)
    """
    return torch.clamp(check_max_norm(max_norm) / (total + 1e-6), max=1.0).nan_to_num_(nan=1.0)


@torch.no_grad()
def scale_(tensors: list[Tensor], factor: Tensor) -> None:
    """Multiply every tensor by ``factor`` in place, one fused call for each device and dtype.

    A factor of 1 that lies on CPU is not written: its value can be seen there without a copy.

    Args:
        tensors: Any shapes, dtypes and devices, none of them a DTensor; changed in place.
        factor: Shape ``()``.
    """
    if shared_value(factor) == 1.0:
        return
    if factor.is_cpu and {tensor.is_cpu for tensor in tensors} == {True}:
        torch._foreach_mul_(tensors, factor)  # takes them one by one, whatever they are
        return
    alike: dict[tuple[torch.device, torch.dtype, torch.layout], list[Tensor]] = {}
    for tensor in tensors:
        alike.setdefault((tensor.device, tensor.dtype, tensor.layout), []).append(tensor)
    for (device, _, layout), same in alike.items():
        here = factor.to(device)
        if layout == torch.strided:
            torch._foreach_mul_(same, here)
        else:
            for tensor in same:
                tensor.mul_(here)
