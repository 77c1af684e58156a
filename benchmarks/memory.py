"""``python -m benchmarks.memory``: peaks of whole updates on a GPU beside the plan, which may err by 10 %."""

import sys
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lightning_llmopt.planning import Job, Layout, memory
from lightning_llmopt.planning.reading import network_of
from lightning_llmopt.strategies.checkpointing import apply_checkpointing

GOAL = 0.10
UPDATES = 3
MODES = ("none", "selective", "attention", "every_block")
CASES = [  # layers, width, heads, vocabulary, micro-batch, sequence
    (12, 768, 12, 50257, 4, 1024),
    (24, 1024, 16, 50257, 1, 256),
    (8, 2048, 16, 32000, 2, 2048),
]


class Attention(nn.Module):
    """Flash attention where the device has it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Causal, of all heads."""
        q, k, v = (one.unflatten(-1, (self.heads, -1)).transpose(1, 2) for one in self.qkv(y).chunk(3, -1))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A pre-norm block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attention and a feed-forward part, each added to ``x``."""
        x = x + self.attention(self.norm_1(x))
        return x + self.down(nn.functional.gelu(self.up(self.norm_2(x))))


class Decoder(nn.Module):
    """Embedding, blocks, norm and output; gives the loss of the next token."""

    def __init__(self, layers: int, width: int, heads: int, vocabulary: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Mean cross entropy of ``tokens``, shape ``(batch, sequence + 1)``."""
        x = self.token(tokens[:, :-1])
        for block in self.blocks:
            x = block(x)
        return cross_entropy(self.head(self.norm(x)).flatten(0, 1).float(), tokens[:, 1:].flatten())


def made(
    layers: int, width: int, heads: int, vocabulary: int, tokens: tuple[int, int], *, mode: str, device: str = "cuda"
) -> tuple[Decoder, torch.Tensor]:
    """A network with its way of checkpointing, and a batch."""
    model = Decoder(layers, width, heads, vocabulary).to(device)
    apply_checkpointing(model, mode)
    return model, torch.randint(vocabulary, tokens, device=device)


def rows() -> Iterator[tuple[str, int, int]]:
    """What was run, its measured and its planned peak [bytes]."""
    for layers, width, heads, vocabulary, batch, sequence in CASES:
        for precision in ("fp32", "bf16"):
            for mode in MODES:
                for optimizer in ("adamw", "adamw_fused"):
                    model, data = made(layers, width, heads, vocabulary, (batch, sequence + 1), mode=mode)
                    found = _peak(model, data, bf16=precision == "bf16", fused=optimizer == "adamw_fused")
                    job = Job(network_of(model), sequence, batch, optimizer=optimizer, precision=precision)
                    name = f"{layers} x {width}, {batch} x {sequence} tokens, {precision}, {mode}, {optimizer}"
                    yield name, found, memory(job, Layout("single"), checkpointing=mode).peak


def _peak(model: nn.Module, data: torch.Tensor, *, bf16: bool, fused: bool) -> int:
    """Most bytes that tensors took at one time from the second update on, workspaces of cuBLAS included."""
    adamw = torch.optim.AdamW(model.parameters(), fused=fused or None, foreach=None if fused else True)
    for update in range(UPDATES):
        if update == 1:
            torch.cuda.reset_peak_memory_stats()
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            loss = model(data)
        loss.backward()
        adamw.step()
        adamw.zero_grad()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def main() -> int:
    """1 if a peak is missed by more than the goal."""
    if not torch.cuda.is_available():
        print("Skipped: torch sees no GPU here, and peaks of a GPU's allocator are what this measures.")
        return 0
    missed = False
    for name, found, planned in rows():
        missed |= (far := abs(planned / found - 1) > GOAL)
        verdict = f"{planned / found - 1:+.1%}{'  MISSED' if far else ''}"
        print(f"{name}: measured {found / 1e9:.2f} GB, planned {planned / 1e9:.2f} GB, {verdict}", flush=True)
        torch.cuda.empty_cache()
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
