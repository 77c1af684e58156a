"""Two small networks that hold what is hard: tied, frozen and unused parameters, and layers nobody here wrote."""

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

VOCABULARY, LENGTH, WIDTH = 23, 8, 20  # not powers of 2, so that shards are uneven


class Block(nn.Module):
    """One layer of ``GPT``."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Attention and a small network, each added to ``x``, shape ``(batch, length, WIDTH)``."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, 2, WIDTH // 2)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """Output tied to the embedding, positions frozen, one layer that no token passes through."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.unused = nn.Linear(WIDTH, 3)
        self.head.weight = self.token.weight
        self.position.weight.requires_grad_(False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores of the next token, shape ``(batch, length, VOCABULARY)``."""
        x = self.token(tokens) + self.position.weight
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Encoder(nn.Module):
    """``torch.nn.TransformerEncoder`` between an embedding and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 3 * WIDTH, dropout=0.0, batch_first=True)
        self.token, self.head = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores of a token, shape ``(batch, length, VOCABULARY)``."""
        return self.head(self.encoder(self.token(tokens)))


MODELS: dict[str, type[nn.Module]] = {"GPT": GPT, "TransformerEncoder": Encoder}
LAYERS = (Block, nn.TransformerEncoderLayer)


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The repeated layers of either model."""
    return [module for module in model.modules() if isinstance(module, LAYERS)]


def split_linear_layers(model: nn.Module, mesh: DeviceMesh) -> None:
    """Tensor parallelism for the two linear layers of each block; the rest stays whole on every rank."""
    for layer in layers_of(model):
        first, second = ("up", "down") if isinstance(layer, Block) else ("linear1", "linear2")
        parallelize_module(layer, mesh, {first: ColwiseParallel(), second: RowwiseParallel()})


def batches(rank: int = 0, ranks: int = 1) -> list[Tensor]:
    """What rank ``rank`` sees: its part of each of nine batches of 8, shape ``(8 / ranks, LENGTH + 1)``."""
    generator = torch.Generator().manual_seed(0)
    whole = [torch.randint(VOCABULARY, (8, LENGTH + 1), generator=generator) for _ in range(9)]
    return [batch[rank::ranks] for batch in whole]
