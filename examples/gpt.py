"""A small GPT that reads and writes bytes: an ordinary LightningModule, nothing special in it."""

import math

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn

VOCABULARY = 256  # every byte is a token: no tokenizer, and any text will do
IGNORED = -100  # a target that is not scored, see torch.nn.functional.cross_entropy
FUSED_ON = ("cpu", "cuda", "mps", "xpu")  # device types with a one-kernel AdamW in torch

Batch = tuple[Tensor, Tensor]


class Attention(nn.Module):
    """Each byte looks back at those before it; distances are told by rotating queries and keys (RoPE)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.into = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        """Mix ``x``, shape ``(batch, time, width)``, along time."""
        batch, time, width = x.shape
        query, key, value = self.into(x).view(batch, time, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key = rotate(query, angles), rotate(key, angles)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, time, width))


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a two-layer network, each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, bias=False)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        """Shape ``(batch, time, width)`` in and out."""
        x = x + self.attention(self.norm1(x), angles)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(LightningModule):
    """Predicts the next byte of a text.

    Args:
        width: Size of the vector that stands for a byte; a multiple of ``2 * heads``.
        depth: Number of blocks.
        heads: Attention heads of a block.
        peak_rate: Learning rate of AdamW [1].
    """

    CONTEXT = 128  # how far it looks back [bytes]

    def __init__(self, *, width: int = 128, depth: int = 4, heads: int = 4, peak_rate: float = 4e-3) -> None:
        super().__init__()
        self.peak_rate = peak_rate
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, bias=False)
        self.angles: Tensor
        self.register_buffer("angles", rotary_angles(self.CONTEXT, width // heads), persistent=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:  # what a block adds to its input starts small: 2 additions a block
                small = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * depth) if small else 0.02)

    def forward(self, text: Tensor) -> Tensor:
        """Scores of the next byte at each place of ``text``, shape ``(batch, time)`` -> ``(batch, time, 256)``."""
        x = self.embedding(text)
        for block in self.blocks:
            x = block(x, self.angles[: text.shape[1]])
        return F.linear(self.norm(x), self.embedding.weight)  # tied: one table reads and writes bytes

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean loss of a batch [nats a byte]."""
        loss = self._loss(batch)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the mean loss over the scored bytes, in nats and in bits a byte."""
        loss = self._loss(batch)
        scored = int((batch[1] != IGNORED).sum())
        metrics = {"val/loss": loss, "val/bits_per_byte": loss / math.log(2)}
        self.log_dict(metrics, batch_size=scored, on_epoch=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW and nothing else: whoever trains the model decides on the learning rate's course."""
        fused = self.device.type in FUSED_ON
        return torch.optim.AdamW(self.parameters(), lr=self.peak_rate, betas=(0.9, 0.95), weight_decay=0.1, fused=fused)

    @torch.no_grad()
    def write(self, start: bytes, *, length: int, temperature: float = 0.8, seed: int = 0) -> bytes:
        """Go on with ``start`` for ``length`` bytes, each drawn at random by its probability."""
        generator = torch.Generator().manual_seed(seed)
        text = torch.tensor([list(start)], device=self.device)
        for _ in range(length):
            scores = self(text[:, -self.CONTEXT :])[0, -1].float().cpu()
            drawn = torch.multinomial(F.softmax(scores / temperature, dim=-1), 1, generator=generator)
            text = torch.cat((text, drawn.view(1, 1).to(self.device)), dim=1)
        return bytes(text[0, len(start) :].tolist())

    def _loss(self, batch: Batch) -> Tensor:
        text, following = batch
        return F.cross_entropy(self(text).flatten(0, 1).float(), following.flatten(), ignore_index=IGNORED)


def rotary_angles(context: int, head_width: int) -> Tensor:
    """Angle of each place and frequency, shape ``(context, head_width / 2)``.

    Source: Su et al. 2021 (RoFormer), https://arxiv.org/abs/2104.09864, section 3.2.
    """
    frequencies = 10_000.0 ** (-torch.arange(0, head_width, 2) / head_width)
    return torch.outer(torch.arange(context), frequencies)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn pairs of numbers in ``x``, shape ``(..., time, head_width)``, by the angles of their place."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
