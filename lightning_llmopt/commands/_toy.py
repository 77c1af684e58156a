"""The script that ``llmopt init`` writes: a toy model and its data, so that a new run runs at once."""

BATCH, LENGTH = 8, 64  # sequences of a batch, tokens of a sequence
SCRIPT = '''\
"""A toy language model and toy data, to be replaced by yours.

Run it:            python train.py fit --config {config}
Change a setting:  python train.py fit --config {config} --trainer.max_steps 1000
"""

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from torch.utils.data import DataLoader, TensorDataset

from lightning_llmopt.configs import LLMOptCLI  # LightningCLI with our names, and refusals in sentences

TOKENS = 64


class Block(nn.Module):
    """Attention and a network of two layers, each beside a stream that is added to."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        parts = self.query_key_value(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        query, key, value = (part.transpose(1, 2) for part in parts)
        seen = scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class Model(LightningModule):
    """A small decoder. Yours goes here: any LightningModule will do."""

    def __init__(self, lr: float = 1e-3, width: int = 64, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.lr = lr
        self.embedding = nn.Embedding(TOKENS, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, TOKENS)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        (tokens,) = batch
        loss = cross_entropy(self(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The base rate alone: what becomes of it is in the YAML file."""
        return torch.optim.AdamW(self.parameters(), lr=self.lr, betas=(0.9, 0.95), weight_decay=0.1)


class Data(LightningDataModule):
    """Sequences that count: each has a first token and a stride of its own. Yours goes here."""

    def __init__(self, batch_size: int = {batch}, length: int = {length}) -> None:
        super().__init__()
        self.batch_size, self.length = batch_size, length

    def train_dataloader(self) -> DataLoader:
        first, stride = torch.arange(TOKENS).repeat(7), torch.arange(1, 8).repeat_interleave(TOKENS)
        tokens = (first[:, None] + stride[:, None] * torch.arange(self.length)) % TOKENS
        return DataLoader(TensorDataset(tokens), batch_size=self.batch_size, shuffle=True)


if __name__ == "__main__":
    LLMOptCLI(Model, Data)
'''
