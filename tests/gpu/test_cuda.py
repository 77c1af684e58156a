"""The same promises on a CUDA device: exact numbers, and not one host read between logging steps."""

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from lightning_llmopt.callbacks import GradientNormClip, GradientNormMonitor, LRSchedule
from lightning_llmopt.gradients import GradientReading, tensor_norms
from lightning_llmopt.schedules import wsd
from lightning_llmopt.strategies import bf16_is_fast, preset

from fitting import MemoryLogger, Norms, Regression, Watch, loader, trainer, weights

pytestmark = pytest.mark.gpu
RECIPE = wsd(warmup=2, decay="40%")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_norms_agree_with_fp64(dtype):
    tensors = [torch.randn(size, device="cuda").to(dtype) for size in (7, 4097, 38_597_376)]
    exact = torch.stack([tensor.double().norm() for tensor in tensors])
    torch.testing.assert_close(tensor_norms(tensors).double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("fused", [False, True])
def test_rates_norms_and_clipping_are_those_of_the_cpu(tmp_path, precision, fused):
    logger, watch, norms = MemoryLogger(), Watch(), Norms()
    settings = {"precision": "16-mixed"} if precision == "fp16" else preset(precision)
    run = trainer(
        tmp_path, watch, norms, LRSchedule(RECIPE), GradientNormClip(0.5), GradientNormMonitor(), logger=logger,
        log_every_n_steps=1, max_steps=8, accelerator="cuda", **settings,
    )  # fmt: skip
    run.fit(Regression(torch.optim.AdamW, fused=fused), loader())
    schedule = RECIPE.resolve(total_steps=8)
    if precision != "fp16":  # the first updates of fp16 overflow and do not count
        assert watch.first == [0.1 * schedule(step) for step in range(8)]
        assert list(logger.points["grad_norm/total"].values()) == pytest.approx(norms.first, rel=1e-5)
    finite = [norm for norm in logger.points["grad_norm/clipped"].values() if norm < 1e9]
    assert finite
    assert max(finite) <= 0.5 * (1 + 1e-5)


@pytest.mark.parametrize("fused", [False, True])
def test_skipped_fp16_updates_do_not_count(tmp_path, fused):
    schedule = LRSchedule(RECIPE)
    run = trainer(tmp_path, schedule, max_steps=12, accelerator="cuda", precision="16-mixed")
    module = Regression(torch.optim.AdamW, fused=fused)
    run.fit(module, loader(12))
    applied = {int(state["step"]) for state in run.optimizers[0].state.values()}
    assert schedule.state_dict()["updates"] == [applied.pop()]


class Forbid(Callback):
    """Makes every synchronisation with the device an error while the given batches run."""

    def __init__(self, batches):
        self.batches = batches

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        torch.cuda.set_sync_debug_mode("error" if batch_idx in self.batches else "default")

    def on_train_end(self, trainer, pl_module):
        torch.cuda.set_sync_debug_mode("default")


def test_nothing_waits_for_the_device_between_logging_steps(tmp_path):
    data = [tuple(part.cuda() for part in batch) for batch in loader(10)]
    callbacks = [LRSchedule(RECIPE), GradientNormClip(0.5), GradientNormMonitor(), Forbid(range(5, 9))]
    run = trainer(tmp_path, *callbacks, logger=MemoryLogger(), log_every_n_steps=10, max_epochs=1, accelerator="cuda")
    try:
        run.fit(Regression(torch.optim.AdamW, fused=True), torch.utils.data.DataLoader(data, batch_size=None))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert run.global_step == 10


def test_clipping_is_torchs_clipping():
    ours, theirs = ([torch.nn.Parameter(torch.zeros(1000, device="cuda")) for _ in range(3)] for _ in range(2))
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        a.grad = torch.randn(1000, device="cuda", generator=torch.Generator("cuda").manual_seed(index))
        b.grad = a.grad.clone()
    GradientReading(ours).clip_(ours, max_norm=0.5)
    torch.nn.utils.clip_grad_norm_(theirs, 0.5)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=0)


def test_bf16_is_fast_where_there_are_tensor_cores():
    expected = torch.cuda.get_device_capability() >= (8, 0)
    assert bf16_is_fast("cuda", size=4096) is expected


def test_training_on_the_device_ends_at_finite_weights(tmp_path):
    module = Regression(torch.optim.AdamW, fused=True)
    run = trainer(
        tmp_path, LRSchedule(RECIPE), GradientNormClip(0.5), max_steps=8, accelerator="cuda", **preset("bf16")
    )
    run.fit(module, loader())
    assert torch.isfinite(weights(module)).all()
