"""Groups by rules, through a real Trainer; see also tests/optim/test_rules.py for what a rule's key means."""

import copy
import warnings

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningCLI
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR

from lightning_llmopt.callbacks import GradientNormClip, LayerwiseLRDecay, LRSchedule, ParamGroups
from lightning_llmopt.optim import SplitOptimizer
from lightning_llmopt.schedules import wsd
from lightning_llmopt.selftest._fits import Subject, quiet_trainer
from lightning_llmopt.selftest._fits import loader as tokens
from lightning_llmopt.selftest._places import PLACES

from fitting import MemoryLogger, Regression, SaveAt, Watch, loader, trainer, weights
from ranks import on_ranks


class One(Regression):
    """All parameters in one group of AdamW."""

    def __init__(self, **settings):
        super().__init__(torch.optim.AdamW)
        self.settings = settings

    def configure_optimizers(self):
        return self.optimizer(self.parameters(), **{"lr": 0.1, **self.settings})


def fit(tmp_path, *callbacks, module=None, **settings):
    module = One() if module is None else module
    run = trainer(tmp_path, *callbacks, **{"max_steps": 4, **settings})
    ckpt_path = settings.get("ckpt_path")
    run.fit(module, loader(), ckpt_path=ckpt_path)
    return run, module


def test_every_setting_reaches_its_parameters_and_no_others(tmp_path):
    rules = {
        "*.bias": {"weight_decay": 0.0, "name": "biases"},
        nn.Linear: {"lr_scale": 0.5, "betas": [0.8, 0.9], "eps": 1e-6},
    }
    run, module = fit(tmp_path, ParamGroups(rules))
    first, second = run.optimizers[0].param_groups
    assert [(group["name"], group["lr"], group["weight_decay"]) for group in (first, second)] == [
        ("Linear", 0.05, 0.01), ("biases", 0.1, 0.0),
    ]  # fmt: skip
    assert (first["betas"], first["eps"]) == ((0.8, 0.9), 1e-6)
    assert [id(one) for one in first["params"]] == [id(module.body.weight), id(module.head.weight)]
    assert [id(one) for one in second["params"]] == [id(module.body.bias), id(module.head.bias)]


def test_frozen_parameters_stay_as_they_are(tmp_path):
    module = One()
    before = module.body.weight.clone()
    run, _ = fit(tmp_path, ParamGroups({"body": {"frozen": True}}), module=module)
    assert module.body.weight.equal(before)
    assert not module.body.bias.requires_grad
    assert [len(group["params"]) for group in run.optimizers[0].param_groups] == [2]


def test_frozen_parameters_are_frozen_before_ddp_looks(tmp_path):
    def frozen(rank):
        run = quiet_trainer(
            tmp_path, [ParamGroups({"model.encoder": {"frozen": True}}, show=False)], max_steps=3,
            strategy="ddp", devices=2, use_distributed_sampler=False,
        )  # fmt: skip
        module = Subject("TransformerEncoder")
        before = copy.deepcopy(module.model.encoder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run.fit(module, tokens(rank, 2))
        pairs = zip(before.parameters(), module.model.encoder.parameters(), strict=True)
        return all(was.equal(now) for was, now in pairs), run.global_step

    assert on_ranks(2, frozen) == [(True, 3), (True, 3)]


MOMENTUM = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.25, "momentum": 0.9}}


def test_an_optimizer_of_their_own_trains_them_as_it_would_alone(tmp_path):
    class ByHand(One):
        def configure_optimizers(self):
            adam = torch.optim.AdamW([self.body.bias, self.head.bias], lr=0.1)
            return SplitOptimizer([adam, torch.optim.SGD([self.body.weight, self.head.weight], lr=0.25, momentum=0.9)])

    run, ours = fit(tmp_path, ParamGroups({"ndim>=2": {"optimizer": MOMENTUM}}))
    _, theirs = fit(tmp_path, module=ByHand())
    assert weights(ours).equal(weights(theirs))
    assert [type(part) for part in run.optimizers[0].parts] == [torch.optim.AdamW, torch.optim.SGD]


def test_a_group_whose_parameters_all_get_an_optimizer_of_their_own_leaves_none_behind(tmp_path):
    class Two(Regression):
        def configure_optimizers(self):
            groups = [{"params": self.body.parameters()}, {"params": self.head.parameters(), "lr": 0.2}]
            return torch.optim.AdamW(groups, lr=0.1)

    run, _ = fit(tmp_path, ParamGroups({"body": {"optimizer": "torch.optim.SGD"}}), module=Two())
    groups = [(group["name"], group["lr"], len(group["params"])) for group in run.optimizers[0].param_groups]
    assert groups == [("others", 0.2, 2), ("body", 0.1, 2)]


def test_an_optimizer_of_their_own_starts_from_the_modules_rate(tmp_path):
    run, _ = fit(tmp_path, ParamGroups({"body": {"optimizer": "torch.optim.SGD", "lr_scale": 0.5}}))
    assert [group["lr"] for group in run.optimizers[0].param_groups] == [0.1, 0.05]


def test_schedule_clipping_log_and_resume_know_one_optimizer(tmp_path):
    def callbacks():
        rules = {"body.weight": {"optimizer": MOMENTUM}}
        return [ParamGroups(rules), LRSchedule(wsd(warmup=2, decay=2)), GradientNormClip(0.1)]

    path, logger, watch, again = tmp_path / "stop.ckpt", MemoryLogger(), Watch(), Watch()
    _, whole = fit(tmp_path, *callbacks(), watch, SaveAt(path, 4), max_steps=8, logger=logger, log_every_n_steps=1)
    curve = wsd(warmup=2, decay=2).resolve(total_steps=8)
    assert watch.rates == [pytest.approx([0.1 * curve(step), 0.25 * curve(step)]) for step in range(8)]
    assert {tag for tag in logger.points if tag.startswith("lr/")} == {
        "lr/SplitOptimizer/others", "lr/SplitOptimizer/body.weight",
    }  # fmt: skip

    class Rest(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from list(loader())[4:]

    module = One()
    rest = trainer(tmp_path, *callbacks(), again, max_steps=8)
    rest.fit(module, torch.utils.data.DataLoader(Rest(), batch_size=None), ckpt_path=path)
    assert again.rates == watch.rates[4:]
    assert weights(module).equal(weights(whole))


def test_an_optimizer_of_their_own_beside_a_scheduler_is_refused(tmp_path):
    class Scheduled(One):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            return [optimizer], [ExponentialLR(optimizer, 0.9)]

    with pytest.raises(MisconfigurationException, match="scheduler was built on the first. Drop optimizer .* LRSch"):
        fit(tmp_path, ParamGroups({"body": {"optimizer": MOMENTUM}}), module=Scheduled())


def test_an_optimizer_of_their_own_under_zero_is_refused(tmp_path):
    pytest.importorskip("deepspeed")

    def attempt(rank):
        place = PLACES["ZeRO-2 2"]
        rules = ParamGroups({"ndim>=2": {"optimizer": MOMENTUM}}, show=False)
        run = quiet_trainer(tmp_path, [rules], max_steps=1, strategy=place.strategy(), devices=1)
        warnings.simplefilter("ignore")  # in a process of its own
        with pytest.raises(MisconfigurationException) as caught:
            run.fit(Subject("TransformerEncoder"), tokens())
        return str(caught.value)

    assert on_ranks(1, attempt) == [
        "ParamGroups: a rule gives parameters an optimizer of their own, and DeepSpeed takes one optimizer. Drop "
        "optimizer from the rule, or use another strategy."
    ]


def test_rules_win_over_the_split_and_multiply_with_layers(tmp_path):
    callbacks = [LayerwiseLRDecay(0.5, blocks=["body", "head"]), ParamGroups({"body.bias": {"lr_scale": 0.5}})]
    run, module = fit(tmp_path, *callbacks)
    rates = {id(one): group["lr"] for group in run.optimizers[0].param_groups for one in group["params"]}
    assert rates[id(module.body.bias)] == 0.1 * 0.25 * 0.5
    assert rates[id(module.body.weight)] == 0.1 * 0.25


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (
            {"boddy.*": {"lr_scale": 0.5}},
            "ParamGroups: The rule 'boddy.\\*' matches no parameter. Near it there are 'body",
        ),
        ({"body": {"momentum": 0.5}}, "ParamGroups: AdamW has no momentum in its groups: there are amsgrad, betas"),
        (
            {"body": {"optimizer": {"class_path": "torch.optim.SGD", "init_args": {"x": 1}}}},
            "SGD\\(x=1\\) cannot be built",
        ),
    ],
)
def test_rules_that_do_not_fit_the_module_are_refused_at_fit_start(tmp_path, rules, said):
    with pytest.raises(MisconfigurationException, match=said):
        fit(tmp_path, ParamGroups(rules))


def test_an_entry_that_is_mistyped_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"has no lr_scal in its groups: .* Did you mean 'lr_scale'\?"):
        fit(tmp_path, ParamGroups({"body": {"lr_scal": 0.5}}))


def test_values_that_cannot_be_are_refused_at_once():
    with pytest.raises(ValueError, match="at least one rule"):
        ParamGroups({})
    with pytest.raises(ValueError, match="lr_scale must be a finite number >= 0, got -1"):
        ParamGroups({"*": {"lr_scale": -1}})


YAML = """
trainer:
  max_steps: 4
  accelerator: cpu
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: lightning_llmopt.callbacks.ParamGroups
      init_args:
        rules:
          "body.weight": {lr_scale: 0.1, betas: [0.8, 0.9]}
          "type:Linear": {weight_decay: 0.0}
          "ndim>=1": {optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.5}}}
    - class_path: lightning_llmopt.callbacks.LayerwiseLRDecay
      init_args: {decay: 0.5, blocks: [body, head]}
    - class_path: lightning_llmopt.callbacks.WeightDecaySplit
"""


@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")  # Lightning's use of it
def test_can_be_written_in_yaml(tmp_path, monkeypatch):
    class Scaled(One):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(YAML)
    monkeypatch.setattr("sys.argv", ["train.py", "--config", "run.yaml"])
    cli = LightningCLI(Scaled, run=False, save_config_callback=None, seed_everything_default=0)
    cli.trainer.fit(cli.model, loader())
    groups = {group["name"]: group for group in cli.trainer.optimizers[0].param_groups}
    weight = next(group for group in groups.values() if group["params"][0] is cli.model.body.weight)
    assert (weight["lr"], weight["betas"]) == (0.1 * 0.25 * 0.1, (0.8, 0.9))
    assert cli.trainer.optimizers[0].parts[1].param_groups[0]["params"] == [cli.model.scale]
