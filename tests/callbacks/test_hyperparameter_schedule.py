"""Entries other than the rate, by the same schedules."""

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_llmopt.callbacks import HyperparameterSchedule, LRSchedule
from lightning_llmopt.schedules import Phase, Schedule, constant, cosine, linear, one_cycle, piecewise, wsd

from fitting import Gan, MemoryLogger, Regression, SaveAt, Watch, loader, trainer


class Entries(L.Callback):
    def __init__(self, key):
        self.key, self.seen = key, []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.seen.append([group[self.key] for group in optimizer.param_groups])


def adamw(**settings):
    return Regression(torch.optim.AdamW, **{"betas": (0.9, 0.95), "weight_decay": 0.1, **settings})


def fit(tmp_path, key, *callbacks, module=None, ckpt_path=None, **settings):
    entries = Entries(key)
    run = trainer(tmp_path, *callbacks, entries, **{"max_epochs": 1, **settings})
    run.fit(module or adamw(), loader(10), ckpt_path=ckpt_path)
    return [seen[0] for seen in entries.seen]


LINEAR = linear(floor=0.5).resolve(total_steps=10)


@pytest.mark.parametrize(
    ("entry", "key", "base"),
    [
        ("weight_decay", "weight_decay", 0.1),
        ("eps", "eps", 1e-8),
        ("momentum", "momentum", 0.9),
        ("custom", "custom", 7.0),
    ],
)
def test_runs_at_base_times_multiplier(tmp_path, entry, key, base):
    module = Regression(torch.optim.SGD, momentum=0.9) if entry == "momentum" else adamw()
    configure = module.configure_optimizers

    def with_a_custom_entry():
        optimizer = configure()
        for group in optimizer.param_groups:
            group["custom"] = 7.0
        return optimizer

    module.configure_optimizers = with_a_custom_entry
    seen = fit(tmp_path, key, HyperparameterSchedule(entry, linear(floor=0.5)), module=module)
    assert seen == [base * LINEAR(step) for step in range(10)]


@pytest.mark.parametrize(("entry", "position"), [("beta1", 0), ("beta2", 1)])
def test_betas_are_found_by_their_names(tmp_path, entry, position):
    seen = fit(tmp_path, "betas", HyperparameterSchedule(entry, linear(floor=0.5)))
    assert [betas[position] for betas in seen] == [(0.9, 0.95)[position] * LINEAR(step) for step in range(10)]
    assert {betas[1 - position] for betas in seen} == {(0.9, 0.95)[1 - position]}
    assert all(isinstance(betas, tuple) for betas in seen)


def test_between_is_the_momentum_cycle_of_torchs_one_cycle(tmp_path):
    recipe = one_cycle(warmup="30%", start=0.0, floor=0.0)
    seen = fit(tmp_path, "betas", HyperparameterSchedule("beta1", recipe, between=(0.95, 0.85)))
    schedule = recipe.resolve(total_steps=10)
    assert [beta for beta, _ in seen] == pytest.approx([0.95 - 0.1 * schedule(step) for step in range(10)])


def test_beside_the_rate_and_beside_each_other(tmp_path):
    watch = Watch()
    callbacks = [
        LRSchedule(cosine()), HyperparameterSchedule("weight_decay", linear()),
        HyperparameterSchedule("beta2", piecewise(points={0: 1.0, "80%": 1.0, "100%": 0.9 / 0.95})), watch,
    ]  # fmt: skip
    seen = fit(tmp_path, "weight_decay", *callbacks)
    assert seen == [0.1 * linear().resolve(total_steps=10)(step) for step in range(10)]
    assert watch.first == [0.1 * cosine().resolve(total_steps=10)(step) for step in range(10)]


@pytest.mark.parametrize("stop", [1, 4, 9])
def test_goes_on_at_the_same_values(tmp_path, stop):
    path = tmp_path / "stop.ckpt"
    whole = fit(tmp_path, "betas", HyperparameterSchedule("beta2", cosine(floor=0.2)), SaveAt(path, stop))
    rest = fit(tmp_path, "betas", HyperparameterSchedule("beta2", cosine(floor=0.2)), ckpt_path=path)
    assert rest[: 10 - stop] == whole[stop:]


def test_a_resumed_run_does_not_jump_in_silence(tmp_path):
    path = tmp_path / "stop.ckpt"
    fit(tmp_path, "weight_decay", HyperparameterSchedule("weight_decay", linear()), SaveAt(path, 5))
    with pytest.raises(
        MisconfigurationException, match=r"weight_decay/AdamW/group0 at this update: 0.1, .* 0.05 \(\+100.0%"
    ):
        fit(tmp_path, "weight_decay", HyperparameterSchedule("weight_decay", constant()), ckpt_path=path)


def test_targets(tmp_path):
    entries = Entries("weight_decay")
    callbacks = [HyperparameterSchedule("weight_decay", linear(), group="head"), LRSchedule(cosine(), group=0), entries]
    trainer(tmp_path, *callbacks, max_epochs=1).fit(adamw(), loader(4))
    assert entries.seen == [[0.1, 0.1 * (1 - step / 4)] for step in range(4)]


def test_each_optimizer_its_own(tmp_path):
    seen = []

    class Note(L.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            seen.append((trainer.optimizers.index(optimizer), optimizer.param_groups[0]["betas"][0]))

    trainer(tmp_path, HyperparameterSchedule("beta1", linear(), optimizer=1), Note(), max_epochs=1).fit(
        Gan(), loader(4)
    )
    assert [beta for index, beta in seen if index == 0] == [0.9] * 4
    assert [beta for index, beta in seen if index == 1] == [0.9 * (1 - step / 4) for step in range(4)]


def test_is_logged(tmp_path):
    logger = MemoryLogger()
    fit(tmp_path, "eps", HyperparameterSchedule("beta2", linear()), logger=logger, log_every_n_steps=1)
    assert logger.points.keys() == {"beta2/AdamW/group0", "beta2/AdamW/head"}
    assert logger.points["beta2/AdamW/head"][5] == 0.95 * 0.5


def test_tensors_are_filled(tmp_path):
    held = torch.tensor(0.1)
    module = adamw(weight_decay=held)
    seen = []

    class Note(L.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            seen.append((optimizer.param_groups[0]["weight_decay"] is held, held.item()))

    trainer(tmp_path, HyperparameterSchedule("weight_decay", linear()), Note(), max_epochs=1).fit(module, loader(4))
    assert seen == [(True, pytest.approx(0.1 * (1 - step / 4))) for step in range(4)]


def test_what_is_switched_off_stays_so_and_it_is_said(tmp_path):
    with pytest.warns(
        UserWarning, match=r"HyperparameterSchedule\('weight_decay'\): it is 0 in every group, so it is switch"
    ):
        seen = fit(
            tmp_path,
            "weight_decay",
            HyperparameterSchedule("weight_decay", linear(), between=(0.1, 0.2)),
            module=adamw(weight_decay=0.0),
        )
    assert seen == [0.0] * 10


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (("lr", linear()), {}, r"entry must be the name of a number in the parameter groups \(LRSchedule\), got 'lr'"),
        (("betas", linear()), {}, r"\('beta1' or 'beta2'\), got 'betas'"),
        ((3, linear()), {}, r"entry must be the name of a number .*, got 3"),
        (("beta2", linear()), {"between": (0.9, 1.0)}, r"between for 'beta2' must be in \[0, 1\), got 1.0"),
        (("beta2", linear()), {"between": 0.9}, "between must be two values, at the multipliers 0 and 1, got 0.9"),
        (("beta2", 3.5), {}, "schedule must be a recipe such as wsd"),
        (("beta2", linear()), {"group": 1.5}, "group must be a position >= 0 or a name, got 1.5"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, settings, message):
    with pytest.raises(ValueError, match=message):
        HyperparameterSchedule(*arguments, **settings)


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (
            [HyperparameterSchedule("dampening", linear())],
            r"no parameter group has a number 'dampening'. The first has numbers at \['eps'",
        ),
        (
            [HyperparameterSchedule("beta2", Schedule(Phase("up", 5, 1.0, 1.1)))],
            r"must be in \[0, 1\), got 1.04.* That is its base value 0.95 times 1.1, the highest multiplier",
        ),
        (
            [HyperparameterSchedule("beta2", linear()), HyperparameterSchedule("beta2", cosine(), group=0)],
            r"Two schedules for beta2/AdamW/group0: .*\('beta2'\) and .*\('beta2'\)\(group=0\). Give each groups",
        ),
        (
            [HyperparameterSchedule("beta2", linear()), LRSchedule(wsd(), during={"decay": {"beta2": 0.9}})],
            r"Two schedules for beta2: HyperparameterSchedule\('beta2'\) and LRSchedule\(during=...\) in its phase",
        ),
        (
            [LRSchedule(wsd(), group="tail")],
            r"LRSchedule\(group='tail'\): there is no such group. .*\{'AdamW': \['group0', 'head'\]\}",
        ),
        ([LRSchedule(wsd(), optimizer="SGD")], r"LRSchedule\(optimizer='SGD'\): there is no such group"),
        (
            [LRSchedule(wsd()), LRSchedule(linear(), group="head")],
            r"Two schedules for lr/AdamW/head: LRSchedule and LRSched",
        ),
    ],
)
def test_clashes_are_refused_at_fit_start(tmp_path, callbacks, message):
    with pytest.raises(MisconfigurationException, match=message):
        fit(tmp_path, "eps", *callbacks)


def test_somebody_else_who_writes_it_is_found_out(tmp_path):
    class Other(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            trainer.optimizers[0].param_groups[0]["weight_decay"] = 0.3

    with pytest.raises(
        MisconfigurationException, match=r"Two writers of weight_decay: HyperparameterSchedule\('weight_decay"
    ):
        fit(tmp_path, "eps", HyperparameterSchedule("weight_decay", linear()), Other())


def test_several_schedules_share_a_trainer_if_no_group_has_two(tmp_path):
    watch, logger = Watch(), MemoryLogger()
    callbacks = [LRSchedule(linear(), group="group0"), LRSchedule(cosine(), group="head"), watch]
    run = trainer(tmp_path, *callbacks, logger=logger, log_every_n_steps=1, max_epochs=1)
    run.fit(Regression(), loader(10))
    straight, wave = (recipe().resolve(total_steps=10) for recipe in (linear, cosine))
    assert watch.rates == [[0.1 * straight(step), 0.01 * wave(step)] for step in range(10)]
    assert {"lr/SGD/group0", "lr/SGD/head", "schedule/phase/group0", "schedule/phase/head"} < logger.points.keys()
    run.save_checkpoint(tmp_path / "run.ckpt")
    saved = torch.load(tmp_path / "run.ckpt", weights_only=True)["callbacks"]
    assert saved.keys() == {"LRSchedule(group='group0')", "LRSchedule(group='head')"}
