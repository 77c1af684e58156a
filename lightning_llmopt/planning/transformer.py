"""A decoder by its few numbers, and the published ones by name."""

from dataclasses import dataclass, replace

from .network import Network, Unit, Weight, Widths

NORMS = ("layer", "rms", "rms_eager")
EVEN = 64  # ranks that share rows of a block without a rest, where only a number of parameters is known


@dataclass(frozen=True)
class Transformer:
    """A decoder-only transformer, described by numbers.

    Args:
        layers: Number of blocks, >= 1.
        width: Size of the residual stream, >= 1.
        heads: Number of attention heads, >= 1.
        vocabulary: Number of tokens, >= 1.
        kv_heads: Number of key-value heads, a divisor of ``heads``; by default as many as heads.
        ffn: Size inside the feed-forward part; by default four times the width.
        tied: Whether the output matrix is the embedding's.
        gated: Whether the feed-forward part has a gate (SwiGLU), and so three matrices.
        bias: Whether linear layers have biases.
        norm: ``"layer"``, ``"rms"``, or ``"rms_eager"`` (written out as in Hugging Face's Llama: keeps more).
        positions: Rows of a learned table of positions; 0 if there is none.
        head_size: Size of a head; by default width / heads.
        fused_qkv: Whether one matrix makes queries, keys and values, as in GPT-2, instead of three, as in Llama.
        eager_attention: Whether attention keeps its scores whole instead of flash attention.
        name: What tables call it.

    Raises:
        ValueError: If a number is out of range, or heads do not divide.

    Example:
        >>> gpt2 = Transformer(layers=12, width=768, heads=12, vocabulary=50257, positions=1024)
        >>> gpt2.network().size
        124439808
    """

    layers: int
    width: int
    heads: int
    vocabulary: int
    kv_heads: int | None = None
    ffn: int | None = None
    tied: bool = True
    gated: bool = False
    bias: bool = True
    norm: str = "layer"
    positions: int = 0
    head_size: int | None = None
    fused_qkv: bool = True
    eager_attention: bool = False
    name: str = "transformer"

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads", "vocabulary", "kv_heads", "ffn", "head_size"):
            value = getattr(self, name)
            optional = name in ("kv_heads", "ffn", "head_size")
            if not (optional and value is None) and (type(value) is not int or value < 1):
                raise ValueError(f"Transformer.{name} must be a whole number >= 1, got {value!r}.")
        if type(self.positions) is not int or self.positions < 0:
            raise ValueError(f"Transformer.positions must be a whole number >= 0, got {self.positions!r}.")
        if self.norm not in NORMS:
            raise ValueError(f"Transformer.norm must be one of {list(NORMS)}, got {self.norm!r}.")
        if self.head_size is None and self.width % self.heads:
            raise ValueError(
                f"Transformer.heads must divide width ({self.width}), got {self.heads}; or give head_size."
            )
        if self.kv_heads is not None and self.heads % self.kv_heads:
            raise ValueError(f"Transformer.kv_heads must divide heads ({self.heads}), got {self.kv_heads}.")

    @property
    def widths(self) -> Widths:
        """Inside of a block, per token."""
        size = self.head_size or self.width // self.heads
        return Widths(
            width=self.width,
            attention=self.heads * size,
            kv=(self.kv_heads or self.heads) * size,
            ffn=self.ffn or 4 * self.width,
            heads=self.heads,
            vocabulary=self.vocabulary,
            gated=self.gated,
            norm=self.norm,
            fused_qkv=self.fused_qkv,
            eager_attention=self.eager_attention,
        )

    def network(self) -> Network:
        """Every parameter by its shape."""
        table = Weight((self.vocabulary, self.width))
        embedding = Unit((table, *([Weight((self.positions, self.width))] if self.positions else [])))
        head = Unit((*self._norm(), *([] if self.tied else [table])))
        block = Unit(tuple(self._block()))
        return Network(self.name, embedding, (block,) * self.layers, head, widths=self.widths, tied=self.tied)

    def _norm(self) -> list[Weight]:
        return [Weight((self.width,))] * (2 if self.norm == "layer" else 1)

    def _block(self) -> list[Weight]:
        """Tensor parallelism cuts rows of what leads into the attention and the feed-forward part, and columns back."""
        inside = self.widths
        q, kv = inside.attention, inside.kv
        into = [[q + 2 * kv] if self.fused_qkv else [q, kv, kv], [inside.ffn] * (2 if self.gated else 1)]
        matrices, biases = [], []
        for rows, back in zip(into, (inside.attention, inside.ffn), strict=True):
            matrices += [*(Weight((size, self.width), cut=0) for size in rows), Weight((self.width, back), cut=1)]
            biases += [*(Weight((size,), cut=0) for size in rows), Weight((self.width,))]
        return [*self._norm(), *self._norm(), *matrices, *(biases if self.bias else [])]


_GPT = Transformer(layers=12, width=768, heads=12, vocabulary=50257, positions=1024)
_LLAMA = Transformer(
    layers=32, width=4096, heads=32, vocabulary=32000, ffn=11008,
    tied=False, gated=True, bias=False, norm="rms_eager", fused_qkv=False,
)  # fmt: skip
NAMED = {
    one.name: one
    for one in (
        replace(_GPT, name="gpt2"),
        replace(_GPT, name="gpt2-medium", layers=24, width=1024, heads=16),
        replace(_GPT, name="gpt2-large", layers=36, width=1280, heads=20),
        replace(_GPT, name="gpt2-xl", layers=48, width=1600, heads=25),
        replace(_LLAMA, name="llama-2-7b"),
        replace(_LLAMA, name="llama-3-8b", kv_heads=8, ffn=14336, vocabulary=128256),
        replace(_LLAMA, name="llama-2-13b", layers=40, width=5120, heads=40, ffn=13824),
        replace(_LLAMA, name="llama-2-70b", layers=80, width=8192, heads=64, kv_heads=8, ffn=28672),
        replace(_GPT, name="gpt3-175b", layers=96, width=12288, heads=96, positions=2048),
    )
}


def of_size(parameters: int) -> Network:
    """A network with exactly this many parameters, its blocks like those of a published one, or by a rule.

    The published one is taken if its size is within 5 % of ``parameters``; else there are ``L`` Llama blocks of width
    ``128 L``, the proportions of GPT-3. What is missing or too much is spread over the blocks.

    Args:
        parameters: Number of parameters, >= 1.

    Raises:
        ValueError: If ``parameters`` is so small that nothing is left for the blocks.

    Example:
        >>> network = of_size(70_000_000_000)
        >>> network.size, len(network.blocks), network.assumed
        (70000000000, 80, 'blocks like llama-2-70b')
    """
    near = min(NAMED.values(), key=lambda one: abs(one.network().size - parameters))
    if abs(near.network().size - parameters) <= 0.05 * parameters:
        return _scaled(near, parameters, f"blocks like {near.name}")
    layers = max(1, round((parameters / (12 * 128**2)) ** (1 / 3)))
    heads = max(8, 8 * round(layers / 8))
    width = heads * max(1, round(128 * layers / heads))
    by_rule = replace(_LLAMA, layers=layers, width=width, heads=heads, ffn=max(1, round(8 * width / 3)))
    return _scaled(by_rule, parameters, f"{layers} Llama blocks of width {width}")


def _scaled(model: Transformer, parameters: int, assumed: str) -> Network:
    """``model`` with blocks of such a size that all is ``parameters``."""
    network = model.network()
    rest = parameters - network.embedding.size - network.head.size
    if rest < model.layers:
        raise ValueError(
            f"A size must be enough for blocks beside a vocabulary of {model.vocabulary} tokens, got {parameters}: "
            "describe the network with Transformer(...)."
        )
    each, more = divmod(rest, model.layers)
    blocks = tuple(_block_of(each + (index < more), model.width) for index in range(model.layers))
    return replace(network, name="model", blocks=blocks, assumed=assumed, scaled=True)


def _block_of(parameters: int, width: int) -> Unit:
    """A matrix whose rows are shared evenly by up to 64 ranks, and a rest."""
    rows = parameters // (EVEN * width) * EVEN
    shapes = [(rows, width), (parameters - rows * width,)]
    return Unit(tuple(Weight(shape, cut=0) for shape in shapes if shape[0]))
