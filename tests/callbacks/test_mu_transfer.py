"""muP through a real Trainer."""

import copy
import pickle

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_llmopt.callbacks import (
    IndependentWeightDecay,
    LayerwiseLRDecay,
    LRFinder,
    LRSchedule,
    MuTransfer,
    ParamGroups,
    WeightDecaySplit,
)
from lightning_llmopt.optim import decay_away, exponential, fold_readouts_
from lightning_llmopt.schedules import wsd
from lightning_llmopt.selftest._places import PLACES

from fitting import MemoryLogger, SaveAt, Watch, trainer, weights
from ranks import on_ranks


class Net(L.LightningModule):
    """Three layers of a width, drawn as torch draws them."""

    def __init__(self, width, optimizer=torch.optim.AdamW, seed=0, **settings):
        super().__init__()
        torch.manual_seed(seed)
        self.into, self.hidden, self.out = nn.Linear(4, width), nn.Linear(width, width), nn.Linear(width, 1)
        self.norm = nn.LayerNorm(width)
        self.make, self.settings = optimizer, {"lr": 0.01, **settings}

    def forward(self, x):
        return self.out(torch.tanh(self.hidden(self.norm(self.into(x)))))

    def training_step(self, batch, batch_idx):
        return F.mse_loss(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return self.make(self.parameters(), **self.settings)


class Judged(Net):
    """With the other stages."""

    def validation_step(self, batch, batch_idx):
        self.log("loss", self.training_step(batch, 0))

    test_step = validation_step

    def predict_step(self, batch, batch_idx):
        return self(batch[0])


def data(batches=4):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batches * 4, 4, generator=generator)
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4)


def fitted(tmp_path, *callbacks, width=32, module=None, ckpt_path=None, **settings):
    module = module or Net(width, weight_decay=0.1)
    run = trainer(tmp_path, *callbacks, **{"max_steps": 3, **settings})
    run.fit(module, data(), ckpt_path=ckpt_path)
    return run, module


def by_name(run, module):
    """(rate, weight decay) in force for each parameter."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {
        names[id(one)]: (group["lr"], group["weight_decay"])
        for group in run.optimizers[0].param_groups
        for one in group["params"]
    }


@pytest.mark.parametrize("settings", [{}, {"weight_decay_mode": "standard"}, {"weight_decay_mode": "none"}, {
    "weight_decay_mode": "none", "extra_warmup": "exponential"}, {
    "weight_decay_mode": "none", "extra_warmup": "decay_away"}])  # fmt: skip
@pytest.mark.parametrize("schedule", [[], [LRSchedule(wsd(warmup=2, decay=3))]])
def test_at_the_base_width_training_is_bit_identical(tmp_path, settings, schedule):
    _, plain = fitted(tmp_path, *copy.deepcopy(schedule), max_steps=12)
    _, ours = fitted(tmp_path, MuTransfer(Net(32), show=False, **settings), *copy.deepcopy(schedule), max_steps=12)
    assert torch.equal(weights(ours), weights(plain))
    assert ours.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize(("mode", "hidden"), [("independent", (0.0025, 0.4)), ("standard", (0.0025, 0.1)),
                                              ("none", (0.01, 0.1))])  # fmt: skip
def test_rates_and_decays_by_mode(tmp_path, mode, hidden):
    found = by_name(*fitted(tmp_path, MuTransfer(Net(8), weight_decay_mode=mode)))
    assert found["hidden.weight"] == pytest.approx(hidden)
    assert {value for name, value in found.items() if name != "hidden.weight"} == {(0.01, 0.1)}


def test_sgd_has_its_own_table(tmp_path):
    module = Net(32, torch.optim.SGD, lr=0.001)
    rates = {name: rate for name, (rate, _) in by_name(*fitted(tmp_path, MuTransfer(Net(8)), module=module)).items()}
    assert rates["hidden.weight"] == rates["out.bias"] == 0.001
    assert rates["into.weight"] == rates["out.weight"] == rates["norm.weight"] == pytest.approx(0.004)


def test_first_update_is_that_of_a_loop_by_hand(tmp_path):
    """By hand: weights rescaled as microsoft/mup does, input of the readout divided, hidden matrix at a quarter."""
    _, ours = fitted(tmp_path, MuTransfer(Net(8)), max_steps=1)
    net = Net(32, weight_decay=0.1)
    with torch.no_grad():
        for parameter in (net.hidden.bias, net.out.weight, net.out.bias):
            parameter.mul_(2.0)
    net.out.register_forward_pre_hook(lambda module, args: (args[0] / 4,))
    others = [parameter for name, parameter in net.named_parameters() if name != "hidden.weight"]
    optimizer = torch.optim.AdamW(
        [{"params": others}, {"params": [net.hidden.weight], "lr": 0.0025, "weight_decay": 0.4}],
        lr=0.01,
        weight_decay=0.1,
    )
    net.training_step(next(iter(data())), 0).backward()
    optimizer.step()
    torch.testing.assert_close(weights(ours), weights(net))


def test_weights_are_rescaled_once_and_never_on_resume(tmp_path):
    run, module = fitted(tmp_path, MuTransfer(Net(8)), max_steps=2)
    run.save_checkpoint(tmp_path / "run.ckpt")
    trained = weights(module).clone()
    resumed = Net(32, weight_decay=0.1)
    fitted(tmp_path, MuTransfer(Net(8)), module=resumed, max_steps=2, ckpt_path=tmp_path / "run.ckpt")
    assert torch.equal(weights(resumed), trained)
    frozen = Net(32, lr=0.0)
    before = weights(frozen).clone()
    fitted(tmp_path, MuTransfer(Net(8)), module=frozen)
    once = weights(frozen).clone()
    assert not torch.equal(once, before)
    fitted(tmp_path, MuTransfer(Net(8)), module=frozen)
    assert torch.equal(weights(frozen), once)


def test_init_as_is_leaves_trained_weights_alone(tmp_path):
    module = Net(32, lr=0.0)
    before = weights(module).clone()
    fitted(tmp_path, MuTransfer(Net(8), init="as_is"), module=module)
    assert torch.equal(weights(module), before)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_readout_is_divided_in_every_stage_and_after_the_fit(tmp_path):
    _, module = fitted(tmp_path, MuTransfer(Net(8)), module=Judged(32), limit_val_batches=0)
    x = next(iter(data()))[0]
    wanted = F.linear(torch.tanh(module.hidden(module.norm(module.into(x)))) / 4, module.out.weight, module.out.bias)
    torch.testing.assert_close(module(x), wanted)
    fresh = Judged(32)
    fresh.load_state_dict(module.state_dict())
    (first, *_) = trainer(tmp_path, MuTransfer(Net(8))).predict(fresh, data())
    torch.testing.assert_close(first, wanted.detach())
    for stage in ("validate", "test"):
        fresh = Judged(32)
        fresh.load_state_dict(module.state_dict())
        (found,) = getattr(trainer(tmp_path, MuTransfer(Net(8))), stage)(fresh, data(), verbose=False)
        (again,) = getattr(trainer(tmp_path), stage)(module, data(), verbose=False)  # by its own hook
        assert found == again
    fold_readouts_(module)
    torch.testing.assert_close(module(x), wanted)


class LateNet(Net):
    """Built in configure_model."""

    def __init__(self, width):
        L.LightningModule.__init__(self)
        self.width, self.make, self.settings = width, torch.optim.AdamW, {"lr": 0.01}

    def configure_model(self):
        if not self._modules:
            for name, module in Net(self.width).named_children():
                setattr(self, name, module)


def test_a_module_that_is_built_in_configure_model(tmp_path):
    _, plain = fitted(tmp_path, MuTransfer(Net(8)), module=Net(32))
    _, late = fitted(tmp_path, MuTransfer(Net(8)), module=LateNet(32))
    assert torch.equal(weights(late), weights(plain))

    class Tested(LateNet):
        def test_step(self, batch, batch_idx):
            self(batch[0])

    fresh = Tested(32)
    trainer(tmp_path, MuTransfer(Net(8)), limit_test_batches=1).test(fresh, data(), verbose=False)
    assert fresh.out._forward_pre_hooks


class PastTheHook(Net):
    def forward(self, x):
        return F.linear(torch.tanh(self.hidden(self.norm(self.into(x)))), self.out.weight, self.out.bias)


def test_a_readout_that_is_used_past_its_hook_is_refused(tmp_path):
    with pytest.raises(MisconfigurationException, match="out was not called, and nothing divides its input by 4: the"):
        fitted(tmp_path, MuTransfer(Net(8)), module=PastTheHook(32))


class Tied(Net):
    """A table that reads and writes, by F.linear where there is no layer to call."""

    def __init__(self, width, layer=True):
        super().__init__(width)
        del self.into, self.out
        self.into, self.layer = nn.Embedding(10, width), layer
        self.out = nn.Linear(width, 10, bias=False) if layer else None
        if layer:
            self.out.weight = self.into.weight

    def forward(self, x):
        x = self.norm(self.hidden(self.into(x[:, 0].abs().long().clamp(0, 9))))
        return self.out(x)[:, :1] if self.layer else F.linear(x, self.into.weight)[:, :1]


def test_tied_readouts(tmp_path):
    _, layer = fitted(tmp_path, MuTransfer(Tied(8)), module=Tied(32))
    _, table = fitted(tmp_path, MuTransfer(Tied(8, False), readouts=["norm"]), module=Tied(32, False))
    for name, parameter in table.named_parameters():
        torch.testing.assert_close(layer.get_parameter(name), parameter)


def test_lists_what_it_has_done(tmp_path, capsys, monkeypatch):
    told = []
    monkeypatch.setattr("lightning_llmopt.callbacks.mu_transfer.rank_zero_info", told.append)
    fitted(tmp_path, MuTransfer(Net(8)), enable_model_summary=True)
    assert "hidden_x4" in capsys.readouterr().out
    said = "1 hidden matrices, width multipliers 4; 3 parameters rescaled; readouts divided: out."
    assert any(said in line for line in told)


class Heads(Net):
    def __init__(self, width, heads, **scale):
        super().__init__(width)
        self.hidden = nn.Linear(width, width)
        self.hidden.num_heads, self.hidden.embed_dim = heads, width
        vars(self.hidden).update(scale)


def test_heads_that_grow_are_reported_unless_their_logits_are_scaled(tmp_path):
    with pytest.warns(
        UserWarning, match=r"heads of hidden have 16 dimensions, and 4 in the base .*sqrt\(4\) / 16 = 0.125"
    ):
        fitted(tmp_path, MuTransfer(Heads(8, 2)), module=Heads(32, 2))
    fitted(tmp_path, MuTransfer(Heads(8, 2)), module=Heads(32, 8))
    fitted(tmp_path, MuTransfer(Heads(8, 2)), module=Heads(32, 2, scale=0.125))


EXTRA = {"weight_decay_mode": "none", "extra_warmup": "exponential", "extra_warmup_steps": 4}
DECAY_AWAY = {"weight_decay_mode": "none", "extra_warmup": "decay_away"}


def hidden_rates(tmp_path, *callbacks, **settings):
    class Rates(Watch):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            names = {id(one): name for name, one in pl_module.named_parameters()}
            self.rates.append({names[id(p)]: float(g["lr"]) for g in optimizer.param_groups for p in g["params"]})

    watch = Rates()
    _run, module = fitted(tmp_path, *callbacks, watch, **settings)
    return [rates["hidden.weight"] for rates in watch.rates], [rates["out.weight"] for rates in watch.rates], module


def test_exponential_warmup_of_hidden_matrices_alone(tmp_path):
    hidden, others, _ = hidden_rates(tmp_path, MuTransfer(Net(8), **EXTRA), max_steps=6)
    assert hidden == pytest.approx([0.01 * exponential(at, width_mult=4, length=4) for at in range(6)])
    assert others == [0.01] * 6


def test_exponential_warmup_multiplies_the_schedule_and_is_logged(tmp_path):
    logger = MemoryLogger()
    callbacks = [LRSchedule(wsd(warmup=3, decay=2)), MuTransfer(Net(8), **EXTRA)]
    hidden, others, _ = hidden_rates(tmp_path, *callbacks, max_steps=8, logger=logger, log_every_n_steps=1)
    factors = [exponential(at, width_mult=4, length=4) for at in range(8)]
    assert hidden == pytest.approx([rate * factor for rate, factor in zip(others, factors, strict=True)])
    assert list(logger.points["lr/AdamW/hidden_x4"].values()) == pytest.approx(hidden)


def test_a_part_of_the_run_is_half_of_it_by_default(tmp_path):
    settings = {"weight_decay_mode": "none", "extra_warmup": "exponential"}
    hidden, _, _ = hidden_rates(tmp_path, MuTransfer(Net(8), **settings), max_steps=8)
    assert hidden == pytest.approx([0.01 * exponential(at, width_mult=4, length=4) for at in range(8)])


def test_decay_away_follows_what_the_schedule_has_taken_off(tmp_path):
    module = Net(32, lr=0.1, weight_decay=2.0)
    callbacks = [MuTransfer(Net(8), **DECAY_AWAY), LRSchedule(wsd(warmup=3, decay=2))]
    hidden, others, _ = hidden_rates(tmp_path, *callbacks, max_steps=8, module=module)
    kept = 0.0
    for rate, scheduled in zip(hidden, others, strict=True):
        assert rate == pytest.approx(scheduled * decay_away(kept, width_mult=4))
        kept += torch.log1p(torch.tensor(-scheduled * 2.0, dtype=torch.float64)).item()
    assert hidden[0] == pytest.approx(others[0] / 4)


def test_accumulation_and_groups_without_a_schedule_of_their_own(tmp_path):
    callbacks = [LRSchedule(wsd(warmup=2, decay=2), group="others"), MuTransfer(Net(8), **EXTRA)]
    module = Net(32)
    hidden, _, _ = hidden_rates(tmp_path, *callbacks, module=module, max_steps=6, accumulate_grad_batches=2)
    assert hidden == pytest.approx([0.01 * exponential(at, width_mult=4, length=4) for at in range(6)])


@pytest.mark.parametrize("extra", [EXTRA, DECAY_AWAY, {}])
@pytest.mark.parametrize("schedule", [[], [LRSchedule(wsd(warmup=3, decay=2))]])
def test_a_resumed_run_is_bit_identical(tmp_path, extra, schedule):
    def callbacks():
        return [MuTransfer(Net(8), **extra, show=False), *copy.deepcopy(schedule)]

    whole, _, module = hidden_rates(tmp_path, *callbacks(), SaveAt(tmp_path / "saved.ckpt", 4), max_steps=9)
    torch.load(tmp_path / "saved.ckpt", weights_only=True)
    part, _, resumed = hidden_rates(tmp_path, *callbacks(), max_steps=9, ckpt_path=tmp_path / "saved.ckpt")
    assert part == whole[4:]
    assert torch.equal(weights(resumed), weights(module))


def test_its_state_is_saved_wherever_it_stands_beside_other_rules(tmp_path):
    def callbacks():
        return [WeightDecaySplit(show=False), MuTransfer(Net(8), **EXTRA, show=False)]

    whole, _, module = hidden_rates(tmp_path, *callbacks(), SaveAt(tmp_path / "saved.ckpt", 4), max_steps=9)
    settings = {"max_steps": 9, "ckpt_path": tmp_path / "saved.ckpt"}
    part, _, resumed = hidden_rates(tmp_path, *callbacks(), **settings)
    assert part == whole[4:]
    assert torch.equal(weights(resumed), weights(module))
    assert hidden_rates(tmp_path, *callbacks()[::-1], **settings)[0] == whole[4:]
    other = [WeightDecaySplit(), MuTransfer(Net(16), **EXTRA)]
    with pytest.raises(MisconfigurationException, match="readouts are divided by {'out': 2.0}, and the checkpoint was"):
        hidden_rates(tmp_path, *other, **settings)


@pytest.mark.parametrize("schedule", [[], [LRSchedule("constant")]])
@pytest.mark.parametrize("first", [True, False])
def test_an_extra_warmup_ends_at_the_rate_that_the_finder_has_applied(tmp_path, schedule, first):
    finder, callback = LRFinder(apply="tenth", steps=40), MuTransfer(Net(8), **EXTRA)
    both = [finder, callback] if first else [callback, finder]
    saving = SaveAt(tmp_path / "saved.ckpt", 4)
    hidden, others, _ = hidden_rates(tmp_path, *both, *copy.deepcopy(schedule), saving, max_steps=6)
    assert finder.finding.groups == (("others", 0.01), ("hidden_x4", 0.01))
    rate = finder.finding.suggestions["tenth"].rate
    assert rate != pytest.approx(0.01)
    assert others == pytest.approx([rate] * 6)
    assert hidden == pytest.approx([rate * exponential(at, width_mult=4, length=4) for at in range(6)])
    again = [LRFinder(apply="tenth", steps=40), MuTransfer(Net(8), **EXTRA), *copy.deepcopy(schedule)]
    part, _, _ = hidden_rates(tmp_path, *again, max_steps=6, ckpt_path=tmp_path / "saved.ckpt")
    assert part == hidden[4:]


def test_two_fits_in_a_row_go_on_with_the_warmup(tmp_path):
    whole, _, _module = hidden_rates(tmp_path, MuTransfer(Net(8), **EXTRA), max_steps=8, max_epochs=2)
    run = trainer(tmp_path, MuTransfer(Net(8), **EXTRA), watch := Watch(), max_epochs=1)
    again = Net(32, weight_decay=0.1)
    run.fit(again, data())
    run.fit_loop.max_epochs = 2
    run.fit(again, data())
    assert len(watch.rates) == 8
    assert run.callback_metrics is not None
    assert [max(rates) for rates in watch.rates] == [0.01] * 8
    assert [min(rates) for rates in watch.rates] == pytest.approx(whole)


def test_a_checkpoint_that_knows_nothing_of_the_warmup_is_refused(tmp_path):
    run, _ = fitted(tmp_path, MuTransfer(Net(8), weight_decay_mode="none"))
    run.save_checkpoint(tmp_path / "run.ckpt")
    with pytest.raises(MisconfigurationException, match="does not say how far the extra warmup was: it was written"):
        fitted(tmp_path, MuTransfer(Net(8), **EXTRA, on_change="adopt"), max_steps=5, ckpt_path=tmp_path / "run.ckpt")
    run, _ = fitted(tmp_path, MuTransfer(Net(8), **EXTRA))
    run.save_checkpoint(tmp_path / "run.ckpt")
    other = {**EXTRA, "extra_warmup_steps": 9}
    with pytest.raises(MisconfigurationException, match="is exponential over 9, the checkpoint had exponential over 4"):
        fitted(tmp_path, MuTransfer(Net(8), **other), max_steps=5, ckpt_path=tmp_path / "run.ckpt")
    callback = MuTransfer(Net(8), **other, on_change="adopt")
    rates, _, _ = hidden_rates(tmp_path, callback, max_steps=5, ckpt_path=tmp_path / "run.ckpt")
    assert rates == pytest.approx([0.01 * exponential(at, width_mult=4, length=9) for at in (3, 4)])


def test_another_base_is_refused_on_resume(tmp_path):
    run, _ = fitted(tmp_path, MuTransfer(Net(8)))
    run.save_checkpoint(tmp_path / "run.ckpt")
    with pytest.raises(MisconfigurationException, match="lr_scale of 1 parameter such as hidden.weight: 0.5"):
        fitted(tmp_path, MuTransfer(Net(16)), max_steps=5, ckpt_path=tmp_path / "run.ckpt")
    with pytest.raises(
        MisconfigurationException, match=r"readouts are divided by {'out': 2.0}, and the checkpoint was"
    ):
        fitted(tmp_path, MuTransfer(Net(16), on_change="adopt"), max_steps=5, ckpt_path=tmp_path / "run.ckpt")


def block_of(name):
    return {"into": 0, "hidden": 1, "norm": 1}.get(name.split(".")[0])


def test_beside_the_other_rules(tmp_path):
    callbacks = [MuTransfer(Net(8)), WeightDecaySplit(), LayerwiseLRDecay(0.5, index=block_of), LRSchedule("constant")]
    run, module = fitted(tmp_path, *callbacks)
    found = by_name(run, module)
    layers = by_name(*fitted(tmp_path, LayerwiseLRDecay(0.5, index=block_of)))
    assert found["hidden.weight"] == pytest.approx((layers["hidden.weight"][0] / 4, 0.4))
    assert found["into.bias"] == pytest.approx((layers["into.bias"][0], 0.0))


@pytest.mark.parametrize("width", [8, 32, 64])
def test_beside_independent_weight_decay_the_product_is_that_ones(tmp_path, width):
    callbacks = [MuTransfer(Net(8)), IndependentWeightDecay(reference_lr=0.004)]
    rate, decay = by_name(*fitted(tmp_path, *callbacks, width=width))["hidden.weight"]
    assert rate == pytest.approx(0.01 * 8 / width)
    assert rate * decay == pytest.approx(0.004 * 0.1)
    with pytest.raises(
        MisconfigurationException, match="wants lr . weight_decay to fall with the width, and Independent"
    ):
        fitted(tmp_path, MuTransfer(Net(8), weight_decay_mode="standard"), IndependentWeightDecay(reference_lr=0.1))


def test_optimizers_that_rules_add(tmp_path):
    rules = {"into": {"optimizer": {"class_path": "torch.optim.AdamW"}, "name": "own"}}
    found = by_name(*fitted(tmp_path, MuTransfer(Net(8)), ParamGroups(rules)))
    assert found["hidden.weight"] == pytest.approx((0.0025, 0.4))
    rules["into"]["optimizer"] = {"class_path": "torch.optim.SGD"}
    with pytest.raises(MisconfigurationException, match="SGD takes another table than the module's own optimizer"):
        fitted(tmp_path, MuTransfer(Net(8)), ParamGroups(rules))


class Scheduled(Net):
    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        return [optimizer], [torch.optim.lr_scheduler.ConstantLR(optimizer)]


def test_what_cannot_work_is_refused_at_fit_start(tmp_path):
    with pytest.raises(
        MisconfigurationException, match="MuTransfer: base must have the model's parameters, got 6 of the"
    ):
        fitted(tmp_path, MuTransfer({"into.weight": (8, 4), "into.bias": (8,)}, init="fan_in"))
    with pytest.raises(MisconfigurationException, match="No muP table is known for LBFGS"):
        fitted(tmp_path, MuTransfer(Net(8)), module=Net(32, torch.optim.LBFGS))
    with pytest.raises(MisconfigurationException, match="extra_warmup replaces muP's rates for Adam and its kind"):
        fitted(tmp_path, MuTransfer(Net(8), **EXTRA), module=Net(32, torch.optim.SGD))
    with pytest.raises(MisconfigurationException, match="Two writers of the learning rate: MuTransfer.*and ConstantLR"):
        fitted(tmp_path, MuTransfer(Net(8), **EXTRA), module=Scheduled(32))
    with pytest.raises(MisconfigurationException, match="group hidden_x4 has weight_decay = 0. Give it some"):
        fitted(tmp_path, MuTransfer(Net(8), **DECAY_AWAY), module=Net(32, weight_decay=0.0))
    with pytest.raises(MisconfigurationException, match="extra_warmup_steps='50%' is a part of a run whose length"):
        fitted(tmp_path, MuTransfer(Net(8), **{**EXTRA, "extra_warmup_steps": "50%"}), max_steps=-1, max_epochs=-1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"weight_decay_mode": "half"}, "weight_decay_mode must be one of"),
        (
            {"extra_warmup": "linear"},
            r"extra_warmup must be one of \['none', 'exponential', 'decay_away'\], got 'linear'",
        ),
        (
            {"extra_warmup": "exponential"},
            "weight_decay_mode='independent' asks for those. Say weight_decay_mode='none'",
        ),
        ({"extra_warmup_steps": "3 epochs"}, r"extra_warmup_steps must be updates >= 1 or a part of the run \('50%'\)"),
        ({"extra_warmup_steps": 0}, r"extra_warmup_steps must be updates >= 1 or a part of the run \('50%'\)"),
        ({"init": "sp"}, "init must be one of"),
        ({"table": "lion"}, r"table must be one of \['adam', 'sgd'\], got 'lion'"),
        ({"on_change": "keep"}, "on_change must be one of"),
    ],
)
def test_arguments_that_are_none_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        MuTransfer(Net(8), **settings)


def test_pickles_and_copies_before_and_after_a_run(tmp_path):
    callback = MuTransfer(Net(8), **EXTRA)
    for twin in (pickle.loads(pickle.dumps(callback)), copy.deepcopy(callback)):
        fitted(tmp_path, twin)
        again = pickle.loads(pickle.dumps(twin))
        rates, _, _ = hidden_rates(tmp_path, copy.deepcopy(again))
        assert rates[0] == pytest.approx(0.0025)


@pytest.mark.filterwarnings("ignore:.*barebones:UserWarning")
@pytest.mark.parametrize("mode", [{"fast_dev_run": True}, {"max_steps": 0}, {
    "barebones": True, "logger": None, "enable_checkpointing": None, "enable_progress_bar": None,
    "enable_model_summary": None}])  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*max_steps=0:UserWarning")
def test_works_in_every_mode(tmp_path, mode):
    fitted(tmp_path, MuTransfer(Net(8), **EXTRA), LRSchedule("constant"), **mode)


def ddp(rank, folder):
    module = Net(32, weight_decay=0.1, seed=rank)  # DDP broadcasts rank 0's
    callbacks = [LRSchedule("constant"), MuTransfer(Net(8), **EXTRA, show=False)]
    run = trainer(folder, *callbacks, devices=2, strategy=PLACES["DDP 2"].strategy(), max_steps=3)
    run.fit(module, data())
    return weights(module).tolist(), by_name(run, module)


def test_ranks_of_ddp_agree(tmp_path):
    (one, rates), (other, _) = on_ranks(2, ddp, tmp_path)
    assert one == other
    assert rates["hidden.weight"][0] == pytest.approx(0.01 * exponential(3, width_mult=4, length=4))
