"""GPT-2 and Llama as people write them, at toy size, and what their forward keeps, counted."""

from contextlib import nullcontext
from functools import cache

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.functional import cross_entropy, gelu, scaled_dot_product_attention, silu
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class GPT2Attention(nn.Module):
    def __init__(self, width, heads, eager):
        super().__init__()
        self.heads, self.eager = heads, eager
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, y):
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(y).chunk(3, dim=-1))
        if self.eager:
            mask = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).triu(1)
            scores = (q @ k.transpose(-2, -1)).div_(q.shape[-1] ** 0.5).masked_fill_(mask, float("-inf"))
            mixed = scores.softmax(-1) @ v
        else:
            mixed = scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class GPT2Block(nn.Module):
    def __init__(self, width, heads, eager):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = GPT2Attention(width, heads, eager)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.down(gelu(self.up(self.ln_2(x)), approximate="tanh"))


class RMSNorm(nn.Module):
    """Written out as in Hugging Face's Llama."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)


class LlamaAttention(nn.Module):
    def __init__(self, width, heads, kv_heads):
        super().__init__()
        self.heads, self.kv_heads, size = heads, kv_heads, width // heads
        self.q, self.k, self.v, self.o = (
            nn.Linear(width, rows, bias=False) for rows in (width, kv_heads * size, kv_heads * size, width)
        )

    def forward(self, y):
        q, k, v = (
            linear(y).unflatten(-1, (heads, -1)).transpose(1, 2)
            for linear, heads in ((self.q, self.heads), (self.k, self.kv_heads), (self.v, self.kv_heads))
        )
        q, k = rotated(q), rotated(k)
        mixed = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o(mixed.transpose(1, 2).flatten(2))


class LlamaBlock(nn.Module):
    def __init__(self, width, heads, kv_heads, ffn):
        super().__init__()
        self.norm_1, self.norm_2 = RMSNorm(width), RMSNorm(width)
        self.attn = LlamaAttention(width, heads, kv_heads)
        self.gate, self.up = (nn.Linear(width, ffn, bias=False) for _ in range(2))
        self.down = nn.Linear(ffn, width, bias=False)

    def forward(self, x):
        x = x + self.attn(self.norm_1(x))
        y = self.norm_2(x)
        return x + self.down(silu(self.gate(y)) * self.up(y))


def rotated(x):
    """Rotary positions."""
    half = x.shape[-1] // 2
    cos, sin = tables(x.shape[2], half, x.dtype)
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


@cache
def tables(sequence, half, dtype):
    """Cosine and sine, one for all layers."""
    angles = torch.arange(sequence).outer(10_000 ** (-torch.arange(half) / half)).repeat(1, 2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


class Decoder(nn.Module):
    """Embedding, blocks, norm, output; ``forward`` gives the loss of the next token."""

    def __init__(self, blocks, norm, *, vocabulary, positions=0, tied=False):
        super().__init__()
        width = norm.weight.numel()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(positions, width) if positions else None
        self.blocks, self.norm = nn.ModuleList(blocks), norm
        self.head = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.head.weight = self.token.weight
        self.play = lambda blocks, x: run(blocks, x)

    def forward(self, tokens):
        x = self.token(tokens[:, :-1])
        if self.position is not None:
            x = x + self.position(torch.arange(x.shape[1], device=x.device))
        scores = self.head(self.norm(self.play(self.blocks, x)))
        return cross_entropy(scores.flatten(0, 1).float(), tokens[:, 1:].flatten())


def run(blocks, x):
    for block in blocks:
        x = block(x)
    return x


def gpt2(*, layers=4, width=64, heads=4, vocabulary=96, positions=64, eager=False):
    blocks = [GPT2Block(width, heads, eager) for _ in range(layers)]
    return Decoder(blocks, nn.LayerNorm(width), vocabulary=vocabulary, positions=positions, tied=True)


def llama(*, layers=4, width=64, heads=8, kv_heads=2, ffn=172, vocabulary=96):
    blocks = [LlamaBlock(width, heads, kv_heads, ffn) for _ in range(layers)]
    return Decoder(blocks, RMSNorm(width), vocabulary=vocabulary)


def tokens_of(*, batch=2, sequence=64, vocabulary=96):
    return torch.randint(vocabulary, (batch, sequence + 1), generator=torch.Generator().manual_seed(0))


class Alive(TorchDispatchMode):
    """Remembers every storage that an operation returned; ``bytes`` are those that something still holds."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.seen[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        return result

    def bytes(self, *, but=()):
        known = {tensor.untyped_storage()._cdata for tensor in but}
        return sum(size for key, (ref, size) in self.seen.items() if key not in known and not ref.expired())


def kept(model, tokens, *, autocast=False):
    """Bytes that are alive after the forward besides parameters and tokens: what backward waits for."""
    alive = Alive()
    context = torch.autocast("cpu", torch.bfloat16, cache_enabled=False) if autocast else nullcontext()
    with alive, context:
        loss = model(tokens)
    assert loss.requires_grad
    return alive.bytes(but=[*model.parameters(), tokens, loss])


def hooked(model, tokens):
    """Bytes of the distinct storages that saved-tensor hooks see, parameters and tokens left out."""
    known = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), tokens)}
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            found[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(tokens)
    assert loss.requires_grad
    return sum(storage.nbytes() for storage in found.values())
