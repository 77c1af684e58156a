"""What has changed between a checkpoint and the run that goes on from it, and what is to be done about it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from .._lightning import MisconfigurationException, rank_zero_info, rank_zero_warn

CHOICES = ("error", "adopt", "keep")
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Jump:
    """A value that would not go on where the checkpoint left it.

    Args:
        tag: Its tag in the log, such as ``lr/AdamW/group0``.
        old: What the checkpoint had for the coming update.
        new: What the new configuration has.
    """

    tag: str
    old: float
    new: float

    def __str__(self) -> str:
        percent = f" ({self.new / self.old - 1:+.1%})" if self.old else ""
        return f"{self.tag} at this update: {self.new:.6g}, the checkpoint had {self.old:.6g}{percent}"


def check_choice(on_change: str) -> None:
    """Refuse what is no policy.

    Raises:
        ValueError: If it is none of ``CHOICES``.
    """
    if on_change not in CHOICES:
        raise ValueError(f"on_change must be one of {list(CHOICES)}, got {on_change!r}.")


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One line for each part of the configuration that differs."""
    return [
        f"{name}: {new[name]}, the checkpoint had {old[name]}" for name in new if name in old and old[name] != new[name]
    ]


def jumps(tags: Sequence[Sequence[str]], old: Iterable[Sequence[float]], new: Iterable[Sequence[float]]) -> list[Jump]:
    """Wherever the coming update's value is not the saved one, beyond rounding; one list an optimizer."""
    found = []
    for names, before, now in zip(tags, old, new, strict=False):
        for tag, was, value in zip(names, before, now, strict=False):
            if abs(value - was) > _ROUNDING * max(abs(value), abs(was)):
                found.append(Jump(tag, was, value))
    return found


def settle(
    who: str, name: str, on_change: str, tags: list[list[str]], before: dict[str, Any], now: dict[str, Any]
) -> None:
    """If a value would jump, say what has changed, or refuse it.

    Args:
        who: Whose configuration it is.
        name: The callback as it is written.
        on_change: ``"error"`` refuses; anything else goes on with the new one.
        tags: Tags of the chosen groups, one list an optimizer.
        before: ``said``, ``bases`` and ``rates`` of the checkpoint, as far as it has them.
        now: The same of this run.

    Raises:
        MisconfigurationException: If ``on_change`` is ``"error"``.
    """
    found = [*jumps(tags, before.get("rates", []), now["rates"]), *now.get("further", [])]
    names = [f"base value of {tag}" for optimizer in tags for tag in optimizer]
    bases = [dict(zip(names, chain(*state.get("bases", [])), strict=False)) for state in (before, now)]
    lines = [*differences(before.get("said", {}), now["said"]), *differences(*bases), *map(str, found)]
    if not found:
        for line in lines:
            rank_zero_info(f"{who}: no value jumps at this update, but {line}.")
        return
    said = "\n".join(f"  {line}" for line in lines)
    if on_change == "error":
        raise MisconfigurationException(
            f"{who}: the configuration is not the checkpoint's, and the values would jump:\n{said}\n"
            f'Say {name}(..., on_change="adopt") to go on with the new one, or on_change="keep" to go on with the '
            "checkpoint's."
        )
    rank_zero_warn(f"{who}: the configuration has changed, and the new one is in force:\n{said}")
