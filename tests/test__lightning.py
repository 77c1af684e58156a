"""The private names that we lean on are still there and still mean the same."""

import pytest
import pytorch_lightning
import torch
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from lightning_llmopt import _lightning

from fitting import Gan, MemoryLogger, Regression, loader, trainer, weights


class Probe(_lightning.Callback):
    def __init__(self, every):
        self.every, self.steps, self.due = every, [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.steps.append(_lightning.logger_step(trainer))
        self.due.append(_lightning.is_logging_step(trainer, self.every))


class Logs(Regression):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss)
        return loss


@pytest.mark.parametrize("accumulate", [1, 3])
def test_logging_steps_are_the_ones_at_which_self_log_writes(tmp_path, accumulate):
    logger, probe = MemoryLogger(), Probe(every=None)
    run = trainer(tmp_path, probe, logger=logger, log_every_n_steps=2, max_epochs=2, accumulate_grad_batches=accumulate)
    run.fit(Logs(), loader(8))
    due = {step for step, is_due in zip(probe.steps, probe.due, strict=True) if is_due}
    assert probe.steps == list(range(run.global_step))
    assert due == set(logger.points["loss"])


def test_a_batch_of_two_optimizers_is_one_logging_step(tmp_path):
    probe = Probe(every=1)
    trainer(tmp_path, probe, max_epochs=1).fit(Gan(), loader(3))
    assert probe.steps == [0, 0, 1, 1, 2, 2]


def test_zero_means_never(tmp_path):
    probe = Probe(every=None)
    trainer(tmp_path, probe, max_epochs=1, log_every_n_steps=0).fit(Regression(), loader(3))
    assert probe.due == [False] * 3


def test_there_is_no_loss_scaler_without_fp16(tmp_path):
    assert _lightning.loss_scaler(trainer(tmp_path)) is None


def test_batches_of_ours_train_as_the_loops_do(tmp_path):
    class Ours(_lightning.Callback):
        def on_train_start(self, trainer, pl_module):
            data = _lightning.same_loader_again(_lightning.training_loader(trainer))
            for at, (batch, _, _) in zip(range(4), iter(data), strict=False):
                self.last = _lightning.train_on_batch(trainer, batch, batch_idx=at, position=at % 2)
            raise _lightning.TunerExit

    ours, plain = Regression(), Regression()
    callback = Ours()
    trainer(tmp_path, callback, max_epochs=1, accumulate_grad_batches=2, limit_train_batches=4).fit(ours, loader(6))
    trainer(tmp_path, max_epochs=1, accumulate_grad_batches=2, limit_train_batches=4).fit(plain, loader(6))
    assert torch.equal(weights(ours), weights(plain))
    assert float(callback.last["loss"]) > 0


def test_a_tuner_exit_ends_a_fit_in_good_order(tmp_path):
    class Leaves(_lightning.Callback):
        def on_train_start(self, trainer, pl_module):
            raise _lightning.TunerExit

    run = trainer(tmp_path, Leaves(), max_epochs=1)
    run.fit(Regression(), loader(3))
    assert (run.global_step, run.state.status) == (0, "finished")


def test_there_is_no_loader_where_the_module_takes_batches_itself(tmp_path):
    class Takes(Regression):
        def training_step(self, dataloader_iter):
            return super().training_step(next(dataloader_iter)[0], 0)

    class Asks(_lightning.Callback):
        def on_train_start(self, trainer, pl_module):
            self.loader = _lightning.training_loader(trainer)

    asks = Asks()
    with pytest.warns(UserWarning, match="dataloader_iter"):
        trainer(tmp_path, asks, max_steps=1).fit(Takes(), loader(3))
    assert asks.loader is None


@pytest.mark.parametrize(
    ("strategy", "hooks"),
    [
        (DDPStrategy, ["_register_ddp_hooks"]),
        (DeepSpeedStrategy, ["_init_optimizers", "_format_config", "_auto_select_batch_size"]),
        (FSDPStrategy, ["_setup_model", "block_backward_sync"]),
        (ModelParallelStrategy, ["setup_environment", "model_to_device", "block_backward_sync"]),
    ],
)
def test_the_hooks_that_our_strategies_override_are_there(strategy, hooks):
    assert [hook for hook in hooks if not callable(getattr(strategy, hook, None))] == []


def test_a_hook_counts_as_overridden_for_a_moment():
    module = Regression()
    with _lightning.as_if_overridden(module, "configure_model"):
        assert _lightning.is_overridden("configure_model", module)
        assert module.configure_model() is None
    assert not _lightning.is_overridden("configure_model", module)
    with _lightning.as_if_overridden(module, "training_step"):
        assert "training_step" not in module.__dict__


class Elsewhere(pytorch_lightning.LightningModule):
    def configure_gradient_clipping(self, *args):
        """Its own."""


def test_classes_of_pytorch_lightning_are_the_same_under_another_name():
    clock = pytorch_lightning.callbacks.Timer("00:01:00:00")
    assert _lightning.is_a(clock, _lightning.Timer)
    assert _lightning.is_a(pytorch_lightning.callbacks.ModelCheckpoint(), _lightning.Checkpoint)
    assert not _lightning.is_a(clock, _lightning.Checkpoint)
    assert not _lightning.is_a(object(), _lightning.Timer)
    run = pytorch_lightning.Trainer(max_time="00:01:00:00", logger=False, accelerator="cpu", barebones=True)
    assert _lightning.time_limit(run) == 3_600_000_000
    assert _lightning.is_overridden("configure_gradient_clipping", Elsewhere())
    assert not _lightning.is_overridden("configure_model", Elsewhere())
