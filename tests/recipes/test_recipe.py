"""Recipes attached to modules: callbacks and optimizers, through a real Trainer."""

import warnings

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_llmopt.callbacks import (
    GradientNormClip,
    GradientNormMonitor,
    LRSchedule,
    UseOptimizer,
    WeightDecaySplit,
)
from lightning_llmopt.optim import SplitOptimizer
from lightning_llmopt.recipes import _attached as attached
from lightning_llmopt.recipes import recipe, recipes
from lightning_llmopt.selftest._fits import Subject, quiet_trainer
from lightning_llmopt.selftest._fits import loader as tokens

from fitting import MemoryLogger, Regression, Watch, loader, trainer

INSTALLED = [found.name for found in recipes() if found["optimizer"].value.startswith("torch.")]


class Own(Regression):
    """Configures what a recipe says."""

    def __init__(self, found):
        super().__init__()
        self.recipe = found

    def configure_optimizers(self):
        return self.recipe.optimizer(self)


def blocks():
    return nn.Sequential(nn.Embedding(5, 4), *(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)) for _ in range(3)),
                         nn.Linear(4, 5))  # fmt: skip


def test_values_are_found_by_name_or_refused_with_those_there_are():
    found = recipe("llama2-7b")
    assert found["peak_lr"].value == found.value("peak_lr") == 3e-4
    assert "eps" in found
    assert found.value("precision", "none said") == "none said"
    with pytest.raises(KeyError, match=r"llama2-7b states no 'lr'. It states \['size', 'optimizer', 'peak_lr'"):
        found["lr"]


def test_the_optimizer_has_the_recipes_settings_in_two_groups():
    found = recipe("llama2-70b").optimizer(blocks())
    decay, rest = found.param_groups
    assert type(found) is torch.optim.AdamW
    for group in (decay, rest):
        assert (group["lr"], group["betas"], group["eps"]) == (1.5e-4, (0.9, 0.95), 1e-5)
    assert (decay["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)
    assert {one.ndim for one in decay["params"]} == {2}
    assert {one.ndim for one in rest["params"]} == {1}
    assert len(decay["params"]) + len(rest["params"]) == len(list(blocks().parameters()))


def test_frozen_parameters_are_left_out_and_nothing_to_train_is_refused():
    model = nn.Linear(4, 4)
    model.bias.requires_grad_(False)
    assert [group["name"] for group in recipe("olmo").optimizer(model).param_groups] == ["decay"]
    with pytest.raises(ValueError, match="Linear has no trainable parameter for olmo's optimizer"):
        recipe("olmo").optimizer(model.requires_grad_(False))


def test_kimi_trains_matrices_of_blocks_with_muon_and_the_rest_with_adamw():
    model = blocks()
    found = recipe("kimi-k2").optimizer(model)
    assert isinstance(found, SplitOptimizer)
    muon, adamw = found.parts
    assert {id(one) for group in muon.param_groups for one in group["params"]} == {
        id(model[at][0].weight) for at in (1, 2, 3)
    }
    assert muon.param_groups[0]["adjust_lr_fn"] == "match_rms_adamw"
    assert [(group["lr"], group["weight_decay"]) for group in adamw.param_groups] == [(2e-4, 0.1), (2e-4, 0.0)]


def test_a_package_that_is_missing_is_named_with_how_to_get_it(monkeypatch):
    monkeypatch.setattr(attached, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"small-gpu trains with torchao.optim.AdamW8bit: pip install torchao, or leave"
    ):
        recipe("small-gpu").optimizer(nn.Linear(2, 2))
    assert len(recipe("small-gpu").callbacks()) == 4


@pytest.mark.parametrize("name", INSTALLED)
def test_every_recipe_makes_its_optimizer_and_all_its_callbacks(name):
    found = recipe(name)
    made = found.callbacks(optimizer=True)
    assert [type(one) for one in made] == [
        UseOptimizer, WeightDecaySplit, LRSchedule, GradientNormClip, GradientNormMonitor,
    ]  # fmt: skip
    assert made[3].max_norm == found["max_norm"].value
    assert made[2].schedule == found.schedule()
    assert found.optimizer(blocks()).param_groups[0]["lr"] == found["peak_lr"].value


def test_parts_are_left_out_on_request():
    assert [type(one) for one in recipe("olmo").callbacks(schedule=False, clipping=False, groups=False)] == [
        GradientNormMonitor
    ]
    with pytest.raises(ValueError, match="clipping must be True or False, got 'no'"):
        recipe("olmo").callbacks(clipping="no")
    with pytest.raises(ValueError, match="must be True, got False for all"):
        recipe("olmo").callbacks(schedule=False, clipping=False, groups=False, monitor=False)


@pytest.mark.parametrize("how", ["module", "callback"])
def test_a_rescaled_recipe_trains(tmp_path, how):
    found = recipe("finetune")
    watch, logger = Watch(), MemoryLogger()
    made = found.callbacks(optimizer=how == "callback", show=False)
    module = Own(found) if how == "module" else Regression(rates=(0.1, 0.1))
    run = trainer(tmp_path, *made, watch, logger=logger, log_every_n_steps=1, max_steps=20)
    run.fit(module, loader())
    schedule = found.schedule().resolve(total_steps=20)
    assert watch.first == [1e-5 * schedule(step) for step in range(20)]
    assert sorted({group["weight_decay"] for group in run.optimizers[0].param_groups}) == [0.0, 0.01]
    assert type(run.optimizers[0]) is torch.optim.AdamW
    assert all(norm <= 1.0 + 1e-6 for norm in logger.points["grad_norm/clipped"].values())


def test_lengths_as_published_are_refused_where_they_do_not_fit(tmp_path):
    run = trainer(tmp_path, *recipe("llama2-7b").callbacks(), max_steps=100)
    with pytest.raises(MisconfigurationException, match=r"does not fit into the run: warmup 2000"):
        run.fit(Regression(), loader())
    rescaled = recipe("llama2-7b").rescaled(total="20B")
    run = trainer(tmp_path, *rescaled.callbacks(show=False), max_steps=10)
    run.fit(Regression(), loader())
    assert run.global_step == 10


def test_phases_in_updates_and_tokens_are_played_as_published(tmp_path):
    watch = Watch()
    made = recipe("deepseek-v3").callbacks(optimizer=True, total="14.8T tokens", show=False)
    run = quiet_trainer(tmp_path, [*made, watch], max_steps=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.fit(Subject("TransformerEncoder"), tokens())
    assert watch.first == pytest.approx([2.2e-4 * step / 2_000 for step in (1, 2, 3)])
