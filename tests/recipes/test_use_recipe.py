"""A whole recipe as one callback, through a real Trainer, from YAML, and after a resume."""

import copy
import pickle

import numpy
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningCLI
from torch.optim.lr_scheduler import ExponentialLR

from lightning_llmopt.callbacks import (
    GradientNormClip,
    GradientNormMonitor,
    LRSchedule,
    ParamGroups,
    UseOptimizer,
    WeightDecaySplit,
)
from lightning_llmopt.recipes import UseRecipe, recipe
from lightning_llmopt.schedules import cosine
from lightning_llmopt.selftest._fits import fit
from lightning_llmopt.selftest._places import PLACES

from fitting import Gan, MemoryLogger, Regression, Watch, loader, trainer, weights
from ranks import on_ranks

RESCALED = {"batch": "500k", "total": "10B"}


def run(tmp_path, *callbacks, module=None, ckpt_path=None, batches=8, **settings):
    module = Regression(rates=(0.1, 0.1)) if module is None else module
    made = trainer(tmp_path, *callbacks, **{"max_steps": 20, **settings})
    made.fit(module, loader(batches), ckpt_path=ckpt_path)
    return made, module


def test_trains_bit_for_bit_as_with_its_callbacks_in_the_list(tmp_path):
    found = recipe("llama2-7b").rescaled(**RESCALED)
    one, two = MemoryLogger(), MemoryLogger()
    _, alone = run(tmp_path, UseRecipe("llama2-7b", **RESCALED, show=False), logger=one, log_every_n_steps=1)
    _, listed = run(tmp_path, *found.callbacks(optimizer=True, show=False), logger=two, log_every_n_steps=1)
    assert torch.equal(weights(alone), weights(listed))
    assert one.points == two.points
    assert {"lr/AdamW/decay", "lr/AdamW/no_decay", "grad_norm/total", "schedule/phase"} <= one.points.keys()


def test_rates_are_the_recipes(tmp_path):
    watch, use = Watch(), UseRecipe("llama2-7b", **RESCALED, show=False)
    run(tmp_path, use, watch)
    schedule = cosine(warmup="0.4%", floor=0.1).resolve(total_steps=20)
    peak = use.recipe["peak_lr"].value
    assert peak == pytest.approx(3e-4 / 8**0.5, rel=1e-5)
    assert watch.first == [peak * schedule(step) for step in range(20)]


@pytest.mark.parametrize("first", [True, False])
def test_other_group_callbacks_act_with_it_wherever_they_stand(tmp_path, first):
    use, rules = UseRecipe("finetune", show=False), ParamGroups({"head": {"lr_scale": 0.5}}, show=False)
    done, _ = run(tmp_path, *([use, rules] if first else [rules, use]), max_steps=1)
    found = {(group["lr_scale"], group["weight_decay"]) for group in done.optimizers[0].param_groups}
    assert found == {(1.0, 0.01), (1.0, 0.0), (0.5, 0.01), (0.5, 0.0)}


BRINGS = {
    "schedule": lambda: LRSchedule(cosine()),
    "groups": lambda: WeightDecaySplit(),
    "clipping": lambda: GradientNormClip(1.0),
    "monitor": lambda: GradientNormMonitor(),
}


@pytest.mark.parametrize("word", BRINGS)
def test_what_it_brings_must_not_be_there_already(tmp_path, word):
    with pytest.raises(
        MisconfigurationException, match=rf"UseRecipe\('finetune'\) brings .*Say UseRecipe\(..., {word}=False\)"
    ):
        run(tmp_path, UseRecipe("finetune"), BRINGS[word](), max_steps=1)
    run(tmp_path, UseRecipe("finetune", show=False, **{word: False}), BRINGS[word](), max_steps=1)


@pytest.mark.parametrize("stop", [1, 3, 10, 19])
def test_a_resumed_run_ends_with_the_weights_of_one_that_was_never_stopped(tmp_path, stop):
    class Stops(Watch):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == stop:
                trainer.save_checkpoint(tmp_path / "stop.ckpt")
                trainer.should_stop = True

    def use():
        return UseRecipe("llama2-7b", **RESCALED, show=False)

    run(tmp_path, use(), Stops(), batches=1)
    _, again = run(tmp_path, use(), batches=1, ckpt_path=tmp_path / "stop.ckpt")
    watch = Watch()
    _, whole = run(tmp_path, use(), watch, batches=1)
    assert len(watch.first) == 20
    assert torch.equal(weights(again), weights(whole))
    saved = torch.load(tmp_path / "stop.ckpt", weights_only=True)["callbacks"]
    assert {"LRSchedule", "UseOptimizer"} <= saved.keys()


@pytest.mark.filterwarnings("ignore:LRSchedule. the configuration has changed")  # as it was asked to
def test_another_recipe_on_resume_is_refused_and_can_be_adopted(tmp_path):
    first, _ = run(tmp_path, UseRecipe("finetune", show=False), max_steps=20)
    first.save_checkpoint(tmp_path / "stop.ckpt")
    other = {"max_steps": 40, "ckpt_path": tmp_path / "stop.ckpt"}
    with pytest.raises(MisconfigurationException, match="checkpoint"):
        run(tmp_path, UseRecipe("pretraining", show=False), **other)
    watch = Watch()
    done, _ = run(tmp_path, UseRecipe("pretraining", show=False, on_change="adopt"), watch, **other)
    schedule = recipe("pretraining").schedule().resolve(total_steps=40)
    assert watch.first == [3e-4 * schedule(step) for step in range(20, 40)]
    assert {group["betas"] for group in done.optimizers[0].param_groups} == {(0.9, 0.95)}
    assert {group["weight_decay"] for group in done.optimizers[0].param_groups} == {0.1, 0.0}


@pytest.mark.filterwarnings("ignore:LRSchedule. the configuration has changed")  # the run has become longer
def test_two_fits_and_two_trainers_bring_each_callback_once(tmp_path):
    use = UseRecipe("finetune", show=False, on_change="adopt")
    made = trainer(tmp_path, use, max_epochs=1)
    made.fit(Regression(), loader())
    made.fit_loop.max_epochs = 2
    made.fit(Regression(), loader())
    kinds = [type(one).__name__ for one in made.callbacks]
    assert len(set(kinds)) == len(kinds) >= 6
    run(tmp_path, use, max_steps=2)


@pytest.mark.parametrize(
    "settings", [{"fast_dev_run": 2}, {"accumulate_grad_batches": 3, "max_epochs": 1, "max_steps": -1}]
)
def test_other_modes_of_the_trainer(tmp_path, settings):
    done, _ = run(tmp_path, UseRecipe("finetune", show=False), **settings)
    assert done.global_step > 0


def test_manual_optimization_with_several_optimizers(tmp_path):
    done, _ = run(tmp_path, UseRecipe("finetune", show=False), module=Gan(), max_steps=8)
    assert [type(one).__name__ for one in done.optimizers] == ["AdamW", "AdamW"]


def test_validation_alone_is_left_alone(tmp_path):
    use = UseRecipe("finetune")
    made = trainer(tmp_path, use)
    made.validate(Validated(), loader(), verbose=False)
    assert use.parts[0] not in made.callbacks


@pytest.mark.parametrize("name", ["DDP 2", "FSDP2 2", pytest.param("FSDP1 2", marks=pytest.mark.distributed)])
def test_weights_on_other_strategies_are_those_of_one_process(tmp_path, name):
    def further():
        return [UseRecipe("pretraining", clipping=False, monitor=False, show=False)]

    truth = fit(tmp_path, "TransformerEncoder", further=further()).weights

    def fits(rank):
        return fit(tmp_path, "TransformerEncoder", place=PLACES[name], rank=rank, further=further()).weights

    for got in on_ranks(2, fits):
        for key, expected in truth.items():
            if key.endswith("in_proj_bias"):
                continue  # a bias of keys has no gradient but rounding, of which Adam makes whole steps
            numpy.testing.assert_allclose(got[key], expected, rtol=1e-5, atol=1e-6, err_msg=key)


class Validated(Regression):
    def validation_step(self, batch, batch_idx):
        self.training_step(batch, batch_idx)


class Scheduled(Regression):
    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        return [optimizer], [ExponentialLR(optimizer, 0.5)]


def test_a_modules_scheduler_is_refused_or_replaced(tmp_path):
    with pytest.raises(MisconfigurationException, match="ExponentialLR was built on the optimizer that is replaced"):
        run(tmp_path, UseRecipe("finetune", show=False), module=Scheduled())
    done, _ = run(tmp_path, UseRecipe("finetune", show=False, replace_schedulers=True), module=Scheduled())
    assert done.global_step == 20


def test_pickles_and_copies(tmp_path):
    use = UseRecipe(recipe("llama2-7b").rescaled(total="10B"), show=False)
    for twin in (pickle.loads(pickle.dumps(use)), copy.deepcopy(use)):
        run(tmp_path, twin, max_steps=2)
        pickle.dumps(twin)
        assert twin.recipe == use.recipe


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "llama-7b"}, "Did you mean 'llama2-7b'"),
        ({"name": "finetune", "batch": "1M"}, "finetune states no batch"),
        ({"name": "finetune", "monitor": 1}, "monitor must be True or False"),
        ({"name": "finetune", "on_change": "keep!"}, "on_change must be one of"),
    ],
)
def test_wrong_arguments_are_refused_at_once(arguments, said):
    with pytest.raises(ValueError, match=said):
        UseRecipe(**arguments)


YAML = """
trainer:
  max_steps: 6
  accelerator: cpu
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: lightning_llmopt.recipes.UseRecipe
      init_args: {name: %s, %s}
    - class_path: fitting.Watch
"""


def from_yaml(tmp_path, monkeypatch, name, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(YAML % (name, arguments))
    monkeypatch.setattr("sys.argv", ["train.py", "--config", "run.yaml"])
    return LightningCLI(Regression, run=False, save_config_callback=None, seed_everything_default=0)


@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")  # Lightning's use of it
@pytest.mark.parametrize("batch", ["500k", "500000"])
def test_can_be_written_in_yaml(tmp_path, monkeypatch, batch):
    cli = from_yaml(tmp_path, monkeypatch, "llama2-7b", f"batch: {batch}, total: 10B tokens, monitor: false")
    cli.trainer.fit(Regression(rates=(0.1, 0.1)), loader())
    watch = next(one for one in cli.trainer.callbacks if isinstance(one, Watch))
    found = recipe("llama2-7b").rescaled(**RESCALED)
    schedule = found.schedule().resolve(total_steps=6)
    assert watch.first == [found["peak_lr"].value * schedule(step) for step in range(6)]
    assert not any(isinstance(one, GradientNormMonitor) for one in cli.trainer.callbacks)
    assert "name: llama2-7b" in cli.parser.dump(cli.config, skip_none=False)


@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_an_unknown_name_in_yaml_is_answered_with_the_known_ones(tmp_path, monkeypatch, capsys):
    with pytest.raises((SystemExit, ValueError)) as caught:
        from_yaml(tmp_path, monkeypatch, "llama2-8b", "batch: 500k")
    said = capsys.readouterr().err + str(caught.value)
    assert "recipe must be one of" in said
    assert "Did you mean 'llama2-" in said


def rows(batch):
    return 25 * 10**9 * len(batch[0])


def test_tokens_of_batches_that_are_no_token_ids_are_counted_as_one_says(tmp_path):
    """GPT-3's phases are tokens, and 4 rows of 25 billion each make its 300 billion in 3 updates."""
    found, rates = recipe("gpt3-125m"), []
    by_hand = [UseOptimizer("torch.optim.AdamW", lr=6e-4, show=False), LRSchedule(found.schedule(), tokens=rows)]
    for callbacks in ([UseRecipe("gpt3-125m", tokens=rows, show=False)], by_hand):
        watch = Watch()
        trainer(tmp_path, *callbacks, watch, max_steps=3).fit(Regression(), loader())
        rates.append(watch.first)
    assert rates[0] == rates[1]
    assert rates[0][-1] < rates[0][0] == 6e-4
    with pytest.raises(MisconfigurationException, match="Cannot count the tokens of a batch"):
        trainer(tmp_path, UseRecipe("gpt3-125m", show=False), max_steps=3).fit(Regression(), loader())
    with pytest.raises(ValueError, match="tokens must be"):
        UseRecipe("gpt3-125m", tokens=3)
