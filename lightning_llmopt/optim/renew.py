"""Another optimizer over the parameters of one that is there already."""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .own import Own
from .regroup import rate_unlowered
from .split_optimizer import SplitOptimizer

_DEFAULT_RATE = 1e-3


def check_settings(own: Own) -> None:
    """Refuse settings that an optimizer does not take, before there is a model.

    Args:
        own: A class or function, and what it is to be called with. It is tried on a matrix of one number.

    Raises:
        ValueError: If it takes no setting of that name, or refuses a value; the message has the names that it takes.

    Example:
        >>> from lightning_llmopt.optim import own
        >>> check_settings(own({"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentun": 0.9}}))
        Traceback (most recent call last):
        ...
        ValueError: SGD takes no 'momentun'; did you mean 'momentum'? It takes dampening, differentiable, foreach, \
fused, lr, maximize, momentum, nesterov, weight_decay.
    """
    allowed = allowed_settings(own)
    for name, _ in own.settings:
        if allowed is not None and name not in allowed:
            near = difflib.get_close_matches(name, allowed, n=1)
            guess = f"; did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"{_called(own)} takes no {name!r}{guess} It takes {', '.join(allowed)}.")
    try:
        _build(own, [{"params": [nn.Parameter(torch.zeros(1, 1))]}], _DEFAULT_RATE)
    except ValueError as error:
        raise ValueError(f"{own} is refused: {error}") from error
    except Exception:  # noqa: BLE001 - it may want a device or the real parameters; then it says so at fit start
        return


def allowed_settings(own: Own) -> list[str] | None:
    """Names of what an optimizer takes beside parameters; ``None`` if it takes any or does not say."""
    try:
        parameters = list(inspect.signature(own.make).parameters.values())
    except (TypeError, ValueError):
        return None
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return None
    return sorted(one.name for one in parameters[1:] if one.kind is not one.VAR_POSITIONAL)


def renewed(
    optimizer: Optimizer, own: Own, *, others: Own | None = None, fits: Callable[[Tensor], bool] | None = None
) -> Optimizer:
    """A new optimizer over the parameters of ``optimizer``, in the same groups; the old one is left as it is.

    Groups keep their parameters and names. A group's rate is that of ``own``, times its rate over the first group's
    before; without a rate in ``own`` it stays what it was. If a scheduler has changed rates already, those from before
    it count. A group without weight decay beside others that have some stays without. Nothing else is taken over: the
    rest of a group's entries belong to the old optimizer.

    Args:
        optimizer: What the module configured.
        own: What takes its place.
        others: What trains parameters that do not fit.
        fits: Which parameters ``own`` trains, if there are ``others``.

    Returns:
        An optimizer of ``own``; with ``others`` a ``SplitOptimizer`` of both, or whichever has parameters.

    Raises:
        ValueError: If it refuses the parameters or its settings.

    Example:
        >>> from lightning_llmopt.optim import own
        >>> body, head = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
        >>> before = torch.optim.SGD([{"params": [body], "lr": 0.1}, {"params": [head], "lr": 0.01, "name": "head"}])
        >>> after = renewed(before, own({"class_path": "torch.optim.AdamW", "init_args": {"lr": 2e-4}}))
        >>> [(group.get("name"), round(group["lr"], 9)) for group in after.param_groups]
        [(None, 0.0002), ('head', 2e-05)]
    """
    if others is None or fits is None:
        return _over(optimizer, own, lambda _: True)
    parts = [
        _over(optimizer, one, wanted)
        for one, wanted in ((own, fits), (others, lambda parameter: not fits(parameter)))
        if any(wanted(parameter) for group in optimizer.param_groups for parameter in group["params"])
    ]
    return parts[0] if len(parts) == 1 else SplitOptimizer(parts)


def _over(optimizer: Optimizer, own: Own, wanted: Callable[[Tensor], bool]) -> Optimizer:
    before = optimizer.param_groups
    first = rate_unlowered(before[0]) if before and "lr" in before[0] else _DEFAULT_RATE
    rate = dict(own.settings).get("lr")
    some_decay = any(group.get("weight_decay") for group in before)
    groups: list[dict[str, Any]] = []
    for group in before:
        parameters = [parameter for parameter in group["params"] if wanted(parameter)]
        if not parameters:
            continue
        made: dict[str, Any] = {"params": parameters}
        if "name" in group:
            made["name"] = group["name"]
        old = rate_unlowered({"lr": first, **group})
        if rate is None:
            made["lr"] = old
        elif old != first:
            if not first:
                raise ValueError("the first group's rate is 0, so that rates of others over it are not known.")
            made["lr"] = float(rate) * (old / first)
        if some_decay and not group.get("weight_decay", 1.0):
            made["weight_decay"] = 0.0
        groups.append(made)
    return _build(own, groups, first)


def _build(own: Own, groups: list[dict[str, Any]], rate: float) -> Optimizer:
    allowed = allowed_settings(own)
    return own(groups, lr=rate) if allowed is None or "lr" in allowed else own(groups)


def _called(own: Own) -> str:
    return getattr(own.make, "__name__", repr(own.make))
