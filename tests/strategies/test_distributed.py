"""Presets really train: the same course of the loss as one process, and checkpoints that open again."""

import logging
import math
import os
import subprocess
import sys
from functools import cache

import pytest
import torch

from lightning_llmopt.callbacks import SkipBadSteps

from curves import SMALL_BUCKETS, UPDATES, Encoder, arguments, curve, losses, mean
from doubles import deepspeed_is_here
from ranks import on_ranks

FP32 = 1e-5  # relative, over 20 updates
BF16 = {"GPT": 1e-3, "Encoder": 1e-2, "Llama": 1e-3}  # measured: 5e-4, 3e-3 (ZeRO casts LayerNorm too), 5e-4
needs_deepspeed = pytest.mark.skipif(
    not deepspeed_is_here(), reason="deepspeed is not installed: pip install 'lightning-llmopt[deepspeed]'"
)
FAST = [
    ("ddp", 2, "GPT", "fp32", 4),
    ("fsdp", 2, "Encoder", "fp32", 1),
    ("fsdp2", 2, "GPT", "fp32", 4),
    ("fsdp2", 2, "Encoder", "bf16", 1),
    ("hybrid", 4, "Encoder", "fp32", 1),
    ("tp", 2, "GPT", "fp32", 1),
    ("zero2", 2, "GPT", "fp32", 4),
]
RANKS = {
    "ddp": (2, 4), "fsdp": (2, 4), "fsdp2": (2, 4), "hybrid": (4,), "tp": (2,), "fsdp2_tp": (4,),
    "zero1": (2, 4), "zero2": (2, 4), "zero3": (2, 4), "zero2_offload": (2,), "zero3_offload": (2,),
}  # fmt: skip
WHOLE = [
    (name, ranks, module, precision, accumulate)
    for name, several in RANKS.items()
    for ranks in several
    for module in ("GPT", "Encoder")
    for precision, accumulate in (("fp32", 1), ("fp32", 4), ("bf16", 1), ("bf16", 4))
] + [(name, ranks, "Llama", "fp32", 1) for name, ranks in (("fsdp2", 4), ("tp", 2), ("fsdp2_tp", 4), ("zero3", 2))]


def cells(rows, *marks):
    return [
        pytest.param(*row, marks=[*marks, *([needs_deepspeed] if "zero" in row[0] else [])], id="-".join(map(str, row)))
        for row in rows
    ]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same run in one process that holds everything, in fp32."""
    folder = tmp_path_factory.mktemp("alone")
    return cache(lambda module, accumulate=1, clip=True, same=False: losses(
        folder, module, accumulate=accumulate, clip=clip, same=same
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("name", "ranks", "module", "precision", "accumulate"),
    [*cells(FAST), *cells([row for row in WHOLE if row not in FAST], pytest.mark.distributed)],
)
def test_the_loss_takes_the_course_of_one_process(tmp_path, alone, name, ranks, module, precision, accumulate):
    if module == "Llama":
        pytest.importorskip("transformers")
    found = curve(tmp_path, name, module, ranks=ranks, precision=precision, accumulate=accumulate)
    expected = alone(module, accumulate, "offload" not in name)
    assert len(found) == UPDATES * accumulate
    assert expected[-1] < 0.9 * expected[0]
    assert found == pytest.approx(expected, rel=FP32 if precision == "fp32" else BF16[module], abs=0)


class OneBadBatch(Encoder):
    """The loss of the eighth batch is not a number, for those who see the first part of it."""

    def __init__(self, sees_it):
        super().__init__()
        self.sees_it = sees_it

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * math.nan if self.sees_it and batch_idx == 7 else loss


def losses_around_a_bad_batch(folder, name=None, *, rank=0, ranks=1, accumulate=1):
    """Losses of this rank, and how many updates it has skipped."""
    logging.disable(logging.WARNING)
    same_data, skips = 2 if name == "tp" else 1, SkipBadSteps()
    given = arguments(name, "Encoder") if name else {}
    torch.manual_seed(1)
    module = OneBadBatch(sees_it=rank // same_data == 0)
    found = losses(folder, module, rank=rank, ranks=ranks, same_data=same_data, accumulate=accumulate, more=[skips],
                   updates=16 // accumulate, **given)  # fmt: skip
    return found, skips.skipped


@pytest.mark.parametrize(
    ("name", "accumulate"),
    [
        pytest.param(
            name, accumulate, id=f"{name}-{accumulate}",
            marks=[
                *([needs_deepspeed] if "zero" in name else []),
                *([] if (name, accumulate) == ("fsdp2", 4) else [pytest.mark.distributed]),
            ],
        )
        for name in ("ddp", "fsdp", "fsdp2", "hybrid", "tp", "zero1", "zero2", "zero3")
        for accumulate in (1, 4)
    ],
)  # fmt: skip
def test_an_update_that_is_bad_on_one_rank_is_skipped_on_all(tmp_path, name, accumulate):
    """With clipping, monitor and schedule attached, as in all other runs here."""

    def on_rank(rank):
        return losses_around_a_bad_batch(tmp_path, name, rank=rank, ranks=2, accumulate=accumulate)

    (first, *skipped), (second, *there) = on_ranks(2, on_rank)
    expected, *alone = losses_around_a_bad_batch(tmp_path, accumulate=accumulate)
    assert skipped == there == alone == [1]
    assert len(expected) == 16
    assert [index for index, loss in enumerate(expected) if math.isnan(loss)] == [7]
    assert [index for index, loss in enumerate(first) if math.isnan(loss)] == [7]
    del first[7], second[7], expected[7]
    assert mean([first, second]) == pytest.approx(expected, rel=FP32, abs=0)


FULL, SHARDED = {"checkpoint": "full"}, {"checkpoint": "sharded"}
ONE, DDP2, DDP4 = ("fp32", 1, {}), ("ddp", 2, {}), ("ddp", 4, {})
FSDP_2, HYBRID_4, TP_2 = ("fsdp", 2, {}), ("hybrid", 4, {}), ("tp", 2, {})
ROUTES = {
    "ddp": (DDP2, DDP2),
    "fsdp2 sharded": (("fsdp2", 2, SHARDED), ("fsdp2", 2, SHARDED)),
    "fsdp2 full": (("fsdp2", 2, FULL), ("fsdp2", 2, FULL)),
    "fsdp2 to one process to 4": (("fsdp2", 2, {}), ("fsdp2", 1, {}), ("fsdp2", 4, {})),
    "ddp to one process to 4": (DDP2, ("ddp", 1, {}), DDP4),
    "ddp to fsdp2 to one process": (DDP2, ("fsdp2", 2, FULL), ONE),
    "one process to fsdp2 to ddp": (ONE, ("fsdp2", 4, FULL), DDP2),
    "fsdp": (FSDP_2, FSDP_2),
    "ddp to fsdp": (DDP2, FSDP_2),
    "hybrid": (HYBRID_4, HYBRID_4),
    "tp": (TP_2, TP_2),
    "tp to one process": (("tp", 2, FULL), ONE),
    "fsdp2_tp": (("fsdp2_tp", 4, {}), ("fsdp2_tp", 4, {})),
    "zero1": (("zero1", 2, {}), ("zero1", 2, {})),
    "zero2": (("zero2", 2, {}), ("zero2", 2, {})),
    "zero3": (("zero3", 2, {}), ("zero3", 2, {})),
    "zero2_offload": (("zero2_offload", 2, {}), ("zero2_offload", 2, {})),
    "zero3_offload": (("zero3_offload", 2, {}), ("zero3_offload", 2, {})),
}
FAST_ROUTES = ("ddp to fsdp2 to one process",)


def routes():
    for name in ROUTES:
        marks = [] if name in FAST_ROUTES else [pytest.mark.distributed]
        yield pytest.param(name, marks=[*marks, *([needs_deepspeed] if "zero" in name else [])])


@pytest.mark.parametrize("route", [*routes()])
@pytest.mark.parametrize("module", ["GPT", pytest.param("Encoder", marks=pytest.mark.distributed)])
def test_a_run_goes_on_from_its_checkpoint(tmp_path, alone, route, module):
    """In as many legs as the route has; GPT's groups are in another order than its parameters."""
    legs, found, path = ROUTES[route], [], None
    for number, (name, ranks, options) in enumerate(legs, start=1):
        until, save = UPDATES * number // len(legs), tmp_path / f"{number}.ckpt"
        settings = {"updates": until, "ckpt": path, "save": save, "same": True}
        if name == "fp32":
            found += losses(tmp_path, module, **settings)
        else:
            found += curve(tmp_path, name, module, ranks=ranks, options=options, **settings)
        path = save
    expected = alone(module, 1, "offload" not in route, True)
    assert found == pytest.approx(expected, rel=FP32, abs=0)


@needs_deepspeed
@pytest.mark.parametrize("stage", [pytest.param("zero1", marks=pytest.mark.distributed), "zero2"])
def test_zero_says_how_to_change_the_number_of_processes(tmp_path, stage):
    path = tmp_path / "two.ckpt"
    curve(tmp_path, stage, "Encoder", ranks=2, updates=2, save=path)
    with pytest.raises(AssertionError) as caught:
        curve(tmp_path, stage, "Encoder", ranks=1, updates=4, ckpt=path)
    text = str(caught.value)
    assert "two.ckpt was written by 2 processes and this run has 1, which ZeRO cannot resume: start 2" in text
    assert "python -m deepspeed.checkpoint.ds_to_universal" in text
    assert "NEW/checkpoint --inject_missing_state) and resume from NEW with config={'checkpoint': {'load" in text


@needs_deepspeed
@pytest.mark.distributed
def test_zero_goes_on_with_another_number_of_processes_by_that_route(tmp_path, alone):
    half = UPDATES // 2
    curve(tmp_path, "zero2", "Encoder", ranks=2, updates=half, save=tmp_path / "two.ckpt", same=True)
    folders = ["--input_folder", tmp_path / "two.ckpt/checkpoint", "--output_folder", tmp_path / "new/checkpoint"]
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", *folders, "--inject_missing_state"]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "DS_ACCELERATOR": "cpu"})
    options = {"config": {"zero_optimization": SMALL_BUCKETS, "checkpoint": {"load_universal": True}}}
    found = curve(tmp_path, "zero2", "Encoder", ranks=1, ckpt=tmp_path / "new", same=True, options=options)
    assert found == pytest.approx(alone("Encoder", 1, True, True)[half:], rel=FP32, abs=0)
