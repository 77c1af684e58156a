"""The training that the demo runs, small enough for a laptop: a byte-level GPT of 0.84 million parameters."""

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

WIDTH, LAYERS, HEADS, CONTEXT, BATCH, BYTES = 128, 4, 4, 128, 16, 256


class Block(nn.Module):
    """Attention and a two-layer network, each behind a norm and around a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention, self.project = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.network = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(batch, time, WIDTH)`` in and out."""
        heads = self.attention(self.norm1(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.project(mixed.transpose(1, 2).flatten(2))
        return x + self.network(self.norm2(x))


class DemoGPT(LightningModule):
    """Predicts the next byte; the head shares its weight with the embedding.

    Args:
        lambda_lr: Whether to bring a LambdaLR, as one does without LRSchedule.
        total_steps: Length of its curve [updates].
    """

    def __init__(self, *, lambda_lr: bool = False, total_steps: int = 1) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(BYTES, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks, self.norm = nn.Sequential(*(Block() for _ in range(LAYERS))), nn.LayerNorm(WIDTH)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self._lambda_lr, self._total_steps = lambda_lr, total_steps

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits, shape ``(batch, time, BYTES)``, of tokens of shape ``(batch, time)``."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        return self.norm(self.blocks(self.embedding(tokens) + self.position(positions))) @ self.embedding.weight.T

    def loss(self, tokens: Tensor) -> Tensor:
        """Mean cross-entropy of the next byte."""
        return functional.cross_entropy(self(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """One batch, its loss logged."""
        loss = self.loss(batch)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> object:
        """AdamW in two groups, only matrices decayed, the fused kernel."""
        decayed = [parameter for parameter in self.parameters() if parameter.ndim >= 2]
        rest = [parameter for parameter in self.parameters() if parameter.ndim < 2]
        groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=1e-3, fused=True)
        if not self._lambda_lr:
            return optimizer
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._multiplier)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _multiplier(self, step: int) -> float:
        """Warmup over 2 % of the run, then hold, then a fall over its last 20 %."""
        warmup, decay = max(1, self._total_steps // 50), max(1, self._total_steps // 5)
        return max(0.0, min(1.0, (step + 1) / warmup, (self._total_steps - step) / decay))


class RandomBytes(Dataset[Tensor]):
    """As many examples as asked for, all from one block of noise: reading them costs next to nothing."""

    def __init__(self, examples: int) -> None:
        self._examples = examples
        self._noise = torch.randint(BYTES, (64, CONTEXT + 1), generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return self._examples

    def __getitem__(self, index: int) -> Tensor:
        return self._noise[index % len(self._noise)]


def loader(steps: int) -> DataLoader[Tensor]:
    """Batches for ``steps`` steps."""
    return DataLoader(RandomBytes(steps * BATCH), batch_size=BATCH)
