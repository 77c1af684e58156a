"""What a block keeps on a rank of real tensor parallelism, against the formula."""

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from lightning_llmopt.planning import Job, Layout, Transformer, memory

from decoders import llama, tokens_of
from ranks import on_ranks

SHAPE = {"layers": 6, "width": 64, "heads": 8, "vocabulary": 96, "kv_heads": 4, "ffn": 176}
PLAN = {
    **{f"attn.{name}": ColwiseParallel for name in "qkv"}, "attn.o": RowwiseParallel,
    "gate": ColwiseParallel, "up": ColwiseParallel, "down": RowwiseParallel,
}  # fmt: skip


def saved(rank, ranks):
    """Bytes that the backward pass of this rank waits for, and how many of its parameters it has."""
    distributed.init_process_group("gloo")
    mesh, model, known = init_device_mesh("cpu", (ranks,)), llama(**SHAPE), {}
    for block in model.blocks:
        parallelize_module(block, mesh, {name: style() for name, style in PLAN.items()})
        block.attn.heads, block.attn.kv_heads = block.attn.heads // ranks, block.attn.kv_heads // ranks
    tokens = tokens_of()
    own = {local(one).untyped_storage()._cdata for one in (*model.parameters(), tokens)}

    def pack(tensor):
        storage = local(tensor).untyped_storage()
        if storage._cdata not in own:
            known[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(tokens)
    distributed.destroy_process_group()
    return sum(one.nbytes() for one in known.values()), sum(local(one).numel() for one in model.parameters())


def local(tensor):
    return getattr(tensor, "_local_tensor", tensor)


@pytest.mark.parametrize("ranks", [1, 2, pytest.param(4, marks=pytest.mark.distributed)])
def test_a_rank_keeps_its_part_of_each_block_and_the_stream_whole(ranks):
    described = Transformer(**SHAPE, tied=False, gated=True, bias=False, norm="rms_eager", fused_qkv=False)
    job = Job(described.network(), sequence=64, micro_batch=2, precision="fp32")
    planned = memory(job, Layout("ddp", tensor=ranks))
    logits = 4 * 128 * 96
    for activations, parameters in on_ranks(ranks, saved, ranks):
        assert planned.activations + logits == pytest.approx(activations, rel=0.05)
        assert planned.parameters == 4 * parameters
