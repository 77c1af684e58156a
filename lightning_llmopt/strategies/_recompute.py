"""Where the strategies ask for activation checkpointing, before they shard."""

from collections.abc import Sequence

from torch import nn

from .checkpointing import Mode, apply_checkpointing


def recompute_blocks(module: nn.Module, mode: Mode, blocks: Sequence[str] | None = None) -> None:
    """Let the blocks of ``module`` compute their activations again in the backward pass.

    Args:
        module: Any LightningModule, not yet sharded.
        mode: What ``apply_checkpointing`` takes; ``"none"`` leaves the module as it is, whatever it has of its own.
        blocks: Globs of module names, if the blocks are not to be found.

    Raises:
        ValueError: If there are no blocks, or none with attention for ``"attention"``.
    """
    if mode == "none":
        return
    try:
        apply_checkpointing(module, mode, blocks=blocks)
    except ValueError as error:
        raise ValueError(
            f"checkpointing={mode!r} cannot be put on {type(module).__name__}: drop it, or call strategies."
            f"checkpointing.apply_checkpointing(self, {mode!r}, blocks=[...]) in configure_model. {error}"
        ) from None
