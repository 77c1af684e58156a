"""Modules that nobody here wrote, unchanged."""

import lightning as L
import pytest
import torch
from lightning.pytorch.demos import LightningTransformer
from lightning.pytorch.demos.boring_classes import BoringModel, DemoModel, ManualOptimBoringModel
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2LMHeadModel

from lightning_llmopt.callbacks import GradientNormClip, GradientNormMonitor, LRSchedule
from lightning_llmopt.schedules import wsd
from lightning_llmopt.strategies import preset

from fitting import MemoryLogger, Watch, trainer

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


@pytest.mark.parametrize("module", [BoringModel, ManualOptimBoringModel, DemoModel])
def test_lightnings_demos_train_as_they_are(tmp_path, module):
    watch, logger = Watch(), MemoryLogger()
    callbacks = [LRSchedule(RECIPE, replace_schedulers=True), GradientNormClip(1.0), GradientNormMonitor(), watch]
    demo = module()
    run = trainer(tmp_path, *callbacks, logger=logger, log_every_n_steps=1, max_epochs=1, limit_train_batches=10)
    run.fit(demo, *([] if module is not DemoModel else [DataLoader(torch.randn(10, 32), batch_size=1)]))
    schedule = RECIPE.resolve(total_steps=10)
    base = run.optimizers[0].param_groups[0]["initial_lr"]
    assert watch.first == [base * schedule(step) for step in range(10)]
    assert len(logger.points["grad_norm/total"]) == 10


def test_lightnings_transformer_trains_as_it_is(tmp_path):
    class WikiText(torch.utils.data.Dataset):
        def __len__(self):
            return 5

        def __getitem__(self, index):
            generator = torch.Generator().manual_seed(index)
            text = torch.randint(50, (9,), generator=generator)
            return text[:-1], text[1:]

    watch = Watch()
    module = LightningTransformer(vocab_size=50)
    module.prepare_data = lambda: None  # as shipped it downloads WikiText-2
    run = trainer(tmp_path, LRSchedule(RECIPE), GradientNormClip(0.1), GradientNormMonitor(), watch, max_epochs=1)
    run.fit(module, DataLoader(WikiText()))
    schedule = RECIPE.resolve(total_steps=5)
    assert watch.first == pytest.approx([0.1 * schedule(step) for step in range(5)])
