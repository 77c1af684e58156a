"""DDP's options reach DDP, and clashes are refused."""

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_llmopt.strategies import DDP

from curves import curve, losses
from fitting import Regression, loader, trainer
from ranks import on_ranks


def test_options_reach_torch(tmp_path):
    class Looks(Regression):
        def on_before_optimizer_step(self, optimizer):
            wrapped = self.trainer.strategy.model
            views = all(parameter.grad._is_view() for parameter in self.parameters())
            self.seen = wrapped.bucket_bytes_cap, wrapped.static_graph, wrapped.gradient_as_bucket_view, views

    def fit(rank):
        module, strategy = Looks(), DDP(bucket_mb=1.5, static_graph=True)
        trainer(tmp_path, strategy=strategy, devices=2, max_steps=1).fit(module, loader())
        return module.seen

    assert on_ranks(2, fit) == [(int(1.5 * 2**20), True, True, True)] * 2


def test_gradients_sent_as_fp16_are_rounded_and_train(tmp_path):
    plain, found = (
        losses(tmp_path, "Encoder"),
        curve(tmp_path, "ddp", "Encoder", ranks=2, options={"compression": "fp16"}),
    )
    assert found == pytest.approx(plain, rel=5e-3)
    assert found != pytest.approx(plain, rel=1e-6)


def test_unused_parameters_train_where_they_are_looked_for(tmp_path):
    class Unused(Regression):
        def __init__(self):
            super().__init__()
            self.spare = torch.nn.Linear(2, 2)

    def fit(rank):
        run = trainer(tmp_path, strategy=DDP(find_unused_parameters=True), devices=2, max_steps=2)
        run.fit(Unused(), loader())
        return run.global_step

    assert on_ranks(2, fit) == [2, 2]


def test_a_static_graph_with_accumulation_is_refused_with_both_ways_out(tmp_path):
    def attempt(rank):
        run = trainer(tmp_path, strategy=DDP(static_graph=True), devices=1, max_steps=1, accumulate_grad_batches=4)
        words = "static_graph=True and accumulate_grad_batches=4 .* Drop static_graph, or accumulate_grad_batches"
        with pytest.raises(MisconfigurationException, match=words):
            run.fit(Regression(), loader())

    on_ranks(1, attempt)


def test_bf16_compression_needs_nccl(tmp_path):
    def attempt(rank):
        run = trainer(tmp_path, strategy=DDP(compression="bf16"), devices=1, max_steps=1)
        with pytest.raises(MisconfigurationException, match="is on the CPU: use compression='fp16', or None"):
            run.fit(Regression(), loader())

    on_ranks(1, attempt)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bucket_mb": 0}, "bucket_mb must be finite and > 0, got 0"),
        ({"bucket_mb": float("nan")}, "bucket_mb must be finite and > 0, got nan"),
        ({"bucket_mb": float("inf")}, "bucket_mb must be finite and > 0, got inf"),
        ({"compression": "int8"}, "compression must be None, 'bf16' or 'fp16', got 'int8'"),
        ({"static_graph": True, "find_unused_parameters": True}, "contradict each other: .* Drop one of the two"),
    ],
)
def test_refuses_bad_values_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        DDP(**settings)
