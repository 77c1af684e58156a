"""The inside of a transformer block from nothing but the shapes of its matrices."""

from collections import Counter

from .network import Network, Unit, Widths

HEAD = 64  # numbers of heads hardly matter to memory: one number a head and token


def widths_of_shapes(network: Network) -> Widths | None:
    """What the widths are if the first block has attention and a feed-forward part; ``None`` if not.

    Every matrix must have the stream's width on one side. Other sides above the width that come twice are a
    feed-forward part, three times a gated one, a lone one with its half a gated one with fused matrices; a lone one
    is fused queries, keys and values; sides below the width that come twice are keys and values.
    """
    tables = [weight.shape for weight in network.embedding.weights if len(weight.shape) == 2]
    if not tables or not network.blocks:
        return None
    table = max(tables, key=lambda shape: shape[0])
    width = table[1]
    sides = _sides(network.blocks[0], width)
    if sides is None:
        return None
    wide = Counter({side: count for side, count in sides.items() if side > width})
    lone = [3 * width] if sides[width] == 1 and wide[3 * width] == 3 else []  # as wide as the feed-forward part
    wide.subtract(lone)
    ffn, gated = _feed_forward(wide)
    wide.update(lone)
    attention = _attention(sides, +wide, width)
    if not ffn or attention is None:
        return None
    kv, fused = attention
    return Widths(
        width, width, kv, ffn, heads=max(1, width // HEAD), vocabulary=_vocabulary(network, table[0], width),
        gated=gated, norm=_norm(network.blocks[0], width), fused_qkv=fused, guessed_heads=True,
    )  # fmt: skip


def _sides(block: Unit, width: int) -> Counter[int] | None:
    """How often each size stands across from the width."""
    sides: Counter[int] = Counter()
    for weight in block.weights:
        if len(weight.shape) > 2 or (len(weight.shape) == 2 and width not in weight.shape):
            return None
        if len(weight.shape) == 2:
            sides[weight.shape[0] if weight.shape[1] == width else weight.shape[1]] += 1
    return sides


def _feed_forward(wide: Counter[int]) -> tuple[int, bool]:
    """Its size and whether it is gated; what was used is taken out of ``wide``."""
    for size, count in list(wide.items()):
        if count in (2, 3):
            del wide[size]
            return size, count == 3
    for size in list(wide):
        if 2 * size in wide:
            del wide[size], wide[2 * size]
            return size, True
    return 0, False


def _attention(sides: Counter[int], wide: Counter[int], width: int) -> tuple[int, bool] | None:
    """Size of keys, and whether one matrix makes queries, keys and values."""
    narrow = [side for side, count in sides.items() if side < width and count == 2]
    if len(wide) == 1 and sides[width] == 1:
        return (next(iter(wide)) - width) // 2, True
    if not wide and sides[width] == 4:
        return width, False
    return (narrow[0], False) if not wide and sides[width] == 2 and len(narrow) == 1 else None


def _norm(block: Unit, width: int) -> str:
    """``"layer"`` if there are more vectors of the width than matrices could have biases for, else ``"rms"``."""
    vectors = sum(weight.shape == (width,) for weight in block.weights)
    return "rms_eager" if vectors == 2 else "layer"


def _vocabulary(network: Network, rows: int, width: int) -> int:
    """Rows of the output matrix: the last in the head, or the tied table."""
    outputs = [weight.shape for weight in network.head.weights if len(weight.shape) == 2 and weight.shape[1] == width]
    return outputs[-1][0] if outputs else rows if network.tied else 0
