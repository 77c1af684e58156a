"""Modules that nobody here wrote, unchanged; `make test-ecosystem` has the others."""

import lightning as L
import pytest
import pytorch_lightning
import torch
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2LMHeadModel

from lightning_llmopt.callbacks import GradientNormClip, GradientNormMonitor, LRSchedule
from lightning_llmopt.schedules import wsd
from lightning_llmopt.strategies import preset

from cases.demos import CASES as DEMOS
from cases.plain import plain
from checks import leaves_out_a_bad_update, refuses_a_second_writer, trains_as_told
from fitting import MemoryLogger, Watch, trainer
from shipped import Case
from zoo_transformers import TRANSFORMERS

RECIPE = wsd(warmup="20%", decay="20%", shape="sqrt")


class GPT2(L.LightningModule):
    """Hugging Face's GPT-2 from a config, in the plainest of modules; input and output embedding are tied."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=16, n_embd=32, n_layer=2, n_head=2))

    def training_step(self, batch, batch_idx):
        return self.model(input_ids=batch, labels=batch).loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def tokens(batches=10):
    generator = torch.Generator().manual_seed(0)
    return DataLoader(torch.randint(64, (batches * 4, 16), generator=generator), batch_size=4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_gpt2_follows_the_schedule_and_logs_the_norm_torch_computes(tmp_path, precision, accumulate):
    class Note(L.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            norms.append(torch.nn.utils.get_total_norm([p.grad for p in pl_module.parameters()]).item())

    norms, logger, watch = [], MemoryLogger(), Watch()
    run = trainer(
        tmp_path, Note(), watch, LRSchedule(RECIPE), GradientNormClip(0.5), GradientNormMonitor(), logger=logger,
        log_every_n_steps=1, max_epochs=2, accumulate_grad_batches=accumulate, **preset(precision),
    )  # fmt: skip
    run.fit(GPT2(), tokens())
    updates = 20 // accumulate
    schedule = RECIPE.resolve(total_steps=updates)
    assert watch.first == [1e-2 * schedule(step) for step in range(updates)]
    assert list(logger.points["grad_norm/total"].values()) == pytest.approx(norms, rel=1e-5)
    assert max(logger.points["grad_norm/clipped"].values()) == pytest.approx(0.5, rel=1e-5)


NAMES = {"GPT-2, tied", "Mixtral", "ViT", "BoringModel", "ManualOptimBoringModel", "DemoModel", "LightningTransformer"}
SOME = [case for case in [*DEMOS, *map(plain, TRANSFORMERS)] if case.name in NAMES]
every_case = pytest.mark.parametrize("case", SOME, ids=str)
theirs = pytest.mark.filterwarnings("ignore")  # deprecations, missing kernels, hints


@every_case
@theirs
def test_rates_norms_clipping_and_groups_are_what_they_should_be(case, tmp_path):
    trains_as_told(case, tmp_path)


@every_case
@theirs
def test_an_update_with_a_nan_is_left_out_and_the_schedule_waits(case, tmp_path):
    leaves_out_a_bad_update(case, tmp_path)


@pytest.mark.parametrize("case", [case for case in SOME if case.scheduler], ids=str)
@theirs
def test_a_scheduler_of_its_own_is_refused_with_the_way_out(case, tmp_path):
    refuses_a_second_writer(case, tmp_path)


class Elsewhere(pytorch_lightning.LightningModule):
    """A module of the other distribution; the same code under another name, which `isinstance` does not know."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).pow(2).mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2, weight_decay=0.1)


def fit_elsewhere(folder, callbacks, logger):
    data = DataLoader(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)))
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "devices": 1}
    run = pytorch_lightning.Trainer(
        default_root_dir=folder, logger=logger, callbacks=callbacks, max_epochs=1, log_every_n_steps=1, **quiet
    )  # with its own ModelCheckpoint
    run.fit(Elsewhere(), data)
    names = [type(callback).__name__ for callback in run.callbacks]
    assert names.index("ModelCheckpoint") == len(names) - 1  # once, and last: it saves what all others have done


@pytest.mark.filterwarnings("ignore:SkipBadSteps", "ignore:LRSchedule. the run ended after 5 updates")
@pytest.mark.parametrize("check", [trains_as_told, leaves_out_a_bad_update])
def test_a_trainer_of_pytorch_lightning_is_served_too(check, tmp_path):
    check(Case("a module", "pytorch-lightning", fit_elsewhere), tmp_path)


def test_accumulation_and_timers_of_pytorch_lightning_are_seen(tmp_path):
    """The length of the run comes from both: 12 batches in windows of 1, then 2."""
    watch, windows = Watch(), pytorch_lightning.callbacks.GradientAccumulationScheduler({0: 1, 1: 2})
    run = pytorch_lightning.Trainer(
        default_root_dir=tmp_path, logger=False, callbacks=[LRSchedule(RECIPE), windows, watch], max_epochs=2,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", devices=1,
    )  # fmt: skip
    run.fit(Elsewhere(), DataLoader(torch.randn(12, 4)))
    schedule = RECIPE.resolve(total_steps=18)
    assert watch.first == pytest.approx([1e-2 * schedule(step) for step in range(18)])
