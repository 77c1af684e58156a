"""The source text's tables, its error, what a plan says, and whom it reads."""

import copy
import pickle
import subprocess
import sys
from types import SimpleNamespace

import pytest

from lightning_llmopt.planning import Layout, Transformer, plan

GB = 10**9
B70 = 70 * 10**9


@pytest.mark.parametrize(("strategy", "ranks"), [("ddp", 1), ("fsdp2", 8)])
def test_70_b_on_8_gpus_is_the_table_of_the_source_text(strategy, ranks):
    found = plan("70B", gpus=8, precision="bf16_master").memory(Layout(strategy, data=8))
    rows = {"parameters": 140, "gradients": 140, "state": 560, "master": 280, "persistent": 1120}
    expected = {name: gb * GB / ranks for name, gb in rows.items()}
    assert {name: getattr(found, name) for name in rows} == pytest.approx(expected, rel=1e-8)  # shards are rounded up


def test_the_source_text_errs_140_gb_do_not_fit_80():
    found = plan("70B", gpus=8, memory="80 GB", checkpointing="every_block")
    assert not found.fits
    assert "of which 140 are parameters, gradients and optimizer state alone" in found.advice
    assert plan("70B", gpus=32, memory="80 GB", checkpointing="every_block").fits


def test_a_plan_is_a_value():
    found = plan("70B", gpus=16, checkpointing=3)
    assert pickle.loads(pickle.dumps(found)) == copy.deepcopy(found) == plan("70B", gpus=16, checkpointing=3)
    assert str(pickle.loads(pickle.dumps(found))) == str(found)
    assert found.modes[-1] == 3


def test_without_a_module_the_room_needs_neither_torch_nor_rich():
    code = "import sys; from lightning_llmopt.planning import plan; str(plan('70B')); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"gpus": 0}, r"gpus must be a whole number >= 1, got 0\."),
        ({"gpus": True}, r"gpus must be a whole number >= 1, got True\."),
        ({"tensor": 3}, r"tensor \* pipeline must divide gpus \(8\), got 3 \* 1\."),
        (
            {"pipeline": 128, "gpus": 128},
            r"pipeline must be 1 to the number of blocks \(80\), got 128: use 80 stages or fewer, or split "
            r"blocks with tensor= instead\.",
        ),
        (
            {"tensor": 7, "gpus": 7},
            r"tensor must divide the attention heads \(64\), got 7: use one of 1, 2, 4, 8, or share the parameters "
            r"instead with strategy='fsdp2' and tensor=1\.",
        ),
        (
            {"tensor": 16, "gpus": 16},
            r"tensor must divide the key-value heads \(8\), got 16: use one of 1, 2, 4, 8, or",
        ),
        (
            {"model": Transformer(layers=2, width=64, heads=4, ffn=90, vocabulary=9), "tensor": 4},
            r"tensor must divide the feed-forward size \(90\), got 4: use one of 1, 2, or share",
        ),
        ({"model": 7.5}, r"model must be a number of parameters such as .*, got 7\.5; known names"),
        ({"memory": "80 gigs"}, r"memory must be a number of bytes >= 1, or a number with one of .*, got '80 gigs'\."),
        ({"activations": "x"}, r"activations must be a number of bytes"),
        ({"strategy": "zero4"}, r"strategy must be one of .*, got 'zero4'\."),
        (
            {"strategy": "hybrid", "gpus": 12},
            r"gpus must be a multiple of gpus_per_node \(8\) for strategy 'hybrid', got 12: change one of",
        ),
        (
            {"strategy": "hybrid", "gpus": 16, "tensor": 2},
            r"strategy 'hybrid' takes no tensor or pipeline parallelism, got tensor=2, pipeline=1: drop them, or use",
        ),
        ({"tensor_parallel_plan": {}}, r"tensor_parallel_plan names modules, and model is a str: give the module, or"),
        ({"strategy": "single", "tensor": 2}, r"strategy 'single' is one device, got tensor=2, pipeline=1\."),
        ({"checkpointing": "all"}, r"checkpointing must be one of .* or a whole number >= 1, got 'all'\."),
        ({"checkpointing": 0}, r"checkpointing must be one of .* or a whole number >= 1, got 0\."),
        ({"optimizer": "adam9"}, r"optimizer must be one of .*, got 'adam9'\."),
        ({"precision": "fp8"}, r"precision must be one of .*, got 'fp8'\."),
        ({"sequence": 0}, r"sequence must be a whole number >= 1, got 0\."),
        ({"micro_batch": 1.5}, r"micro_batch must be a whole number >= 1, got 1\.5\."),
        ({"optimizer": ["adamw"]}, r"optimizer must be one of .*, got \['adamw'\]\."),
        ({"strategy": ["ddp"]}, r"strategy must be one of .*, got \['ddp'\]\."),
        ({"precision": ["bf16"]}, r"precision must be one of .*, got \['bf16'\]\."),
        ({"checkpointing": ["none"]}, r"checkpointing must be one of .* or a whole number >= 1, got \['none'\]\."),
        (
            {"strategy": "zero3", "checkpointing": "selective"},
            r"checkpointing 'selective' keeps results of single operations, and under ZeRO-3 gathering parameters is "
            r"one of them: use 'attention' or 'every_block', or strategy='zero2'\.",
        ),
        ({"accumulate": -1}, r"accumulate must be a whole number >= 1, got -1\."),
        (
            {"model": "seventy"},
            r"model must be a number of parameters such as .*, got 'seventy'; known names are gpt2,",
        ),
        ({"model": "Llama-2-7B"}, r"known names are gpt2, .*, gpt3-175b; did you mean 'llama-2-7b'\?"),
        ({"model": 5}, r"A size must be enough for blocks beside a vocabulary of \d+ tokens, got 5"),
        (
            {"model": SimpleNamespace(hidden_size=8, vocab_size=9, num_experts=8)},
            r"SimpleNamespace has experts, which are not planned",
        ),
        ({"model": SimpleNamespace(hidden_size=8, vocab_size=9)}, r"A configuration needs one of num_hidden_layers, "),
    ],
)
def test_what_makes_no_sense_is_refused(settings, error):
    with pytest.raises(ValueError, match=error):
        plan(**{"model": "70B", **settings})


@pytest.mark.parametrize("size", ["7e9", "7_000_000_000", "7,000,000,000", 7e9, "7b", " 7 B "])
def test_a_size_may_be_written_as_numbers_are(size):
    assert plan(size).job.network.size == 7 * 10**9


@pytest.mark.parametrize("make", [lambda: Layout(["ddp"]), lambda: plan("gpt2", strategy={})])
def test_a_layout_wants_a_name(make):
    with pytest.raises(ValueError, match=r"strategy must be one of .*, got (\['ddp'\]|{})\."):
        make()
