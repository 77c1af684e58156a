"""What a forward pass keeps for the backward pass, block by block, and what is kept if blocks are computed again."""

import math
from dataclasses import dataclass

from .network import Widths
from .precisions import Precision

MODES = ("none", "selective", "attention", "sqrt", "every_block")
ONE_BY_ONE = ("selective", "attention")  # parts of a block are computed again


@dataclass(frozen=True)
class Kept:
    """Bytes of one micro-batch on one rank.

    Args:
        whole: Kept by a block that is not computed again.
        short: Kept by one that is, and of it what the mode keeps.
        every: One block in so many is computed again, the first of each run; 0 if none is.
        after: Kept between the last block and the scores: the last norm.
        logits: Kept of the scores: their log-softmax, in fp32.
        loss: Made on top of ``logits`` while the loss and its gradient are computed.
        stream: One copy of the stream between two blocks.
    """

    whole: float
    short: float
    every: int
    after: int
    logits: int
    loss: int
    stream: int

    def blocks(self, count: int) -> int:
        """Kept by ``count`` blocks."""
        again = math.ceil(count / self.every) if self.every else 0
        return round(again * self.short + (count - again) * self.whole)

    @property
    def recomputed(self) -> int:
        """Made again in the backward pass while one block is under way."""
        return round(self.whole - self.short) if self.every else 0


def kept(
    widths: Widths, precision: Precision, *, tokens: int, sequence: int, mode: str | int, layers: int, tensor: int = 1
) -> Kept:
    """What one micro-batch keeps.

    Counted are blocks of eager PyTorch with pre-norms, flash attention (or scores kept whole), no dropout: inputs of
    norms, their outputs, queries, keys, values, the attention's output with one number a head, and what the
    feed-forward part has inside. Autocast keeps a 16-bit copy of an input for each matrix that reads it.

    Args:
        widths: Inside of a block.
        precision: Bytes of a number.
        tokens: Tokens of a micro-batch, sequences times length.
        sequence: Length of a sequence.
        mode: ``"none"``; ``"selective"`` (outputs of matrix products and of the attention are kept, the rest is
            computed again); ``"attention"`` (with its projections, from its input); ``"sqrt"`` (every
            ``round(sqrt(layers))``-th block is computed again) or a whole number N (every N-th block);
            ``"every_block"``.
        layers: Blocks in all, for ``"sqrt"``.
        tensor: Ranks that split a block; the stream and the norms are whole on each.

    Example:
        >>> from lightning_llmopt.planning import Transformer, precision_of
        >>> gpt2 = Transformer(layers=12, width=768, heads=12, vocabulary=50257).widths
        >>> fp32 = precision_of("fp32", "single")
        >>> all_of_it = kept(gpt2, fp32, tokens=1, sequence=1024, mode="none", layers=12)
        >>> all_of_it.whole == 4 * (16 * 768 + 12 + 2 * 2)  # 16 widths, a number a head, two a norm
        True
    """
    whole = tokens * _block(widths, precision, sequence=sequence, tensor=tensor)
    stream = tokens * widths.width * precision.residual
    short = float(stream)
    if mode == "selective":
        short = min(whole, stream + tokens * _products(widths, precision, sequence=sequence, tensor=tensor))
    if mode == "attention":
        short = whole - tokens * _attention(widths, precision, sequence=sequence, tensor=tensor)
    scores = tokens * widths.vocabulary
    after = tokens * _norm(widths, precision, readers=1)
    return Kept(whole, short, every_nth(mode, layers=layers), after, 4 * scores, 8 * scores, stream)


def every_nth(mode: str | int, *, layers: int) -> int:
    """Which blocks are computed again: every N-th, or none if N is 0.

    Raises:
        ValueError: If ``mode`` is unknown, or N is below 1.

    Example:
        >>> [every_nth(mode, layers=16) for mode in ("none", "every_block", "sqrt", 3)]
        [0, 1, 4, 3]
    """
    check_mode(mode)
    if isinstance(mode, int):
        return mode
    return {"none": 0, "sqrt": max(1, round(math.sqrt(layers)))}.get(mode, 1)


def check_mode(mode: str | int, *, strategy: str = "") -> None:
    """Refuse what is no way of checkpointing, or none under a strategy.

    Raises:
        ValueError: If ``mode`` is unknown, N is below 1, or ``mode`` is ``"selective"`` under ZeRO-3.
    """
    number = isinstance(mode, int) and not isinstance(mode, bool) and mode >= 1
    if not number and (not isinstance(mode, str) or mode not in MODES):
        raise ValueError(f"checkpointing must be one of {list(MODES)} or a whole number >= 1, got {mode!r}.")
    if not works(mode, strategy=strategy):
        raise ValueError(
            "checkpointing 'selective' keeps results of single operations, and under ZeRO-3 gathering parameters is "
            "one of them: use 'attention' or 'every_block', or strategy='zero2'."
        )


def works(mode: str | int, *, strategy: str) -> bool:
    """Whether our strategies take this way of checkpointing."""
    return mode != "selective" or not strategy.startswith("zero3")


def _block(widths: Widths, precision: Precision, *, sequence: int, tensor: int) -> float:
    """Bytes a token."""
    number = precision.compute
    norms = _norm(widths, precision, readers=1 if widths.fused_qkv else 3)
    norms += _norm(widths, precision, readers=2 if widths.gated else 1)
    scores = _scores(widths, precision, sequence=sequence)
    inside = number * (2 * widths.attention + 2 * widths.kv + (4 if widths.gated else 2) * widths.ffn)
    return norms + (scores + inside) / tensor


def _scores(widths: Widths, precision: Precision, *, sequence: int) -> int:
    """Probabilities if they are kept, else one number a head."""
    return widths.heads * (sequence * _softmax(precision) if widths.eager_attention else 4)


def _attention(widths: Widths, precision: Precision, *, sequence: int, tensor: int) -> float:
    """What the attention keeps but for its input, per token; autocast casts that for each matrix that reads it."""
    inside = precision.compute * 2 * (widths.attention + widths.kv) + _scores(widths, precision, sequence=sequence)
    copies = (1 if widths.fused_qkv else 3) * precision.compute - precision.residual if precision.casts else 0
    return inside / tensor + copies * widths.width


def _norm(widths: Widths, precision: Precision, *, readers: int) -> int:
    """A norm's input, its statistics, and its output for those who read it, per token."""
    copies = readers if precision.casts else 1
    output = copies * precision.compute * widths.width
    if widths.norm == "rms_eager":  # computed in fp32: its input in fp32, and what is multiplied by the weight
        return widths.width * (4 + precision.residual) + 4 + output
    return widths.width * precision.residual + (8 if widths.norm == "layer" else 4) + output


def _softmax(precision: Precision) -> int:
    """Bytes of a probability: autocast computes them in fp32 and casts them for the product with the values."""
    return 4 + precision.compute if precision.casts else precision.compute


def _products(widths: Widths, precision: Precision, *, sequence: int, tensor: int) -> float:
    """Outputs of matrix products and of the attention, per token."""
    number = precision.compute
    inside = number * (2 * widths.attention + 2 * widths.kv + (2 if widths.gated else 1) * widths.ffn)
    scores = widths.heads * (number * sequence if widths.eager_attention else 4)
    return 2 * number * widths.width + (inside + scores) / tensor
