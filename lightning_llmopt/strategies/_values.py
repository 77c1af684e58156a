"""Rules for the values that several strategies take, each worded once."""

import math
from collections.abc import Iterable, Mapping
from datetime import timedelta
from numbers import Real
from typing import Any

import torch.distributed as dist


def is_word(value: Any, words: Iterable[str]) -> bool:
    """Whether ``value`` is one of ``words``; a list, which has no hash, is none."""
    return isinstance(value, str) and value in words


def refuse_no_flags(**flags: Any) -> None:
    """Raise ``ValueError`` for the first that is neither True nor False."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be True or False, got {value!r}.")


def refuse_no_blocks(blocks: Any) -> None:
    """Raise ``ValueError`` for what is neither None, nor a list of globs, nor a function that chooses."""
    globs = isinstance(blocks, list | tuple) and all(isinstance(one, str) for one in blocks)
    if blocks is not None and not globs and not callable(blocks):
        raise ValueError(f"blocks must be a list of globs of module names, or None, got {blocks!r}.")


def refuse_no_mapping(name: str, value: Any) -> None:
    """Raise ``ValueError`` for what is neither None nor a dict."""
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a dict or None, got {value!r}.")


def refuse_no_group(backend: Any, timeout: Any) -> None:
    """Raise ``ValueError`` for what processes cannot be brought together with.

    Args:
        backend: None, a name that ``torch.distributed`` knows, or one for each kind of device as it takes them.
        timeout: None or a ``timedelta`` > 0.
    """
    names = [part.rpartition(":")[2].lower() for part in backend.split(",")] if isinstance(backend, str) else []
    if backend is not None and not (names and set(names) <= set(dist.Backend.backend_list)):
        raise ValueError(
            f'process_group_backend must be None or a name that torch.distributed knows, as "nccl", got {backend!r}.'
        )
    if timeout is not None and not (isinstance(timeout, timedelta) and timeout > timedelta(0)):
        raise ValueError(f"timeout must be None or a datetime.timedelta > 0, got {timeout!r}.")


def is_positive(value: Any) -> bool:
    """Whether ``value`` is a finite number > 0; True is none, and neither is NaN."""
    return isinstance(value, Real) and not isinstance(value, bool) and bool(0 < value < math.inf)  # type: ignore[operator]
