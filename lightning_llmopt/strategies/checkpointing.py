"""Activation checkpointing on the blocks of any network: memory for time."""

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from ..structure import find_blocks
from ..structure.find import Choose
from ..structure.tree import class_of
from ._buffers import around_both

MODES = ("none", "every_block", "sqrt", "attention", "selective")
Mode = str | int

_ATTENTION = re.compile(r"(Attention|Attn)(?![a-z])")
_CACHES = ("past_key_value", "past_key_values", "layer_past", "cache_params")  # what Hugging Face blocks append to
_KEPT = [  # costly to compute again: products of matrices, and attention
    getattr(torch.ops.aten, name).default
    for name in (
        "mm", "addmm", "bmm", "baddbmm", "convolution", "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
    )
    if hasattr(torch.ops.aten, name)
]  # fmt: skip


def apply_checkpointing(model: nn.Module, mode: Mode, *, blocks: Sequence[str] | Choose | None = None) -> list[str]:
    """Let blocks compute their activations again in the backward pass instead of keeping them.

    Loss and gradients stay the same, bit for bit where the network's own operations are deterministic: randomness is
    played back, and buffers such as BatchNorm's running statistics are written once. Names, ``state_dict`` and
    classes stay as they are. Call it before the model is sharded or compiled.

    - ``"every_block"``: each block keeps its input alone. Least memory, about one more forward pass in time.
    - ``"sqrt"``: about every ``sqrt(L)``-th of ``L`` blocks does.
    - a whole number ``n``: every ``n``-th does, from the first.
    - ``"attention"``: attention alone is computed again, everything else in the block is kept.
    - ``"selective"``: products of matrices and attention are kept, everything else is computed again.
    - ``"none"``: nothing; also takes off what an earlier call has put on.

    Args:
        model: Any network, or a LightningModule that holds one. Changed in place.
        mode: One of the above.
        blocks: Which modules are the blocks, as ``structure.find_blocks`` takes it, if they are not to be found.

    Returns:
        Names of the modules that compute again.

    Raises:
        ValueError: If ``mode`` is none of these, there are no blocks, or none of them has attention.

    Source:
        Chen et al. 2016, https://arxiv.org/abs/1604.06174; Korthikanti et al. 2022 (selective),
        https://arxiv.org/abs/2205.05198.

    Example:
        >>> layer = nn.TransformerEncoderLayer(8, nhead=2, dim_feedforward=16, batch_first=True)
        >>> net = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        >>> apply_checkpointing(net, "sqrt")
        ['layers.0', 'layers.2']
    """
    check_mode(mode)
    for module in model.modules():
        if isinstance(module.__dict__.get("forward"), Recomputed):
            module.__dict__["forward"].take_off()
    if mode == "none":
        return []
    structure = find_blocks(model, blocks=blocks)
    found = list(zip([block.name for block in structure.blocks], structure.modules(model), strict=True))
    if mode == "attention":
        chosen = [part for name, block in found for part in _attention(name, block)]
        if not chosen:
            kinds = sorted({class_of(block).__name__ for _, block in found})
            raise ValueError(
                f'checkpointing="attention" needs modules whose class is called ...Attention in the blocks, and there '
                f'are none in {", ".join(kinds)}. Use "selective" or "every_block".'
            )
    else:
        chosen = found[:: _stride(mode, len(found))]
    contexts = partial(create_selective_checkpoint_contexts, _KEPT) if mode == "selective" else None
    for _, module in chosen:
        module.__dict__["forward"] = Recomputed(module, contexts)
    return [name for name, _ in chosen]


def check_mode(mode: Mode) -> None:
    """Refuse what is no mode.

    Raises:
        ValueError: If it is none of ``MODES`` and no whole number >= 1.
    """
    whole = isinstance(mode, int) and not isinstance(mode, bool) and mode >= 1
    if not whole and not (isinstance(mode, str) and mode in MODES):
        raise ValueError(f"checkpointing must be one of {list(MODES)} or a whole number >= 1, got {mode!r}.")


class Recomputed:
    """Stands in for the ``forward`` of a module, and runs it a second time in the backward pass.

    Args:
        module: The module; hooks on it run once, around both.
        contexts: What is kept, as ``torch.utils.checkpoint`` takes it; by default nothing.
    """

    def __init__(self, module: nn.Module, contexts: Callable[[], Any] | None = None) -> None:
        self.module, self.contexts = module, contexts
        self.before = module.__dict__.get("forward")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own."""
        if self.before is not None:
            return self.before(*args, **kwargs)
        return type(self.module).forward(self.module, *args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute, and remember how to compute again; just compute where no gradient is wanted."""
        if not torch.is_grad_enabled():
            return self.forward(*args, **kwargs)
        contexts = self.contexts
        if not torch.compiler.is_compiling() and next(self.module.buffers(), None) is not None:
            contexts = partial(around_both, self.module, contexts)
        settings: dict[str, Any] = {} if contexts is None else {"context_fn": contexts}
        return checkpoint(self.forward, *args, use_reentrant=False, **settings, **_without_caches(kwargs))

    def take_off(self) -> None:
        """Give the module its own back."""
        del self.module.__dict__["forward"]
        if self.before is not None:
            self.module.__dict__["forward"] = self.before


def _stride(mode: Mode, blocks: int) -> int:
    if isinstance(mode, int):
        return mode
    return max(1, round(math.sqrt(blocks))) if mode == "sqrt" else 1


def _attention(name: str, block: nn.Module) -> list[tuple[str, nn.Module]]:
    """The outermost attention modules of a block."""
    found: list[tuple[str, nn.Module]] = []
    for key, child in block.named_children():
        where = f"{name}.{key}"
        found += [(where, child)] if _ATTENTION.search(class_of(child).__name__) else _attention(where, child)
    return found


def _without_caches(kwargs: dict[str, Any]) -> dict[str, Any]:
    """A cache of keys and values would be appended to a second time; training has no use for it."""
    dropped = {name: None for name in _CACHES if kwargs.get(name) is not None}
    return {**kwargs, **dropped, **({"use_cache": False} if dropped and "use_cache" in kwargs else {})}
