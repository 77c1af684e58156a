"""Another optimizer than the module's, through a real Trainer, in every strategy, and after a resume."""

import copy
import pickle
import warnings
from functools import cache

import numpy
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningCLI
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR, OneCycleLR
from torch.utils.data import DataLoader

from lightning_llmopt.callbacks import (
    GradientNormClip,
    LayerwiseLRDecay,
    LRSchedule,
    MuTransfer,
    ParamGroups,
    UseOptimizer,
    WeightDecaySplit,
)
from lightning_llmopt.optim import SplitOptimizer
from lightning_llmopt.schedules import wsd
from lightning_llmopt.selftest._fits import Subject, fit, quiet_trainer
from lightning_llmopt.selftest._fits import loader as tokens
from lightning_llmopt.selftest._models import MODELS, batches
from lightning_llmopt.selftest._places import PLACES, Place, fsdp1

from doubles import deepspeed_is_here
from fitting import Gan, Regression, Watch, loader, trainer, weights
from ranks import on_ranks

ADAMW = {"lr": 0.01, "betas": (0.8, 0.9), "weight_decay": 0.1}


def run(tmp_path, *callbacks, module=None, ckpt_path=None, batches=8, **settings):
    module = Regression() if module is None else module
    made = trainer(tmp_path, *callbacks, **{"max_steps": 4, **settings})
    made.fit(module, loader(batches), ckpt_path=ckpt_path)
    return made, module


class Written(Regression):
    """What a person would write who edits the module."""

    def configure_optimizers(self):
        return torch.optim.AdamW([
            {"params": self.body.parameters()}, {"params": self.head.parameters(), "lr": 0.001, "name": "head"},
        ], **ADAMW)  # fmt: skip


@pytest.mark.parametrize("given", [torch.optim.AdamW, "torch.optim.AdamW"])
@pytest.mark.parametrize("window", [1, 3])
def test_trains_bit_for_bit_as_if_the_module_had_configured_it(tmp_path, given, window):
    done, module = run(tmp_path, UseOptimizer(given, **ADAMW), accumulate_grad_batches=window)
    _, expected = run(tmp_path, module=Written(), accumulate_grad_batches=window)
    assert type(done.optimizers[0]) is torch.optim.AdamW
    assert torch.equal(weights(module), weights(expected))
    assert "configure_optimizers" not in vars(module)


def test_settings_can_be_a_mapping_and_come_without_a_rate(tmp_path):
    done, _ = run(tmp_path, UseOptimizer("torch.optim.AdamW", {"betas": [0.8, 0.9]}))
    assert [(group["lr"], group["betas"]) for group in done.optimizers[0].param_groups] == [
        (0.1, (0.8, 0.9)), (0.01, (0.8, 0.9)),
    ]  # fmt: skip


GROUPS = {
    "WeightDecaySplit": (lambda: WeightDecaySplit(show=False), {0.1, 0.0}),
    "ParamGroups": (lambda: ParamGroups({"*.bias": {"betas": (0.1, 0.2)}}, show=False), {0.1}),
    "LayerwiseLRDecay": (lambda: LayerwiseLRDecay(0.5, blocks=["body"], show=False), {0.1}),
    "MuTransfer": (lambda: MuTransfer(Regression(), show=False), {0.1}),
}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", GROUPS)
def test_group_callbacks_see_the_new_optimizer_wherever_it_stands(tmp_path, name, first):
    use, groups = UseOptimizer("torch.optim.AdamW", **ADAMW, show=False), GROUPS[name][0]()
    done, _ = run(tmp_path, *([use, groups] if first else [groups, use]))
    (optimizer,) = done.optimizers
    assert type(optimizer) is torch.optim.AdamW
    assert {group["weight_decay"] for group in optimizer.param_groups} == GROUPS[name][1]
    if name == "ParamGroups":
        assert {group["betas"] for group in optimizer.param_groups} == {(0.8, 0.9), (0.1, 0.2)}
    if name == "LayerwiseLRDecay":
        assert sorted(group["lr"] for group in optimizer.param_groups) == [0.001, 0.005]


def test_a_schedule_writes_the_new_rates(tmp_path):
    watch = Watch()
    run(tmp_path, LRSchedule(wsd(decay="50%", shape="linear")), UseOptimizer("torch.optim.AdamW", lr=0.02), watch)
    assert watch.rates == [[0.02, 0.002], [0.02, 0.002], [0.02, 0.002], [0.01, 0.001]]


def test_one_of_several_optimizers_in_manual_optimization(tmp_path):
    for replaces in (1, "Adam-1"):
        done, _ = run(tmp_path, UseOptimizer("torch.optim.SGD", lr=0.1, replaces=replaces), module=Gan())
        assert [type(one).__name__ for one in done.optimizers] == ["Adam", "SGD"]
    both = [UseOptimizer("torch.optim.SGD", replaces=0), UseOptimizer("torch.optim.RMSprop", replaces=1)]
    done, _ = run(tmp_path, *both, module=Gan())
    assert [type(one).__name__ for one in done.optimizers] == ["SGD", "RMSprop"]
    done, _ = run(tmp_path, UseOptimizer("torch.optim.SGD", lr=0.1), module=Gan())
    assert [type(one).__name__ for one in done.optimizers] == ["SGD", "SGD"]
    assert [one.param_groups[0]["lr"] for one in done.optimizers] == [0.1, 0.1]


def test_what_cannot_be_replaced_is_refused_with_what_there_is(tmp_path):
    with pytest.raises(
        MisconfigurationException, match=r"replaces=2\).* no such optimizer.*returns \['Adam', 'Adam-1'\]"
    ):
        run(tmp_path, UseOptimizer("torch.optim.SGD", replaces=2), module=Gan())
    with pytest.raises(MisconfigurationException, match=r"optimizer 0 is replaced twice"):
        run(tmp_path, UseOptimizer("torch.optim.SGD"), UseOptimizer("torch.optim.AdamW", replaces=0))


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (["torch.optim.Nadamm"], {}, "optimizer must be the path of a class such as"),
        (["torch.optim.SGD"], {"momentun": 0.9}, r"SGD takes no 'momentun'; did you mean 'momentum'\?"),
        (["torch.optim.SGD"], {"lr": -1.0}, "Invalid learning rate: -1.0"),
        (["torch.optim.SGD"], {"replaces": -1}, "replaces must be a position >= 0 or a class name, got -1"),
        (["torch.optim.SGD", {"lr": 1.0}], {"lr": 1.0}, "must not both have 'lr'"),
        (["torch.optim.SGD"], {"on_change": "keep"}, "on_change must be one of"),
        (["torch.optim.Muon"], {"others": "torch.optim.Nothing"}, "optimizer must be the path"),
        (["torch.optim.Muon"], {"others": torch.optim.Muon}, "others must be another optimizer than torch.optim.Muon"),
    ],
)
def test_wrong_arguments_are_refused_at_once(arguments, settings, said):
    with pytest.raises(ValueError, match=said):
        UseOptimizer(*arguments, **settings)


class Scheduled(Regression):
    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        return [optimizer], [ExponentialLR(optimizer, 0.5)]


class ScheduledGan(Gan):
    """The first optimizer has a scheduler, the second has none."""

    def configure_optimizers(self):
        first, second = super().configure_optimizers()
        return [first, second], [ExponentialLR(first, 0.5)]


def test_a_scheduler_of_the_old_optimizer_is_refused_or_replaced(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"ExponentialLR was built on .*replace_schedulers=True"):
        run(tmp_path, UseOptimizer("torch.optim.AdamW"), module=Scheduled())
    watch = Watch()
    schedule = LRSchedule(wsd(decay="50%", shape="linear"), replace_schedulers=True)
    run(tmp_path, UseOptimizer("torch.optim.AdamW", lr=0.2), schedule, watch, module=Scheduled())
    assert watch.first == [0.2, 0.2, 0.2, 0.1]


class Warmed(Regression):
    """Its own scheduler has written a lower rate into the groups by the time they are returned."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        return [optimizer], [{"scheduler": self.schedule(optimizer), "interval": "step"}]


STARTS_LOW = {
    "LambdaLR from 0": lambda optimizer: LambdaLR(optimizer, lambda step: step / 10),
    "OneCycleLR": lambda optimizer: OneCycleLR(optimizer, [0.1, 0.01], total_steps=8),
}


@pytest.mark.parametrize("kind", STARTS_LOW)
@pytest.mark.parametrize(("settings", "rate"), [({}, 0.1), ({"lr": 0.2}, 0.2)])
def test_rates_are_those_before_the_modules_scheduler_lowered_them(tmp_path, kind, settings, rate):
    watch, schedule = Watch(), LRSchedule(wsd(), replace_schedulers=True)
    module = Warmed(STARTS_LOW[kind])
    run(tmp_path, UseOptimizer("torch.optim.RAdam", settings, show=False), schedule, watch, module=module, max_steps=1)
    assert watch.rates == [pytest.approx([rate, rate / 10])]


@pytest.mark.parametrize("kind", STARTS_LOW)
@pytest.mark.parametrize("by_rule", [False, True])
def test_a_scheduler_that_is_replaced_is_no_hindrance_to_a_second_optimizer(tmp_path, kind, by_rule):
    """As with a recipe of two optimizers on a module that returns a scheduler."""
    muon = {"class_path": "torch.optim.Muon", "init_args": {"lr": 0.02} if not by_rule else {}}
    split = (
        ParamGroups({"body.weight": {"optimizer": muon}}, show=False) if by_rule
        else UseOptimizer("torch.optim.Muon", muon["init_args"], others="torch.optim.AdamW", show=False)
    )  # fmt: skip
    rules, watch = [split, WeightDecaySplit(show=False)], Watch()
    with pytest.raises(MisconfigurationException, match="replace_schedulers=True"):
        run(tmp_path, *rules, module=Warmed(STARTS_LOW[kind]))
    schedule = LRSchedule(wsd(), replace_schedulers=True)
    done, module = run(tmp_path, *rules, schedule, watch, module=Warmed(STARTS_LOW[kind]), max_steps=3)
    assert done.lr_scheduler_configs == []
    held = {type(part).__name__: part for part in done.optimizers[0].parts}
    assert module.body.weight in held["Muon"].state
    assert {round(rate, 9) for rate in watch.rates[0]} == {0.1, 0.01, *(() if by_rule else (0.02,))}


def test_a_scheduler_of_an_optimizer_that_stays_is_kept(tmp_path):
    done, _ = run(tmp_path, UseOptimizer("torch.optim.SGD", replaces=1), module=ScheduledGan())
    (config,) = done.lr_scheduler_configs
    assert config.scheduler.optimizer is done.optimizers[0]
    with pytest.raises(MisconfigurationException, match="ExponentialLR was built on the optimizer that is replaced"):
        run(tmp_path, UseOptimizer("torch.optim.SGD", replaces=0), module=ScheduledGan())


class Blocks(Regression):
    """Two blocks between other layers."""

    def __init__(self):
        super().__init__(torch.optim.AdamW)
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)))
        self.body[1].append(nn.Linear(8, 8))


def test_muon_refuses_vectors_and_others_take_them(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"(?s)Muon only supports 2D.*Say others=torch.optim.AdamW"):
        run(tmp_path, UseOptimizer("torch.optim.Muon"))
    use = UseOptimizer(
        "torch.optim.Muon", lr=0.02, weight_decay=0.1,
        others={"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}, show=False,
    )  # fmt: skip
    done, module = run(tmp_path, use, WeightDecaySplit(show=False), module=Blocks())
    (optimizer,) = done.optimizers
    assert isinstance(optimizer, SplitOptimizer)
    muon, adamw = optimizer.parts
    names = {id(one): name for name, one in module.named_parameters()}
    held = [sorted(names[id(one)] for group in part.param_groups for one in group["params"]) for part in (muon, adamw)]
    assert held[0] == ["body.1.0.weight", "body.1.1.weight", "body.1.2.weight"]
    assert "head.weight" in held[1]
    assert "body.0.weight" in held[1]
    assert {group["weight_decay"] for group in muon.param_groups} == {0.1}
    assert {group["weight_decay"] for group in adamw.param_groups} == {0.01, 0.0}
    assert all("momentum_buffer" in muon.state[one] for group in muon.param_groups for one in group["params"])


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
@pytest.mark.parametrize("others", [None, "torch.optim.AdamW"])
def test_a_resumed_run_ends_with_the_weights_of_one_that_was_never_stopped(tmp_path, stop, others):
    def callbacks():
        use = ("torch.optim.Muon", {"lr": 0.01}) if others else ("torch.optim.AdamW", ADAMW)
        schedule = LRSchedule(wsd(warmup=2, decay=2), total=6)
        return [UseOptimizer(*use, others=others, show=False), WeightDecaySplit(show=False), schedule]

    half, _ = run(tmp_path, *callbacks(), module=Blocks(), batches=1, max_steps=stop)
    half.save_checkpoint(tmp_path / "stop.ckpt")
    saved = torch.load(tmp_path / "stop.ckpt", weights_only=True)["callbacks"]["UseOptimizer"]
    assert saved["optimizer"]["class"] == ("torch.optim.Muon" if others else "torch.optim.adamw.AdamW")
    _, again = run(tmp_path, *callbacks(), module=Blocks(), batches=1, max_steps=6, ckpt_path=tmp_path / "stop.ckpt")
    _, whole = run(tmp_path, *callbacks(), module=Blocks(), batches=1, max_steps=6)
    assert torch.equal(weights(again), weights(whole))


def test_another_class_is_refused_on_resume_and_other_settings_can_be_adopted(tmp_path):
    def use(name="AdamW", **settings):
        return UseOptimizer(f"torch.optim.{name}", **{"lr": 0.01, "eps": 1e-8, **settings}, show=False)

    path = tmp_path / "stop.ckpt"
    half, _ = run(tmp_path, use(), max_steps=2)
    half.save_checkpoint(path)
    with pytest.raises(MisconfigurationException, match=r"trained with torch.optim.adamw.AdamW, and this run"):
        run(tmp_path, use("NAdam"), ckpt_path=path)
    with pytest.raises(MisconfigurationException, match=r"eps: 0.1, the checkpoint had 1e-08\n  lr: 0.02, .* 0.01\n"):
        run(tmp_path, use(lr=0.02, eps=0.1), ckpt_path=path)
    done, _ = run(tmp_path, use(lr=0.02, eps=0.1, on_change="adopt"), ckpt_path=path)
    assert [(group["lr"], group["eps"]) for group in done.optimizers[0].param_groups] == [(0.02, 0.1), (0.002, 0.1)]
    with pytest.raises(MisconfigurationException, match="torch.optim.nadam.NAdam for other parameters"):
        run(tmp_path, use(others="torch.optim.NAdam"), ckpt_path=path)


def test_a_setting_that_is_new_or_gone_is_adopted_without_touching_what_rules_have_set(tmp_path):
    def callbacks(**settings):
        rules = [WeightDecaySplit(show=False), ParamGroups({"head.*": {"eps": 1e-4}}, show=False)]
        return [UseOptimizer("torch.optim.AdamW", lr=0.01, on_change="adopt", show=False, **settings), *rules]

    path = tmp_path / "stop.ckpt"
    half, _ = run(tmp_path, *callbacks(betas=(0.5, 0.6)), max_steps=2)
    half.save_checkpoint(path)
    done, _ = run(tmp_path, *callbacks(weight_decay=0.2, eps=1e-3), ckpt_path=path)
    groups = done.optimizers[0].param_groups
    assert {group["betas"] for group in groups} == {(0.9, 0.999)}
    assert {(group["weight_decay"], group["eps"]) for group in groups} == {
        (0.2, 1e-3),
        (0.0, 1e-3),
        (0.2, 1e-4),
        (0.0, 1e-4),
    }


def test_adopted_settings_reach_their_own_optimizer_and_no_other(tmp_path):
    def use(rate, others, **settings):
        theirs = {"class_path": "torch.optim.AdamW", "init_args": {"lr": others}}
        return UseOptimizer("torch.optim.Muon", lr=rate, others=theirs, show=False, **settings)

    path = tmp_path / "stop.ckpt"
    half, _ = run(tmp_path, use(0.02, 0.01), module=Blocks(), max_steps=2)
    half.save_checkpoint(path)
    done, _ = run(tmp_path, use(0.04, 0.01, on_change="adopt"), module=Blocks(), ckpt_path=path)
    muon, adamw = done.optimizers[0].parts
    assert [{group["lr"] for group in part.param_groups} for part in (muon, adamw)] == [{0.04}, {0.01, 0.001}]
    with pytest.raises(
        MisconfigurationException, match=r"others.lr: 0.03, .* had 0.01\nThose of others cannot be adopted"
    ):
        run(tmp_path, use(0.02, 0.03, on_change="adopt"), module=Blocks(), ckpt_path=path)


def test_a_checkpoint_of_the_modules_own_optimizer_is_refused(tmp_path):
    half, _ = run(tmp_path, max_steps=2)
    half.save_checkpoint(tmp_path / "stop.ckpt")
    with pytest.raises(MisconfigurationException, match="the checkpoint knows nothing of these groups"):
        run(tmp_path, UseOptimizer("torch.optim.AdamW"), ckpt_path=tmp_path / "stop.ckpt")


def test_two_fits_of_one_module_begin_with_the_modules_groups(tmp_path):
    module, use = Regression(), UseOptimizer("torch.optim.AdamW", lr=0.01, show=False)
    kept = module.configure_optimizers()
    module.configure_optimizers = lambda: kept
    for _ in range(2):
        done, _ = run(tmp_path, use, module=module)
        assert [group["lr"] for group in done.optimizers[0].param_groups] == [0.01, 0.001]
    assert [group["lr"] for group in kept.param_groups] == [0.1, 0.01]


def test_copies_and_pickles_know_the_settings_and_nothing_of_a_run(tmp_path):
    use = UseOptimizer("torch.optim.AdamW", **ADAMW, show=False)
    run(tmp_path, use)
    for twin in (copy.deepcopy(use), pickle.loads(pickle.dumps(use))):
        assert twin.optimizer == use.optimizer
        assert twin.state_dict() == {}
        done, _ = run(tmp_path, twin)
        assert type(done.optimizers[0]) is torch.optim.AdamW


INIT_ARGS = "init_args: {optimizer: torch.optim.SGD, settings: {lr: 3e-2, momentum: 0.5, nesterov: true}}"
DICT_KWARGS = "init_args: {optimizer: torch.optim.SGD}\n      dict_kwargs: {lr: 3e-2, momentum: 0.5, nesterov: true}"
YAML = """
trainer:
  max_steps: 3
  accelerator: cpu
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: lightning_llmopt.callbacks.UseOptimizer
      """


@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")  # Lightning's use of it
@pytest.mark.parametrize("written", [INIT_ARGS, DICT_KWARGS])
def test_can_be_written_in_yaml(tmp_path, monkeypatch, written):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(YAML + written)
    monkeypatch.setattr("sys.argv", ["train.py", "--config", "run.yaml"])
    cli = LightningCLI(Regression, run=False, save_config_callback=None, seed_everything_default=0)
    cli.trainer.fit(Regression(), loader())
    first = cli.trainer.optimizers[0].param_groups[0]
    assert (first["lr"], first["momentum"], first["nesterov"]) == (0.03, 0.5, True)


@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
@pytest.mark.parametrize("others", ["torch.optim.AdamW", "{class_path: torch.optim.AdamW, init_args: {lr: 0.002}}"])
def test_muon_and_another_can_be_written_in_yaml(tmp_path, monkeypatch, others):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(YAML + f"init_args: {{optimizer: torch.optim.Muon, others: {others}}}")
    monkeypatch.setattr("sys.argv", ["train.py", "--config", "run.yaml"])
    cli = LightningCLI(Blocks, run=False, save_config_callback=None, seed_everything_default=0)
    cli.trainer.fit(Blocks(), loader())
    muon, adamw = cli.trainer.optimizers[0].parts
    assert [type(muon), type(adamw)] == [torch.optim.Muon, torch.optim.AdamW]
    assert adamw.param_groups[0]["lr"] == (0.002 if "lr" in others else 0.1)


@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_a_wrong_setting_in_yaml_is_named_with_those_that_there_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(YAML + "init_args: {optimizer: torch.optim.SGD, settings: {learning: 3.0}}")
    monkeypatch.setattr("sys.argv", ["train.py", "--config", "run.yaml"])
    with pytest.raises((SystemExit, ValueError)) as caught:
        LightningCLI(Regression, run=False, save_config_callback=None, seed_everything_default=0)
    said = capsys.readouterr().err + str(caught.value)
    assert "SGD takes no 'learning'" in said
    assert "momentum" in said


needs_deepspeed = pytest.mark.skipif(
    not deepspeed_is_here(), reason="deepspeed is not installed: pip install 'lightning-llmopt[deepspeed]'"
)
QUICK = ("DDP 2", "FSDP2 2")
everywhere = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[*([needs_deepspeed] if "ZeRO" in name else []),
                                  *([] if name in QUICK else [pytest.mark.distributed])])
        for name in PLACES
    ],
)  # fmt: skip


def callbacks(name="torch.optim.SGD", **settings):
    use = UseOptimizer(name, **(settings or {"lr": 0.05, "momentum": 0.5, "nesterov": True}), show=False)
    return [WeightDecaySplit(show=False), use, LRSchedule(wsd(warmup=2, decay=2), total=6)]


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    folder = tmp_path_factory.mktemp("truth")
    return cache(lambda model, window: fit(folder, model, accumulate=window, further=callbacks()))


@everywhere
def test_weights_after_three_updates_are_those_of_one_process(truth, tmp_path, name):
    def fits(rank):
        return {
            (model, window): fit(
                tmp_path, model, accumulate=window, place=PLACES[name], rank=rank, further=callbacks()
            ).weights
            for model in MODELS
            for window in (1, 3)
        }

    for rank in on_ranks(PLACES[name].ranks, fits):
        for (model, window), got in rank.items():
            expected = truth(model, window).weights
            assert got.keys() == expected.keys()
            for key in expected.keys() - {"unused.weight", "unused.bias"}:  # moves where its gradient is made zero
                numpy.testing.assert_allclose(got[key], expected[key], rtol=2e-4, atol=2e-5, err_msg=key)


RESUMED = [
    "DDP 2",
    "FSDP2 2",
    pytest.param("FSDP1 2", marks=pytest.mark.distributed),
    *[pytest.param(f"ZeRO-{n} 2", marks=[needs_deepspeed, pytest.mark.distributed]) for n in (1, 2, 3)],
]


def resumed(rank, folder, name, *, steps=6, ckpt_path=None, save=None, use=None):
    place = Place(2, fsdp1(state_dict_type="sharded")) if name == "FSDP1 2" else PLACES[name]  # gathering hangs on CPU
    settings = {"strategy": place.strategy(), "devices": place.ranks, "use_distributed_sampler": False}
    adam = callbacks("torch.optim.Adam", lr=0.02, betas=(0.8, 0.9))
    made = quiet_trainer(folder, [*(use or adam), GradientNormClip(0.2)], max_steps=steps, **settings)
    module = Subject("TransformerEncoder", place.shard)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.fit(module, DataLoader(batches(rank, place.ranks)[:1], batch_size=None), ckpt_path=ckpt_path)
        if save:
            made.save_checkpoint(save)
    if use:
        return [(group["lr"], group["eps"]) for group in made.optimizers[0].param_groups]
    local = [getattr(one, "_local_tensor", one).detach().clone() for one in module.parameters()]
    return torch.cat([one.flatten().double() for one in local]).numpy()


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_has_the_weights_of_a_whole_one_on_every_strategy(tmp_path, name):
    path = tmp_path / "stop.ckpt"

    def both(rank):
        resumed(rank, tmp_path, name, steps=3, save=path)
        return resumed(rank, tmp_path, name, ckpt_path=path), resumed(rank, tmp_path, name)

    for again, whole in on_ranks(2, both):
        numpy.testing.assert_array_equal(again, whole)


@pytest.mark.parametrize("name", RESUMED)
def test_settings_are_adopted_on_every_strategy(tmp_path, name):
    path = tmp_path / "stop.ckpt"

    def use(rate, eps):
        return [UseOptimizer("torch.optim.Adam", lr=rate, eps=eps, on_change="adopt", show=False)]

    def both(rank):
        resumed(rank, tmp_path, name, steps=3, save=path, use=use(0.02, 1e-8))
        return resumed(rank, tmp_path, name, ckpt_path=path, use=use(0.04, 1e-6))

    for groups in on_ranks(2, both):
        assert set(groups) == {(0.04, 1e-6)}


def muon():
    others = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05}}
    return [UseOptimizer("torch.optim.Muon", lr=0.02, others=others, show=False)]


@pytest.mark.parametrize("name", ["FSDP2 2", pytest.param("DDP 2", marks=pytest.mark.distributed)])
def test_muon_moves_whole_matrices_where_they_are_sharded(tmp_path, name):
    truth, plain = (fit(tmp_path, "TransformerEncoder", further=further).weights for further in (muon(), []))
    got = on_ranks(
        2, lambda rank: fit(tmp_path, "TransformerEncoder", place=PLACES[name], rank=rank, further=muon()).weights
    )
    for key in (key for key in truth if key.endswith(("linear1.weight", "out_proj.weight"))):
        apart, moved = (numpy.linalg.norm(truth[key] - other[key]) for other in (got[0], plain))
        assert apart < 0.1 * moved  # its own arithmetic is in bf16


def test_a_matrix_of_one_row_or_column_is_left_to_the_others(tmp_path):
    """It is a vector: Muon would only change its length, and DTensor cannot even do that on shards of one row."""
    done, module = run(tmp_path, *muon())
    held, _ = done.optimizers[0].parts
    assert [one is module.body.weight for group in held.param_groups for one in group["params"]] == [True]


REFUSED = [
    pytest.param("ZeRO-1 2", "DeepSpeed takes one optimizer", marks=needs_deepspeed),
    pytest.param("FSDP1 2", "Muon only supports 2D parameters .*another strategy", marks=pytest.mark.distributed),
]


@pytest.mark.parametrize(("name", "said"), REFUSED)
def test_muon_beside_another_is_refused_where_it_cannot_be(tmp_path, name, said):
    def attempt(rank):
        settings = {"strategy": PLACES[name].strategy(), "devices": 2, "use_distributed_sampler": False}
        made = quiet_trainer(tmp_path, muon(), max_steps=2, **settings)
        warnings.simplefilter("ignore")
        with pytest.raises(MisconfigurationException, match=said):
            made.fit(Subject("TransformerEncoder", PLACES[name].shard), tokens(rank, 2))
        return True

    assert on_ranks(2, attempt) == [True, True]


class Split(Blocks):
    """Configures two optimizers that are stepped as one, by itself."""

    def __init__(self, scheduled=False):
        super().__init__()
        self.scheduled = scheduled

    def configure_optimizers(self):
        parts = [torch.optim.AdamW(self.body.parameters(), lr=0.1), torch.optim.SGD(self.head.parameters(), lr=0.01)]
        optimizer = SplitOptimizer(parts)
        return ([optimizer], [ExponentialLR(optimizer, 0.5)]) if self.scheduled else optimizer


def test_groups_of_a_split_optimizer_stay_with_their_parts(tmp_path):
    rules = [ParamGroups({"*.bias": {"lr_scale": 0.5}}, show=False), WeightDecaySplit(show=False)]
    done, module = run(tmp_path, *rules, module=Split())
    first, second = done.optimizers[0].parts
    assert [type(first), type(second)] == [torch.optim.AdamW, torch.optim.SGD]
    assert sorted(group["lr"] for group in first.param_groups) == [0.05, 0.1]
    assert sorted(group["lr"] for group in second.param_groups) == [0.005, 0.01]
    assert {id(one) for group in second.param_groups for one in group["params"]} == set(
        map(id, module.head.parameters())
    )
    with pytest.raises(MisconfigurationException, match="a scheduler was built on a SplitOptimizer"):
        run(tmp_path, *rules, module=Split(scheduled=True))
