"""What arithmetic needs to know of a network: shapes of its parameters by unit, and the widths inside a block."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Weight:
    """One parameter.

    Args:
        shape: Its shape.
        trainable: Whether it has a gradient and optimizer state.
        cut: Dimension along which tensor parallelism splits it; ``None`` if each rank has it whole.
    """

    shape: Shape
    trainable: bool = True
    cut: int | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Unit:
    """Parameters that are gathered, checkpointed and placed together: one block, or all that is outside the blocks.

    Args:
        weights: Its parameters, tied ones once.
    """

    weights: tuple[Weight, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return sum(weight.size for weight in self.weights)


@dataclass(frozen=True)
class Widths:
    """What of a block decides how much its forward keeps for backward, all per token.

    Args:
        width: Size of the residual stream.
        attention: Size of queries and of the attention's output: heads times the size of a head.
        kv: Size of keys, and of values.
        ffn: Size inside the feed-forward part.
        heads: Number of attention heads.
        vocabulary: Number of scores a token; 0 if the network does not end in a vocabulary.
        gated: Whether two matrices lead into the feed-forward part (SwiGLU) instead of one.
        norm: ``"layer"`` or ``"rms"`` for fused ones; ``"rms_eager"`` for one written out, as in Hugging Face
            models, which keeps the normalised input too.
        fused_qkv: Whether one matrix makes queries, keys and values; where there are three, each keeps its own copy of
            its input under autocast.
        eager_attention: Whether scores are kept whole, ``heads * sequence`` a token, instead of flash attention.
        guessed_heads: Whether the number of heads is a guess, which nothing is refused for.
    """

    width: int
    attention: int
    kv: int
    ffn: int
    heads: int
    vocabulary: int
    gated: bool
    norm: str
    fused_qkv: bool = True
    eager_attention: bool = False
    guessed_heads: bool = False


@dataclass(frozen=True)
class Network:
    """A model as numbers.

    Args:
        name: What tables call it.
        embedding: Parameters before the blocks.
        blocks: The repeated parts, in order of depth.
        head: Parameters after the blocks; a tied output is in ``embedding``.
        widths: Inside of a block; ``None`` if it is not known, then activations must be given.
        tied: Whether the output shares the embedding's matrix.
        assumed: What was assumed to get here, in words; "" if nothing.
        scaled: Whether blocks are but a number of parameters, and their sides mean nothing.
    """

    name: str
    embedding: Unit
    blocks: tuple[Unit, ...]
    head: Unit
    widths: Widths | None = None
    tied: bool = False
    assumed: str = ""
    scaled: bool = False

    @property
    def units(self) -> tuple[Unit, ...]:
        """All units in order of depth."""
        return (self.embedding, *self.blocks, self.head)

    @property
    def size(self) -> int:
        """Number of parameters, tied ones once."""
        return sum(unit.size for unit in self.units)

    @property
    def trainable(self) -> int:
        """Number of parameters that are trained."""
        return sum(weight.size for unit in self.units for weight in unit.weights if weight.trainable)

    def stages(self, pipeline: int) -> tuple[tuple[Unit, ...], ...]:
        """Blocks of each pipeline stage, as even as can be, the first stages longer.

        Args:
            pipeline: Number of stages, 1 to the number of blocks.

        Raises:
            ValueError: If there are fewer blocks than stages.
        """
        if not 1 <= pipeline <= max(1, len(self.blocks)):
            raise ValueError(
                f"pipeline must be 1 to the number of blocks ({len(self.blocks)}), got {pipeline}: use "
                f"{max(1, len(self.blocks))} stages or fewer, or split blocks with tensor= instead."
            )
        return tuple(_cut(self.blocks, pipeline))


def _cut(blocks: Sequence[Unit], parts: int) -> list[tuple[Unit, ...]]:
    """``blocks`` in ``parts`` runs, lengths differing by one at most."""
    short, longer = divmod(len(blocks), parts)
    ends = [0]
    for part in range(parts):
        ends.append(ends[-1] + short + (part < longer))
    return [tuple(blocks[start:end]) for start, end in pairwise(ends)]


def most_common_side(weights: Iterable[Weight]) -> int:
    """The width as the ZeRO presets find it: the most common side of matrices, the larger of two as common; else 1.

    Example:
        >>> most_common_side([Weight((8, 8)), Weight((32, 8)), Weight((100, 100))])
        8
    """
    sides = Counter(side for weight in weights if len(weight.shape) == 2 for side in weight.shape)
    return max(sides, key=lambda side: (sides[side], side), default=1)
