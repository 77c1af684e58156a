"""Settings put into an optimizer: its groups split by what they say, and as few of them as can be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from .rules import OTHERS
from .settings import Setting


@dataclass(frozen=True)
class Member:
    """A parameter of an optimizer with what holds for it.

    Attributes:
        parameter: The parameter, as the optimizer has it.
        group: Its group so far.
        setting: How it is to be trained.
    """

    parameter: Tensor
    group: dict[str, Any]
    setting: Setting


Came = list[tuple[int, list[dict[str, Any]]]]
_OWN = ("lr_scale", "weight_decay", "frozen", "optimizer", "name")  # what a rule may say itself
RATES_OF_GROUPS = ("lr", "initial_lr", "max_lr", "min_lr")  # the latter two are those of OneCycleLR and CyclicLR


def regroup_(
    optimizer: Optimizer,
    settings: Mapping[Tensor, Setting],
    *,
    positions: Sequence[int] | None = None,
    apart: bool = False,
) -> Came:
    """Split the groups of ``optimizer`` by settings, in place, and merge those that are equal in everything.

    Each new group gets ``lr`` times its setting's ``lr_scale``, its weight decay and further entries, a ``name`` of its
    own, and ``lr_scale``, which states of optimizers keep. Frozen parameters leave it. The optimizer's state is not
    touched: it belongs to parameters.

    Args:
        optimizer: Any torch optimizer.
        settings: By parameter; one that is not in it stays as it is.
        positions: The groups to split; all by default.
        apart: Whether parameters from different groups stay in different groups, as schedulers need that have a curve
            for each group.

    Returns:
        For each group from before, its position and the groups that came of it, in order; a merged group counts to
        the first that it came from.

    Raises:
        ValueError: If a setting wants an entry that the optimizer's groups do not have.

    Example:
        >>> import torch
        >>> one, other = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
        >>> optimizer = torch.optim.SGD([one, other], lr=0.5)
        >>> _ = regroup_(optimizer, {one: Setting(lr_scale=0.1, labels=("low",)), other: Setting(labels=("high",))})
        >>> [(group["name"], group["lr"]) for group in optimizer.param_groups]
        [('low', 0.05), ('high', 0.5)]
    """
    before = list(optimizer.param_groups)
    chosen = set(range(len(before)) if positions is None else positions)
    made: dict[Any, dict[str, Any]] = {}
    labels: dict[int, list[tuple[str, ...]]] = {}
    came: Came = []
    groups: list[dict[str, Any]] = []
    for position, group in enumerate(before):
        if position not in chosen or not group["params"]:
            groups.append(group)
            came.append((position, [group]))
            continue
        fresh: list[dict[str, Any]] = []
        for parameter in group["params"]:
            setting = settings.get(parameter, Setting())
            if setting.frozen:
                continue
            entries = _entries(group, setting, type(optimizer).__name__)
            key = (_key(entries), position if apart else 0)
            if key not in made:
                made[key] = {"params": [], **entries}
                fresh.append(made[key])
            made[key]["params"].append(parameter)
            labels.setdefault(id(made[key]), []).append((*_own_name(group), *setting.labels))
        groups += fresh
        came.append((position, fresh))
    _name(made.values(), labels, taken={str(group.get("name")) for at, group in enumerate(before) if at not in chosen})
    optimizer.param_groups[:] = groups
    return came


def _entries(group: Mapping[str, Any], setting: Setting, optimizer: str) -> dict[str, Any]:
    """A group's entries with a setting's in them; a rate that is a tensor becomes one of its own."""
    entries = {
        key: value.clone() if isinstance(value, Tensor) else value for key, value in group.items() if key != "params"
    }
    if setting.lr_scale != 1.0:
        for key in RATES_OF_GROUPS:
            if key in entries:
                entries[key] = entries[key] * setting.lr_scale
    entries["lr_scale"] = float(group.get("lr_scale", 1.0)) * setting.lr_scale
    wanted = dict(setting.entries)
    if setting.weight_decay is not None:
        wanted["weight_decay"] = float(setting.weight_decay)
    for name in wanted:
        if name not in entries and not (name == "weight_decay" and wanted[name] == 0):
            have = ", ".join(sorted(set(entries) - {"lr_scale", "name"}))
            near = get_close_matches(name, [*entries, *_OWN], n=1)
            guess = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{optimizer} has no {name} in its groups: there are {have}.{guess}")
    entries |= {name: value for name, value in wanted.items() if name in entries} | dict(setting.notes)
    if setting.weight_decay_scale != 1.0 and entries.get("weight_decay"):
        entries["weight_decay"] = entries["weight_decay"] * setting.weight_decay_scale
    if setting.over_rate and entries.get("weight_decay"):
        entries["weight_decay"] = entries["weight_decay"] / full_rate(entries)
    return entries


def rate_unlowered(entries: Mapping[str, Any]) -> float:
    """A group's rate at the multiplier 1, before any scheduler; that of OneCycleLR and CyclicLR is ``max_lr``."""
    return float(next(entries[key] for key in ("max_lr", "initial_lr", "lr") if key in entries))


def full_rate(entries: Mapping[str, Any]) -> float:
    """The same, above 0."""
    rate = rate_unlowered(entries)
    if rate <= 0:
        raise ValueError(f"weight decay over the rate needs a rate > 0, got lr = {rate!r}.")
    return rate


def _key(entries: Mapping[str, Any]) -> Any:
    """What two groups must share to be one."""
    return tuple(sorted((name, _plain(value)) for name, value in entries.items()))


def _plain(value: Any) -> str:
    return f"tensor {value.tolist()}" if isinstance(value, Tensor) else repr(value)


def _own_name(group: Mapping[str, Any]) -> tuple[str, ...]:
    return (str(group["name"]),) if "name" in group else ()


def _name(groups: Any, labels: Mapping[int, Sequence[tuple[str, ...]]], *, taken: set[str]) -> None:
    """Give every group a name that says what is in it, and that no other has."""
    every: list[set[str]] = []
    for words in labels.values():
        for word in words:
            every += [set() for _ in range(len(word) - len(every))]
            for place, label in enumerate(word):
                every[place].add(label)
    for group in groups:
        parts = []
        for place, known in enumerate(every):
            here = list(dict.fromkeys(word[place] for word in labels[id(group)] if place < len(word)))
            if here and (len(known) == 1 or set(here) != known):
                parts.append(_short(here))
        telling = [part for part in dict.fromkeys(parts) if part != OTHERS]
        wanted = name = ".".join(telling or parts[:1]) or "all"
        number = 2
        while name in taken:
            name, number = f"{wanted}-{number}", number + 1
        taken.add(name)
        group["name"] = name


def _short(labels: Sequence[str]) -> str:
    return "+".join(labels) if len(labels) < 3 else f"{labels[0]}+{len(labels) - 1}_more"
