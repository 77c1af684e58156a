"""Presets are plain dicts that a real Trainer takes."""

import pytest
import torch

from lightning_llmopt.callbacks import GradientNormClip, GradientNormMonitor, LRSchedule
from lightning_llmopt.schedules import wsd
from lightning_llmopt.strategies import preset

from fitting import Regression, loader, trainer
from ranks import on_ranks


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_a_trainer_takes_it(tmp_path, name):
    class Probe(Regression):
        def training_step(self, batch, batch_idx):
            product = self.body(batch[0])
            assert product.dtype == (torch.bfloat16 if name == "bf16" else torch.float32)
            return super().training_step(batch, batch_idx)

    module = Probe()
    trainer(tmp_path, max_steps=2, **preset(name)).fit(module, loader())
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


def test_it_is_yours_to_change():
    preset("ddp")["precision"] = "x"
    assert preset("ddp") == {"strategy": "ddp", "precision": "bf16-mixed"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_ddp_trains_on_two_processes(tmp_path, precision):
    def fit(rank):
        module = Regression()
        callbacks = [LRSchedule(wsd(warmup=2)), GradientNormClip(1.0), GradientNormMonitor()]
        run = trainer(tmp_path, *callbacks, max_steps=4, **{"devices": 2, **preset("ddp", precision=precision)})
        run.fit(module, loader())
        return type(run.strategy).__name__, run.precision, [p.detach().tolist() for p in module.parameters()]

    first, second = on_ranks(2, fit)
    assert first == second
    assert first[:2] == ("DDPStrategy", {"fp32": "32-true", "bf16": "bf16-mixed"}[precision])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "fdsp"}, r"preset must be one of \['fp32', 'bf16', 'ddp'\], got 'fdsp'"),
        ({"name": "ddp", "precision": "fp64"}, r"precision must be one of \['fp32', 'bf16'\], got 'fp64'"),
        ({"name": "fp32", "precision": "bf16"}, r"contradict each other: use preset\('bf16'\), or leave precision out"),
    ],
)
def test_refuses_bad_values_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        preset(**arguments)
