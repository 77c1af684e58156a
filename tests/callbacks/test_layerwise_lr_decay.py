"""Rates that fall from the head down, through a real Trainer; see also test_strategies_groups.py."""

import copy
import pickle

import lightning as L
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import BackboneFinetuning, LearningRateFinder, LearningRateMonitor
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import nn
from torch.utils.data import DataLoader

from lightning_llmopt.callbacks import (
    GradientNormMonitor,
    HyperparameterSchedule,
    LayerwiseLRDecay,
    LRSchedule,
    ParamGroups,
    WeightDecaySplit,
)
from lightning_llmopt.schedules import linear, wsd

from fitting import Gan, MemoryLogger, SaveAt, Watch, loader, trainer, weights

LAYERS, DECAY = 3, 0.5
SCALES = [DECAY**power for power in (4, 3, 2, 1, 0)]


class Tower(L.LightningModule):
    """An embedding, three blocks and a head."""

    def __init__(self, optimizer=torch.optim.AdamW, scheduler=None, **settings):
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(4, 1, 8, dropout=0.0, batch_first=True)
        self.token = nn.Embedding(7, 4)
        self.backbone = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(4, 7)
        self.make, self.scheduler, self.settings, self.lr = optimizer, scheduler, {"lr": 0.01, **settings}, 0.01

    def forward(self, tokens):
        return self.head(self.backbone(self.token(tokens)))

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch).flatten(0, 1), batch.flatten())

    def configure_optimizers(self):
        optimizer = self.make(self.parameters(), **{**self.settings, "lr": self.lr})
        if self.scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.scheduler(optimizer), "interval": "step"}}


def tokens(batches=8):
    generator = torch.Generator().manual_seed(1)
    data = [torch.randint(7, (2, 5), generator=generator) for _ in range(batches)]
    return DataLoader(data, batch_size=None)


class Endless(torch.utils.data.IterableDataset):
    """The same batches in every run, going on where ``begin`` says."""

    def __init__(self, begin=0):
        self.begin = begin

    def __iter__(self):
        yield from list(tokens(20).dataset)[self.begin :]


def fit(tmp_path, *callbacks, module=None, data=None, ckpt_path=None, **settings):
    run = trainer(tmp_path, *callbacks, **{"max_steps": 3, **settings})
    module = Tower() if module is None else module
    run.fit(module, tokens() if data is None else data, ckpt_path=ckpt_path)
    return run, module


def test_every_group_trains_at_its_own_multiple_of_the_rate_under_a_schedule(tmp_path):
    watch, schedule = Watch(), wsd(warmup=2, decay=2)
    fit(tmp_path, LayerwiseLRDecay(DECAY), LRSchedule(schedule), watch, max_steps=6)
    curve = schedule.resolve(total_steps=6)
    assert watch.rates == [pytest.approx([0.01 * scale * curve(step) for scale in SCALES]) for step in range(6)]


def test_updates_are_those_of_groups_written_by_hand(tmp_path):
    class ByHand(Tower):
        def configure_optimizers(self):
            parts = [self.token, *self.backbone.layers, self.head]
            groups = [{"params": part.parameters(), "lr": 0.01 * s} for part, s in zip(parts, SCALES, strict=True)]
            return torch.optim.AdamW(groups, lr=0.01)

    _, ours = fit(tmp_path, LayerwiseLRDecay(DECAY))
    _, theirs = fit(tmp_path, module=ByHand())
    assert weights(ours).equal(weights(theirs))


def test_order_of_the_callbacks_does_not_matter(tmp_path):
    together = [LayerwiseLRDecay(DECAY), WeightDecaySplit(), ParamGroups({nn.Embedding: {"weight_decay": 0.3}})]
    together.append(LRSchedule(wsd(warmup=1, decay=1)))
    found = []
    for order in (together, together[::-1]):
        run, module = fit(tmp_path, *copy.deepcopy(order))
        found.append(([group["name"] for group in run.optimizers[0].param_groups], weights(module)))
    assert found[0][0] == found[1][0]
    assert found[0][1].equal(found[1][1])


SCHEDULERS = {
    "cosine": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6),
    "lambda": lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step)),
    "onecycle": lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=6),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS.keys())
def test_the_modules_own_scheduler_keeps_the_ratios_also_after_a_resume(tmp_path, scheduler):
    path, watch, again, plain = tmp_path / "stop.ckpt", Watch(), Watch(), Watch()
    fit(tmp_path, plain, module=Tower(scheduler=scheduler), max_steps=6)
    fit(tmp_path, LayerwiseLRDecay(DECAY), watch, SaveAt(path, 3), module=Tower(scheduler=scheduler), max_steps=6)
    expected = [pytest.approx([rate * scale for scale in SCALES], rel=1e-9) for rate in plain.first]
    assert watch.rates == expected
    fit(
        tmp_path, LayerwiseLRDecay(DECAY), again, module=Tower(scheduler=scheduler), max_steps=6, ckpt_path=path,
        data=DataLoader(Endless(3), batch_size=None),
    )  # fmt: skip
    assert again.rates == expected[3:]


def test_the_log_names_every_group_with_and_without_a_schedule(tmp_path):
    for more in ([], [LRSchedule(wsd(warmup=1, decay=1))]):
        logger = MemoryLogger()
        fit(tmp_path, LayerwiseLRDecay(DECAY), *more, logger=logger, log_every_n_steps=1)
        tags = {tag for tag in logger.points if tag.startswith("lr/")}
        assert tags == {f"lr/AdamW/{name}" for name in ("embedding", "block_0", "block_1", "block_2", "head")}
        assert all(len(points) == 3 for tag, points in logger.points.items() if tag in tags)


def test_lightnings_monitor_logs_the_groups_by_the_same_names(tmp_path):
    logger = MemoryLogger()
    module = Tower(scheduler=SCHEDULERS["cosine"])
    fit(
        tmp_path,
        LayerwiseLRDecay(DECAY),
        LearningRateMonitor("step"),
        module=module,
        logger=logger,
        log_every_n_steps=1,
    )
    assert "lr-AdamW/block_1" in logger.points


def test_the_table_shows_groups_rates_and_blocks(tmp_path, capsys):
    fit(tmp_path, LayerwiseLRDecay(DECAY), WeightDecaySplit(), enable_model_summary=True)
    out = capsys.readouterr().out
    for text in (
        "Parameter groups of AdamW (LayerwiseLRDecay + WeightDecaySplit)",
        "block_1.no_decay",
        "block 1",
        "0.005",
    ):
        assert text in out
    fit(tmp_path, LayerwiseLRDecay(DECAY, show=False), enable_model_summary=True)
    assert "Parameter groups" not in capsys.readouterr().out
    fit(tmp_path, LayerwiseLRDecay(DECAY))  # neither bar nor model summary: the run is quiet
    assert capsys.readouterr().out == ""


def test_rates_set_to_one_by_lightnings_finder_are_told_apart_again(tmp_path):
    finder = LearningRateFinder(num_training_steps=30)
    watch = Watch()
    run, module = fit(tmp_path, finder, LayerwiseLRDecay(DECAY), watch, logger=False, data=tokens(30))
    rates = [group["lr"] for group in run.optimizers[0].param_groups]
    assert rates == pytest.approx([module.lr * scale for scale in SCALES])
    assert module.lr != 0.01


def test_a_resumed_run_ends_with_the_same_bits(tmp_path):
    def callbacks():
        return [LayerwiseLRDecay(DECAY), WeightDecaySplit(), LRSchedule(wsd(warmup=2, decay=2)), GradientNormMonitor()]

    path = tmp_path / "stop.ckpt"
    data = DataLoader(Endless(), batch_size=None)
    _, whole = fit(tmp_path, *callbacks(), SaveAt(path, 4), max_steps=6, data=data)
    rest = DataLoader(Endless(4), batch_size=None)
    _, again = fit(tmp_path, *callbacks(), max_steps=6, ckpt_path=path, data=rest)
    assert weights(again).equal(weights(whole))


def saved(tmp_path, *callbacks, module=None):
    path = tmp_path / "stop.ckpt"
    run, _ = fit(tmp_path, *callbacks, module=module)
    run.save_checkpoint(path)
    return path, run


def moments(run):
    module = run.lightning_module
    return {
        name: run.optimizers[0].state[parameter]["exp_avg"].clone() for name, parameter in module.named_parameters()
    }


class Moments(L.Callback):
    """What the optimizer has when training starts."""

    def on_train_start(self, trainer, pl_module):
        self.found, self.groups = moments(trainer), copy.deepcopy(trainer.optimizers[0].param_groups)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], [LayerwiseLRDecay(DECAY, on_change="adopt")]),
        ([WeightDecaySplit()], [LayerwiseLRDecay(DECAY, on_change="adopt")]),
        ([LayerwiseLRDecay(0.9)], [ParamGroups({"*.bias": {"lr_scale": 0.5}}, on_change="adopt")]),
    ],
    ids=["none", "split", "others"],
)
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")
def test_state_follows_its_parameter_into_other_groups(tmp_path, before, after):
    path, run = saved(tmp_path, *before)
    seen = Moments()
    fit(tmp_path, *after, seen, ckpt_path=path, max_steps=5)
    expected = moments(run)
    assert all(seen.found[name].equal(expected[name]) for name in expected)
    if after[0].__class__ is LayerwiseLRDecay:
        assert [group["lr"] for group in seen.groups] == pytest.approx([0.01 * scale for scale in SCALES])


def test_a_checkpoint_without_groups_is_refused_unless_they_are_adopted(tmp_path):
    path, _ = saved(tmp_path)
    with pytest.raises(MisconfigurationException, match='knows nothing of these groups.*on_change="adopt"'):
        fit(tmp_path, LayerwiseLRDecay(DECAY), ckpt_path=path, max_steps=5)


def test_another_decay_is_refused_and_adopted_settings_are_in_force(tmp_path):
    path, _ = saved(tmp_path, LayerwiseLRDecay(0.9))
    with pytest.raises(MisconfigurationException, match="lr_scale of .* 0.5, the checkpoint had 0.9"):
        fit(tmp_path, LayerwiseLRDecay(DECAY), ckpt_path=path, max_steps=5)
    run, _ = fit(tmp_path, LayerwiseLRDecay(DECAY, on_change="adopt"), ckpt_path=path, max_steps=5)
    assert [group["lr"] for group in run.optimizers[0].param_groups] == pytest.approx([0.01 * s for s in SCALES])
    assert [group["lr_scale"] for group in run.optimizers[0].param_groups] == pytest.approx(SCALES)


def test_adopted_rates_keep_what_the_modules_scheduler_has_made_of_them(tmp_path):
    module = Tower(scheduler=SCHEDULERS["lambda"])
    path, _ = saved(tmp_path, LayerwiseLRDecay(0.9), module=module)
    watch = Watch()
    module = Tower(scheduler=SCHEDULERS["lambda"])
    fit(tmp_path, LayerwiseLRDecay(DECAY, on_change="adopt"), watch, ckpt_path=path, max_steps=5, module=module)
    assert watch.rates == [pytest.approx([0.01 * scale / (1 + step) for scale in SCALES]) for step in (3, 4)]


def test_adopted_rates_under_a_cycle_go_on_along_it(tmp_path):
    def module():
        return Tower(scheduler=SCHEDULERS["onecycle"])

    path, whole, watch = tmp_path / "stop.ckpt", Watch(), Watch()
    fit(tmp_path, LayerwiseLRDecay(DECAY), whole, module=module(), max_steps=6)
    fit(tmp_path, LayerwiseLRDecay(0.9), SaveAt(path, 3), module=module(), max_steps=6)
    adopts = LayerwiseLRDecay(DECAY, on_change="adopt")
    fit(tmp_path, adopts, watch, ckpt_path=path, max_steps=6, module=module())
    assert watch.rates == [pytest.approx(rates) for rates in whole.rates[3:]]


def test_other_groups_beside_a_scheduler_with_a_state_for_each_are_refused(tmp_path):
    path, _ = saved(tmp_path, LayerwiseLRDecay(0.9), module=Tower(scheduler=SCHEDULERS["lambda"]))
    with pytest.raises(MisconfigurationException, match="a rate for each of 5 groups, and there are 9 now"):
        fit(
            tmp_path, LayerwiseLRDecay(0.9), WeightDecaySplit(on_change="adopt"), ckpt_path=path, max_steps=5,
            module=Tower(scheduler=SCHEDULERS["lambda"]),
        )  # fmt: skip


@pytest.mark.filterwarnings("ignore:The provided params to be frozen already:UserWarning")
@pytest.mark.filterwarnings("ignore:.*exist within:UserWarning")
def test_parameters_that_are_added_during_the_run_get_the_rates_of_their_layers(tmp_path):
    class Frozen(Tower):
        def configure_optimizers(self):
            return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=0.01)

    watch = Watch()
    thaw = BackboneFinetuning(
        unfreeze_backbone_at_epoch=1, backbone_initial_lr=0.01, verbose=False, lambda_func=lambda e: 1
    )
    run, module = fit(tmp_path, LayerwiseLRDecay(DECAY), thaw, watch, module=Frozen(), max_steps=-1, max_epochs=2)
    groups = {group["name"]: group["lr_scale"] for group in run.optimizers[0].param_groups}
    assert groups == {
        "embedding": SCALES[0],
        "head": 1.0,
        "block_0": SCALES[1],
        "block_1": SCALES[2],
        "block_2": SCALES[3],
    }
    had = [id(parameter) for group in run.optimizers[0].param_groups for parameter in group["params"]]
    assert sorted(had) == sorted(map(id, module.parameters()))


def test_a_group_added_by_hand_gets_its_rates_and_the_schedule(tmp_path):
    class Late(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 2:
                pl_module.extra = nn.Parameter(torch.ones(3))
                layer = pl_module.backbone.layers[1]
                trainer.optimizers[0].add_param_group({"params": layer.linear1.parameters(), "lr": 0.02})

    class Without(Tower):
        def configure_optimizers(self):
            left = set(self.backbone.layers[1].linear1.parameters())
            return torch.optim.AdamW([p for p in self.parameters() if p not in left], lr=0.01)

    watch, schedule = Watch(), wsd(warmup=1, decay=3)
    fit(tmp_path, LRSchedule(schedule), Late(), LayerwiseLRDecay(DECAY), watch, module=Without(), max_steps=6)
    curve = schedule.resolve(total_steps=6)
    assert [len(rates) for rates in watch.rates] == [5, 5, 6, 6, 6, 6]
    assert watch.rates[2][-1] == pytest.approx(0.02 * SCALES[2] * curve(2))
    assert watch.rates[5][-1] == pytest.approx(0.02 * SCALES[2] * curve(5))


def test_layers_that_are_added_during_the_run_follow_the_rules(tmp_path):
    class Grow(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 2:
                new = nn.TransformerEncoderLayer(4, 1, 8, dropout=0.0, batch_first=True)
                pl_module.backbone.layers.append(new)
                trainer.optimizers[0].add_param_group({"params": new.parameters(), "lr": 0.02})

    run, _ = fit(tmp_path, Grow(), WeightDecaySplit(), LayerwiseLRDecay(DECAY), max_steps=4)
    groups = {group["name"]: group for group in run.optimizers[0].param_groups}
    assert len(groups) == 2 * (LAYERS + 1) + 1 + 2
    assert groups["block_3.decay"]["lr"] == groups["block_3.no_decay"]["lr"] == pytest.approx(0.02 * DECAY)
    assert (groups["block_3.decay"]["weight_decay"], groups["block_3.no_decay"]["weight_decay"]) == (0.01, 0.0)
    assert groups["block_2.decay"]["lr"] == pytest.approx(0.01 * SCALES[3])


def test_what_is_saved_of_groups_is_not_what_schedules_have_written_when_others_are_added(tmp_path):
    class Late(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 2:
                trainer.optimizers[0].add_param_group({"params": pl_module.head.parameters()})

    class Without(Tower):
        def configure_optimizers(self):
            return torch.optim.AdamW([*self.token.parameters(), *self.backbone.parameters()], lr=0.01)

    decays = LayerwiseLRDecay(DECAY)
    schedule = HyperparameterSchedule("weight_decay", linear(), total=6)
    fit(tmp_path, decays, Late(), schedule, module=Without(), max_steps=4)
    (groups,) = decays.state_dict()["param_groups"]
    assert [group["settings"]["weight_decay"] for group in groups][:-1] == [0.01] * (LAYERS + 1)


def test_a_group_added_within_a_batch_has_its_rate_before_a_schedule_takes_it_for_the_base(tmp_path):
    class Grows(Tower):
        def training_step(self, batch, batch_idx):
            if batch_idx == 2:
                self.optimizers().optimizer.add_param_group({"params": self.head.parameters(), "lr": 0.02})
                self.optimizers().optimizer.add_param_group(
                    {"params": self.backbone.layers[1].parameters(), "lr": 0.02}
                )
            return super().training_step(batch, batch_idx)

        def configure_optimizers(self):
            left = {*self.head.parameters(), *self.backbone.layers[1].parameters()}
            return torch.optim.AdamW([p for p in self.parameters() if p not in left], lr=0.01)

    watch, schedule = Watch(), wsd(warmup=1, decay=3)
    fit(tmp_path, LRSchedule(schedule), LayerwiseLRDecay(DECAY), watch, module=Grows(), max_steps=6)
    curve = schedule.resolve(total_steps=6)
    assert [rates[-2:] for rates in watch.rates[2:]] == [
        pytest.approx([0.02 * curve(step), 0.02 * SCALES[2] * curve(step)]) for step in range(2, 6)
    ]


def test_several_optimizers_each_have_the_layers_of_their_own(tmp_path):
    layers = LayerwiseLRDecay(DECAY, blocks=["generator", "critic"])
    run, _ = fit(tmp_path, layers, module=Gan(), data=loader())
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in run.optimizers]
    assert rates == [[pytest.approx(0.01 * 0.25)], [pytest.approx(0.04 * 0.5)]]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_module_has_the_same_groups(tmp_path):
    run, _ = fit(tmp_path, LayerwiseLRDecay(DECAY), module=torch.compile(Tower(), backend="eager"))
    assert [group["name"] for group in run.optimizers[0].param_groups][:2] == ["embedding", "block_0"]


def test_the_module_is_left_as_it_was(tmp_path):
    module = Tower()
    fit(tmp_path, LayerwiseLRDecay(DECAY), module=module)
    assert "configure_optimizers" not in vars(module)
    pickle.dumps(module)
    own = module.configure_optimizers = Tower().configure_optimizers  # as LightningCLI does
    fit(tmp_path, LayerwiseLRDecay(DECAY), module=module)
    assert vars(module)["configure_optimizers"] is own
    del module.configure_optimizers
    run = trainer(tmp_path, LayerwiseLRDecay(DECAY), Breaks(), max_steps=3)
    with pytest.raises(RuntimeError, match="boom"):
        run.fit(module, tokens())
    assert "configure_optimizers" not in vars(module)


class Breaks(L.Callback):
    def setup(self, trainer, pl_module, stage):
        raise RuntimeError("boom")


def test_one_trainer_and_one_callback_serve_two_fits(tmp_path):
    callback = LayerwiseLRDecay(DECAY)
    for _ in range(2):
        run, _ = fit(tmp_path, callback)
        assert [group["lr"] for group in run.optimizers[0].param_groups] == pytest.approx([0.01 * s for s in SCALES])


def test_one_optimizer_object_in_two_fits_is_not_scaled_twice(tmp_path):
    module = Tower()
    optimizer = module.configure_optimizers()
    module.configure_optimizers = lambda: optimizer
    for _ in range(2):
        fit(tmp_path, LayerwiseLRDecay(DECAY), module=module)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01 * s for s in SCALES])


def test_what_cannot_be_grouped_is_refused_with_the_ways_out(tmp_path):
    class Nothing(Tower):
        def configure_optimizers(self):
            return None

    with pytest.raises(MisconfigurationException, match="Nothing.configure_optimizers returned none"):
        fit(tmp_path, LayerwiseLRDecay(DECAY), module=Nothing())
    with pytest.raises(MisconfigurationException, match="LBFGS knows no groups, and these rules make 5"):
        fit(tmp_path, LayerwiseLRDecay(DECAY), module=Tower(torch.optim.LBFGS))
    with pytest.raises(MisconfigurationException, match="LayerwiseLRDecay: No repeated blocks found"):
        fit(tmp_path, LayerwiseLRDecay(DECAY), module=BoringModel(), data=DataLoader(torch.ones(4, 32)))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"decay": 0}, r"decay must be a number in \(0, 1\], got 0"),
        ({"decay": 2}, r"decay must be a number in \(0, 1\], got 2"),
        ({"blocks": ["a"], "index": len}, "takes blocks or index, got both"),
        ({"on_change": "keep"}, r"on_change must be one of \['error', 'adopt'\], got 'keep'"),
        ({"show": 1}, "show must be True or False, got 1"),
    ],
)
def test_bad_arguments_are_refused_at_once(settings, said):
    with pytest.raises(ValueError, match=said):
        LayerwiseLRDecay(**settings)


def test_a_decay_of_one_trains_as_without_it(tmp_path):
    _, plain = fit(tmp_path)
    _, ours = fit(tmp_path, LayerwiseLRDecay(1.0))
    assert weights(plain).equal(weights(ours))
