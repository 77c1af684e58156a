"""How much a batch holds: tokens and samples."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .._lightning import MisconfigurationException, extract_batch_size

Count = Callable[[Any], Any]


def count_tokens(batch: Any) -> int | Tensor:
    """Tokens in the usual batches: what ``attention_mask`` lets through, else every one of the token ids.

    Args:
        batch: A mapping with ``attention_mask`` or ``input_ids``, shape ``(samples, tokens)``; a tensor of token
            ids of any shape; or a tuple or list whose first entry is one of these.

    Returns:
        Number of tokens on this rank [tokens]; on the batch's device if it had to be summed.

    Raises:
        MisconfigurationException: If it is none of these.
    """
    if isinstance(batch, Mapping):
        mask, ids = batch.get("attention_mask"), batch.get("input_ids")
        if isinstance(mask, Tensor) and mask.dim() <= 2:
            return (mask != 0).sum()
        if isinstance(ids, Tensor):
            return ids.numel()
    elif isinstance(batch, Tensor) and not (batch.is_floating_point() or batch.is_complex()):
        return batch.numel()
    elif isinstance(batch, tuple | list) and batch:
        return count_tokens(batch[0])
    raise MisconfigurationException(
        f"Cannot count the tokens of a batch that is {_in_words(batch)}: it must be token ids (a tensor of whole "
        "numbers), a dict with 'input_ids' or 'attention_mask', or a tuple that begins with one of these. Say how: "
        "LRSchedule(..., tokens=lambda batch: batch['text'].numel())."
    )


def count_samples(batch: Any) -> int:
    """Samples in a batch: the first dimension of its first tensor."""
    return extract_batch_size(batch)


def checked(name: str, count: Count, batch: Any) -> Tensor:
    """What ``count`` finds in ``batch``, as a 64-bit number on the device where it was found.

    Raises:
        MisconfigurationException: If it is no whole number; ``name`` is what the user called the function.
    """
    try:
        found = count(batch)
    except MisconfigurationException:
        raise
    except Exception as error:
        raise MisconfigurationException(f"{name}(batch) failed for {_in_words(batch)}: {error!r}.") from error
    number = found if isinstance(found, Tensor) else torch.tensor(found if _is_whole(found) else 0.5)
    if number.numel() != 1 or number.is_floating_point() or number.is_complex() or number.dtype == torch.bool:
        raise MisconfigurationException(f"{name}(batch) must return a whole number >= 0, got {found!r}.")
    return number.detach().reshape(()).to(torch.int64)


def _is_whole(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool) and value >= 0


def _in_words(batch: Any) -> str:
    if isinstance(batch, Mapping):
        return f"a {type(batch).__name__} with {sorted(map(str, batch))}"
    if isinstance(batch, Tensor):
        return f"a tensor of {batch.dtype}, shape {tuple(batch.shape)}"
    return f"a {type(batch).__name__}"
