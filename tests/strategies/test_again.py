"""The same Trainer and the same module again, in any order: the numbers of one process that does the same."""

import logging
import warnings

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from curves import Encoder, arguments, batches, mean
from doubles import deepspeed_is_here
from fitting import trainer
from ranks import on_ranks

needs_deepspeed = pytest.mark.skipif(
    not deepspeed_is_here(), reason="deepspeed is not installed: pip install 'lightning-llmopt[deepspeed]'"
)
ROUTES = ("fit fit", "validate predict fit test fit predict")


class Steps(Encoder):
    """Notes the loss of every batch, whatever it is for."""

    def __init__(self, optimizer=torch.optim.AdamW, rate=3e-3):
        super().__init__(optimizer=lambda parameters, lr: optimizer(parameters, lr=rate))
        self.losses = []

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.losses.append(float(loss))
        return loss

    validation_step = test_step = predict_step = training_step


def run(folder, route, *, rank=0, ranks=1, same_data=1, accumulate=2, **settings):
    """Losses of all batches, on the way along ``route``; fits of two updates."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.manual_seed(1)
    module, updates, part = Steps(), 0, (rank // same_data, ranks // same_data)
    one = trainer(folder, devices=ranks, accumulate_grad_batches=accumulate, use_distributed_sampler=False,
                  max_steps=0, **settings)  # fmt: skip
    for step in route.split():
        if step == "fit":
            updates += 2
            one.fit_loop.epoch_loop.max_steps = updates
            one.fit(module, batches(*part))
            assert one.global_step == updates
        elif step == "predict":
            one.predict(module, batches(*part, count=2), return_predictions=False)
        else:
            getattr(one, step)(module, batches(*part, count=2), verbose=False)
    return module.losses


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("ddp", marks=pytest.mark.distributed), "fsdp", "fsdp2",
        pytest.param("hybrid", marks=pytest.mark.distributed), pytest.param("tp", marks=pytest.mark.distributed),
        pytest.param("zero1", marks=[pytest.mark.distributed, needs_deepspeed]),
        pytest.param("zero2_offload", marks=[pytest.mark.distributed, needs_deepspeed]),
        pytest.param("zero3_offload", marks=[pytest.mark.distributed, needs_deepspeed]),
        pytest.param("zero2", marks=needs_deepspeed), pytest.param("zero3", marks=needs_deepspeed),
    ],
)  # fmt: skip
def test_fits_and_evaluations_follow_each_other(tmp_path, name, route):
    def on_rank(rank):
        same_data = 2 if name == "tp" else 1
        return run(tmp_path, route, rank=rank, ranks=2, same_data=same_data, **arguments(name, "Encoder"))

    expected = run(tmp_path, route)
    assert mean(on_ranks(2, on_rank)) == pytest.approx(expected, rel=1e-5, abs=0)


class StopAt(L.Callback):
    """Ends a fit after some batches, wherever that is in an accumulation window."""

    def __init__(self, batches):
        self.batches = batches

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if len(pl_module.losses) == self.batches:
            trainer.should_stop = True


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fsdp2", {}), ("fsdp2", {"defer_sync": False}), ("fsdp2", {"precision": "bf16"}), ("fsdp", {}),
        pytest.param("fsdp", {"precision": "bf16", "defer_sync": True}, marks=pytest.mark.distributed),
        pytest.param("fsdp", {"sharding": "SHARD_GRAD_OP"}, marks=pytest.mark.distributed),
        pytest.param("ddp", {}, marks=pytest.mark.distributed),
        pytest.param("zero2", {}, marks=[pytest.mark.distributed, needs_deepspeed]),
        pytest.param("zero3", {}, marks=[pytest.mark.distributed, needs_deepspeed]),
    ],
)  # fmt: skip
def test_gradients_of_a_window_that_was_cut_do_not_enter_the_next_fit(tmp_path, name, options):
    """Stopped after the fifth of eight batches, with windows of four; SGD, so that a gradient twice as long counts."""

    def on_rank(rank=0, ranks=1, **settings):
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        module = Steps(torch.optim.SGD, rate=0.5)
        one = trainer(tmp_path, StopAt(5), devices=ranks, max_steps=10, max_epochs=1, accumulate_grad_batches=4,
                      use_distributed_sampler=False, **settings)  # fmt: skip
        one.fit(module, batches(rank, ranks, count=8))
        assert one.global_step == 1
        one.fit_loop.max_epochs = 3
        one.fit(module, batches(rank, ranks, count=8))
        return module.losses

    expected = on_rank()
    found = mean(on_ranks(2, lambda rank: on_rank(rank, 2, **arguments(name, "Encoder", **options))))
    relative = 1e-2 if options.get("precision") == "bf16" else 1e-5
    assert expected[-1] < 0.9 * expected[0]
    assert found == pytest.approx(expected, rel=relative, abs=0)


@pytest.mark.parametrize("name", ["fsdp", "fsdp2"])
def test_a_checkpoint_that_is_opened_after_an_evaluation_counts(tmp_path, name):
    """Units that an evaluation gathered held what was before the checkpoint."""

    def on_rank(rank, *, first, ckpt=None, save=None):
        torch.manual_seed(1 if save else 2)
        warnings.simplefilter("ignore")
        module, settings = Steps(), arguments(name, "Encoder", precision="bf16")
        one = trainer(tmp_path, devices=2, max_steps=2 if save else 4, use_distributed_sampler=False, **settings)
        if first:
            one.validate(module, batches(rank, 2, count=1), verbose=False)
        one.fit(module, batches(rank, 2, count=4, same=True), ckpt_path=ckpt)
        if save:
            one.save_checkpoint(save)
        return module.losses[-2:]

    path = tmp_path / "two.ckpt"
    on_ranks(2, lambda rank: on_rank(rank, first=False, save=path))
    at_once = on_ranks(2, lambda rank: on_rank(rank, first=False, ckpt=path))
    assert on_ranks(2, lambda rank: on_rank(rank, first=True, ckpt=path)) == at_once


def test_under_fsdp1_another_trainer_is_refused_with_both_ways_out(tmp_path):
    def attempt(rank):
        warnings.simplefilter("ignore")
        module = Steps()
        trainer(tmp_path, max_steps=1, **arguments("fsdp", "Encoder")).fit(module, batches())
        with pytest.raises(MisconfigurationException) as caught:
            trainer(tmp_path, max_steps=1, **arguments("fsdp", "Encoder")).fit(module, batches())
        return str(caught.value)

    assert on_ranks(1, attempt) == [
        "Steps was wrapped by FSDP1 in another Trainer, and what holds its units together is there: use the same "
        "Trainer again, or a new module and ckpt_path=... of a checkpoint."
    ]


@pytest.mark.parametrize(
    "name", ["fsdp2", pytest.param("zero2", marks=needs_deepspeed), pytest.param("zero3", marks=needs_deepspeed)]
)
def test_another_trainer_goes_on_with_the_module(tmp_path, name):
    def on_rank(rank=0, ranks=1, name=None):
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        module = Steps()
        for _ in range(2):
            settings = arguments(name, "Encoder") if name else {}
            one = trainer(tmp_path, devices=ranks, max_steps=2, use_distributed_sampler=False, **settings)
            one.fit(module, batches(rank, ranks))
        return module.losses

    assert mean(on_ranks(2, lambda rank: on_rank(rank, 2, name))) == pytest.approx(on_rank(), rel=1e-5, abs=0)
