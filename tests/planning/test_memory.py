"""What stays on a rank, against tensors counted in real fits; peaks against every allocation of a step."""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed._tools.mem_tracker import MemTracker
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.optim import AdamW
from torch.utils.checkpoint import checkpoint

from lightning_llmopt.planning import NAMED, Job, Layout, Transformer, memory
from lightning_llmopt.selftest._models import MODELS
from lightning_llmopt.strategies import PRESETS
from lightning_llmopt.strategies.zero_config import Run, completed, default_config

import counted
from decoders import gpt2, llama, tokens_of
from doubles import deepspeed_is_here
from ranks import on_ranks

PAGE = Path(__file__).parents[2] / "docs/plan.md"
needs_deepspeed = pytest.mark.skipif(
    not deepspeed_is_here(), reason="deepspeed is not installed: pip install 'lightning-llmopt[deepspeed]'"
)
FLAGS = {"fp32": "32-true", "bf16": "bf16-mixed"}
FAST = {
    *((name, model) for name in ("ddp", "fsdp", "fsdp2", "zero1", "zero2") for model in MODELS),
    *((name, "TransformerEncoder") for name in ("tp", "fsdp2, cpu_offload", "zero3", "zero2_offload")),
    ("hybrid", "GPT"),
}


def places(*, models=(*MODELS,)):
    """Every preset with every model; those that take longest are `distributed`."""
    cells = [(name, model) for name in counted.PLACES for model in models]
    cells += [(name, "Llama") for name in ("tp", "fsdp2_tp")] if models == (*MODELS,) else []
    for name, model in cells:
        marks = [*([needs_deepspeed] if "zero" in name else [])]
        yield pytest.param(name, model, marks=[*marks, *([] if (name, model) in FAST else [pytest.mark.distributed])])


@pytest.fixture(scope="module")
def found():
    """Counted bytes of rank 0, each fit once."""
    return cache(counted.shared)


@pytest.mark.parametrize(("name", "model"), [*places()])
@pytest.mark.parametrize("precision", counted.PRECISIONS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_rank_0_holds_to_the_byte_what_the_plan_says(found, name, model, precision, accumulate):
    if model == "Llama":
        pytest.importorskip("transformers")
    layout = counted.PLACES[name].layout
    expected = counted.by_kind(counted.planned(layout, model, precision, accumulate), layout)
    given = found(name, model)[precision, accumulate]
    if (name, model, precision, accumulate) == ("zero2_offload", "TransformerEncoder", "fp32", 2):
        most = 4 * 3 * 20 * 20  # the head is registered before the blocks, and one parameter lies on both ranks
        assert given["gradients"] == pytest.approx(expected.pop("gradients"), abs=most)
        given = {kind: size for kind, size in given.items() if kind != "gradients"}
    assert given == expected


@pytest.mark.parametrize("name", counted.ALONE)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_one_process_holds_to_the_byte_what_the_plan_says(name, accumulate):
    layout = Layout("single")
    planned = counted.planned(layout, "GPT", name, accumulate)
    assert counted.alone(name, "GPT", accumulate) == counted.by_kind(planned, layout)


@pytest.fixture(scope="module")
def _cpu_adam():
    """Let DeepSpeed build its C++ optimizer once (two minutes), outside the time limit of a test."""
    make = "DeepSpeedCPUAdam(torch.nn.Linear(1, 1).parameters())"
    code = f"import torch; from deepspeed.ops.adam import DeepSpeedCPUAdam; {make}"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where ninja is
    built = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=900, env={**os.environ, "PATH": path}, check=False
    )
    if built.returncode:
        pytest.skip("DeepSpeed's CPUAdam cannot be built here: it needs a C++ compiler and ninja")


@needs_deepspeed
@pytest.mark.distributed
@pytest.mark.usefixtures("_cpu_adam")
@pytest.mark.parametrize("name", ["zero2_offload", "zero3_offload"])
def test_with_deepspeeds_own_optimizer_on_the_host_it_is_the_same(monkeypatch, name):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    layout = counted.PLACES[name].layout
    for (precision, accumulate), found in counted.shared(name, "GPT", ("fp32", "bf16"), on_host=True).items():
        assert found == counted.by_kind(counted.planned(layout, "GPT", precision, accumulate), layout)


def test_every_preset_but_fp8_is_counted():
    assert {place.preset for place in counted.PLACES.values()} | set(counted.ALONE) | {"fp8"} == set(PRESETS)


@pytest.mark.parametrize(("name", "model"), [*places(models=("GPT",))])
def test_the_table_of_the_page_is_what_was_counted(found, name, model):
    """``TABLE=1`` writes it."""
    row = counted.row(name, found(name, model)["bf16", 2])
    text = PAGE.read_text()
    if os.environ.get("TABLE"):
        text = re.sub(rf"^\| `{re.escape(name)}` \|.*$", row, text, flags=re.MULTILINE)
        PAGE.write_text(text)
    assert row in text.splitlines()


SHAPES = {
    "GPT-2": (gpt2, {"layers": 6, "width": 128, "heads": 4, "vocabulary": 1000, "positions": 256}),
    "Llama": (llama, {"layers": 6, "width": 128, "heads": 8, "vocabulary": 1000, "kv_heads": 2, "ffn": 352}),
}
LLAMA = {"tied": False, "gated": True, "bias": False, "norm": "rms_eager", "fused_qkv": False}
NTH = {"none": 0, "every_block": 1, "sqrt": 2}


def described(name):
    return Transformer(**SHAPES[name][1], **(LLAMA if name == "Llama" else {})).network()


def built(name, nth):
    make, shape = SHAPES[name]
    model = make(**shape)

    def play(blocks, x):
        for index, block in enumerate(blocks):
            x = checkpoint(block, x, use_reentrant=False) if nth and index % nth == 0 else block(x)
        return x

    model.play = play
    return model


def tracked_peak(tracker, model, optimizer, tokens):
    """Most bytes at one time of the second update."""
    with tracker:
        for first in (True, False):
            model(tokens).backward()
            optimizer.step()
            optimizer.zero_grad()
            if first:
                tracker.reset_mod_stats()
    return next(iter(tracker.get_tracker_snapshot("peak").values()))["Total"]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("mode", NTH)
@pytest.mark.parametrize(("tokens", "optimizer"), [((4, 256), "adamw"), ((1, 16), "adamw"), ((1, 16), "adamw_fused")])
def test_the_peak_of_an_update_is_the_one_that_torchs_tracker_finds(name, mode, tokens, optimizer):
    batch, sequence = tokens
    model, data = built(name, NTH[mode]), tokens_of(batch=batch, sequence=sequence, vocabulary=1000)
    fused = {"foreach": True} if optimizer == "adamw" else {"fused": True}
    adamw, tracker = AdamW(model.parameters(), **fused), MemTracker()
    tracker.track_external(model, adamw, data)
    found = tracked_peak(tracker, model, adamw, data)
    job = Job(described(name), sequence=sequence, micro_batch=batch, optimizer=optimizer, precision="fp32")
    assert memory(job, Layout("single"), checkpointing=mode).peak == pytest.approx(found, rel=0.05)


def sharded_peaks(rank, name):
    distributed.init_process_group("gloo")
    found = {}
    for precision, policy in (("fp32", {}), ("bf16", {"param_dtype": torch.bfloat16, "reduce_dtype": torch.float32})):
        for mode in ("none", "every_block"):
            model, data = built(name, NTH[mode]), tokens_of(batch=4, sequence=256, vocabulary=1000)
            for module in [*model.blocks, model]:
                fully_shard(module, mp_policy=MixedPrecisionPolicy(**policy))
            adamw = AdamW(model.parameters(), fused=True)
            tracker = FSDPMemTracker(model, adamw)
            tracker.track_inputs((data,))
            found[precision, mode] = tracked_peak(tracker, model, adamw, data)
    distributed.destroy_process_group()
    return found


@pytest.mark.parametrize("name", SHAPES)
def test_the_peak_under_fsdp2_is_the_one_that_torchs_tracker_finds(name):
    for (precision, mode), found in on_ranks(2, sharded_peaks, name)[0].items():
        job = Job(described(name), sequence=256, micro_batch=4, optimizer="adamw_fused", precision=precision)
        planned = memory(job, Layout("fsdp2", data=2), checkpointing=mode).peak
        assert planned == pytest.approx(found, rel=0.05), (precision, mode)


def test_ddp_has_buckets_as_large_as_the_gradients_through_the_step_too():
    job = Job(described("GPT-2"), sequence=1, optimizer="adamw", precision="fp32")
    alone, found = memory(job, Layout("single")), memory(job, Layout("ddp", data=2))
    assert found.communication == found.gradients
    assert found.peak == alone.persistent + 2 * found.gradients  # the buckets, and what a foreach step makes


def test_the_first_stage_of_a_pipeline_keeps_a_micro_batch_for_each_stage():
    job = Job(described("GPT-2"), sequence=64, accumulate=8, precision="fp32")
    whole, first = memory(job, Layout("single")), memory(job, Layout("ddp", pipeline=6))
    last_norm = 64 * (2 * 4 * 128 + 8)
    assert first.activations == whole.activations - last_norm  # a block of 6, 6 micro-batches
    assert first.parameters == 4 * (described("GPT-2").blocks[0].size + described("GPT-2").embedding.size)


def test_tensor_parallel_ranks_have_a_part_of_each_matrix_of_a_block_and_the_rest_whole():
    job = Job(described("Llama"), precision="fp32")
    parts = memory(job, Layout("ddp", tensor=2)).parameters
    rest = 4 * (128 * (2 * 6 + 1) + 2 * 1000 * 128)  # norms, and both tables
    assert parts == rest + (memory(job, Layout("single")).parameters - rest) // 2


def test_the_last_stage_of_a_pipeline_keeps_one_micro_batch():
    network = Transformer(layers=6, width=64, heads=4, vocabulary=20_000, tied=False).network()
    job = Job(network, sequence=64, accumulate=8, precision="fp32")
    whole, last = memory(job, Layout("single")).activations, memory(job, Layout("ddp", pipeline=3))
    assert last.logits  # it is the last that needs most
    last_norm = 64 * (2 * 4 * 64 + 8)
    assert last.activations == (whole - last_norm) // 3 + last_norm


def test_tensor_parallelism_that_splits_no_head_evenly_is_refused():
    with pytest.raises(
        ValueError, match=r"tensor must divide the attention heads \(4\), got 3: use one of 1, 2, 4, or"
    ):
        memory(Job(described("GPT-2")), Layout("ddp", tensor=3))


def test_more_stages_than_blocks_are_refused():
    with pytest.raises(
        ValueError, match=r"pipeline must be 1 to the number of blocks \(6\), got 9: use 6 stages or fewer, or"
    ):
        memory(Job(described("GPT-2")), Layout("ddp", pipeline=9))


@pytest.mark.parametrize(("strategy", "stage"), [("zero1", 1), ("zero2", 2), ("zero3", 3)])
@pytest.mark.parametrize("name", ["llama-2-7b", "gpt2"])
@pytest.mark.parametrize("precision", FLAGS)
def test_buckets_of_zero_are_as_large_as_our_configuration_sets_them(strategy, stage, name, precision):
    network = NAMED[name].network()
    run = Run(micro_batch=1, accumulate=1, processes=8, clip=0, precision=FLAGS[precision], width=network.widths.width)
    size = completed(default_config(stage=stage), run)["zero_optimization"]["reduce_bucket_size"]
    number = 4 if precision == "fp32" else 2
    staged = 4 * size if stage == 3 else 2 * number * size + (4 * size if number == 2 else 0)  # sent in fp32
    gathered = number * min(network.size, 10**9) if stage == 3 else 0  # stage3_max_live_parameters
    assert memory(Job(network, precision=precision), Layout(strategy, data=8)).communication == staged + gathered


def real_buckets(rank, name):
    from curves import arguments

    found = {}
    for precision in FLAGS:
        given = arguments(name, "GPT", precision=precision, config={})
        found[precision] = counted.fit("GPT", rank=rank, ranks=2, **given).buckets
    return found


@needs_deepspeed
@pytest.mark.parametrize("name", [pytest.param("zero1", marks=pytest.mark.distributed), "zero2", "zero3"])
def test_buckets_of_zero_are_those_of_a_real_fit(name):
    for precision, found in on_ranks(2, real_buckets, name)[0].items():
        planned = counted.planned(Layout(name, data=2), "GPT", precision, 1).communication
        number = 4 if precision == "fp32" else 2
        more = number * counted.SIZES["GPT"] if name == "zero3" else 4 * 5_000_000 if number == 2 else 0
        assert planned == found + more  # what ZeRO-3 gathers; the copy in which the others send
