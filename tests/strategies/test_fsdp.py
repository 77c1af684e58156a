"""FSDP1 with a unit a block, on the double that lifts Lightning's guard for CUDA."""

import warnings

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from lightning_llmopt.strategies import FSDP1

from curves import Calls, Encoder, OnCPU1, demo, train
from fitting import Gan, loader, trainer
from ranks import on_ranks


def test_every_block_is_a_unit(tmp_path):
    def fit(rank):
        module = demo()
        train(tmp_path, module, rank=rank, ranks=2, updates=1, strategy=OnCPU1())
        units = FullyShardedDataParallel.fsdp_modules(module.trainer.strategy.model)
        return [type(unit.module).__name__ for unit in units]

    assert on_ranks(2, fit) == [["GPT", "Block", "Block", "Block", "Block"]] * 2


class Repeated(Encoder):
    """The same block several times, as in ALBERT."""

    def __init__(self):
        super().__init__()
        self.encoder.layers = nn.ModuleList([self.encoder.layers[0]] * 3)


def test_a_block_that_is_registered_several_times_trains(tmp_path):
    def fit(rank=0, ranks=1, **settings):
        return train(tmp_path, Repeated(), rank=rank, ranks=ranks, updates=3, **settings)[0]

    found = on_ranks(2, lambda rank: fit(rank, 2, strategy=OnCPU1()))
    assert [sum(pair) / 2 for pair in zip(*found, strict=True)] == pytest.approx(fit(), rel=1e-5, abs=0)


def test_parameters_without_a_dimension_are_refused_with_both_ways_out(tmp_path):
    def attempt(rank):
        module = demo()
        module.blocks[0].scale = nn.Parameter(torch.tensor(1.0))
        with pytest.raises(MisconfigurationException) as caught:
            train(tmp_path, module, updates=1, strategy=OnCPU1())
        return str(caught.value)

    (sentence,) = on_ranks(1, attempt)
    assert "takes parameters of one dimension or more, and blocks.0.scale of GPT have none: give them" in sentence
    assert sentence.endswith("or use preset('ddp').")


@pytest.mark.parametrize(
    ("defer", "precision", "sent"),
    [(None, "32-true", 1), (False, "32-true", 4), (None, "bf16-mixed", 4), (True, "bf16-mixed", 1)],
)
def test_gradients_wait_for_the_last_batch_where_sums_stay_exact(tmp_path, defer, precision, sent):
    """One update of four batches, five units."""

    def fit(rank):
        strategy = OnCPU1(defer_sync=defer)
        with Calls() as calls:
            train(tmp_path, "GPT", rank=rank, ranks=2, updates=1, accumulate=4, strategy=strategy, precision=precision)
        return calls.sent

    assert on_ranks(2, fit) == [[torch.float32] * 5 * sent] * 2


def test_bf16_computes_low_and_keeps_the_rest_fp32(tmp_path):
    def fit(rank):
        module, seen = demo(), {}
        module.blocks[0].register_forward_pre_hook(lambda part, given: seen.update(angles=given[1].dtype))
        module.blocks[0].up.register_forward_hook(lambda part, given, out: seen.update(inside=out.dtype))
        _, _, run = train(tmp_path, module, rank=rank, ranks=2, updates=1, precision="bf16-mixed", strategy=OnCPU1())
        config = run.strategy.mixed_precision_config
        return (
            seen["angles"],
            seen["inside"],
            config.reduce_dtype,
            config.buffer_dtype,
            {p.dtype for p in module.parameters()},
        )

    fp32 = torch.float32
    assert on_ranks(2, fit) == [(fp32, torch.bfloat16, fp32, fp32, {fp32})] * 2


def test_manual_optimization_is_refused_with_both_ways_out(tmp_path):
    def attempt(rank):
        warnings.simplefilter("ignore")
        run = trainer(tmp_path, strategy=OnCPU1(), devices=1, max_steps=1)
        with pytest.raises(MisconfigurationException) as caught:
            run.fit(Gan(), loader())
        return str(caught.value)

    assert on_ranks(1, attempt) == [
        "FSDP1 cannot run manual optimization: the backward pass would lie inside the forward pass of the wrapped "
        "module. Use preset('fsdp2'), or automatic optimization."
    ]


def test_without_the_double_the_cpu_is_refused_with_both_ways_out(tmp_path):
    def attempt(rank):
        run = trainer(tmp_path, strategy="llmopt_fsdp", devices=1, max_steps=1)
        with pytest.raises(
            MisconfigurationException, match=r"use accelerator='cuda', or preset\('fsdp2'\), which runs on"
        ):
            run.fit(Encoder(), loader())

    on_ranks(1, attempt)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sharding": "HALF"}, r"sharding must be one of \['FULL_SHARD', .*\], got 'HALF'"),
        ({"checkpoint": "half"}, "checkpoint must be 'sharded' or 'full', got 'half'"),
        (
            {"cpu_offload": True, "defer_sync": True},
            "cannot work together in FSDP1: .* Drop one of the two, or use FSDP2",
        ),
    ],
)
def test_refuses_bad_values_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        FSDP1(**settings)
