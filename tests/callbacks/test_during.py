"""Values that a phase carries beside its rate."""

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_llmopt.callbacks import LRSchedule
from lightning_llmopt.schedules import constant, linear, wsd, wsd_s

from fitting import Gan, Regression, SaveAt, loader, trainer

RECIPE = wsd(warmup=2, decay=4)


class Values(L.Callback):
    """Notes an entry of every group at every step."""

    def __init__(self, *keys):
        self.keys, self.seen = keys, []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.seen.append([tuple(group[key] for key in self.keys) for group in optimizer.param_groups])


def adamw(**settings):
    return Regression(torch.optim.AdamW, **{"betas": (0.9, 0.95), "weight_decay": 0.1, **settings})


def fit(tmp_path, schedule, module, keys, *callbacks, ckpt_path=None, **settings):
    values = Values(*keys)
    run = trainer(tmp_path, schedule, values, *callbacks, **{"max_epochs": 1, **settings})
    run.fit(module, loader(10), ckpt_path=ckpt_path)
    return [seen[0] for seen in values.seen]


def test_a_phase_has_its_own_values_and_the_others_what_was_configured(tmp_path):
    during = {"warmup": {"weight_decay": 0.5}, "decay": {"beta2": 0.99, "weight_decay": 0.2}}
    seen = fit(tmp_path, LRSchedule(RECIPE, during=during), adamw(), ["betas", "weight_decay"])
    assert seen == [((0.9, 0.95), 0.5)] * 2 + [((0.9, 0.95), 0.1)] * 4 + [((0.9, 0.99), 0.2)] * 4


def test_a_name_means_all_phases_of_that_name(tmp_path):
    schedule = LRSchedule(wsd_s(periods=2, decay=0.4), during={"decay": {"eps": 1e-6}})
    seen = fit(tmp_path, schedule, adamw(), ["eps"])
    assert [eps for (eps,) in seen] == [1e-8, 1e-8, 1e-8, 1e-6, 1e-6] * 2


@pytest.mark.parametrize("stop", range(1, 10))
def test_after_a_resume_the_values_are_those_of_the_phase(tmp_path, stop):
    def schedule():
        return LRSchedule(RECIPE, during={"decay": {"beta2": 0.99}, "warmup": {"beta1": 0.5}})

    path = tmp_path / "stop.ckpt"
    whole = fit(tmp_path, schedule(), adamw(), ["betas"], SaveAt(path, stop))
    rest = fit(tmp_path, schedule(), adamw(), ["betas"], ckpt_path=path)
    assert rest[: 10 - stop] == whole[stop:]


def test_a_resumed_run_may_have_other_values(tmp_path):
    path = tmp_path / "stop.ckpt"
    fit(tmp_path, LRSchedule(RECIPE, during={"decay": {"beta2": 0.99}}), adamw(), ["betas"], SaveAt(path, 8))
    other = {"during": {"decay": {"beta2": 0.999}}}
    with pytest.raises(
        MisconfigurationException, match=r"beta2/AdamW at this update: 0.999, the checkpoint had 0.99 \(\+0.9"
    ):
        fit(tmp_path, LRSchedule(RECIPE, **other), adamw(), ["betas"], ckpt_path=path)
    with pytest.warns(UserWarning, match="beta2/AdamW at this update: 0.999"):
        rest = fit(tmp_path, LRSchedule(RECIPE, **other, on_change="adopt"), adamw(), ["betas"], ckpt_path=path)
    assert rest[0] == ((0.9, 0.999),)
    rest = fit(tmp_path, LRSchedule(RECIPE, **other, on_change="keep"), adamw(), ["betas"], ckpt_path=path)
    assert rest[0] == ((0.9, 0.99),)


def test_what_a_phase_had_written_does_not_stay_behind(tmp_path):
    path = tmp_path / "stop.ckpt"
    during = {"decay": {"beta2": 0.99, "weight_decay": 0.0}}
    fit(tmp_path, LRSchedule(RECIPE, during=during), adamw(), ["betas"], SaveAt(path, 8))
    with pytest.warns(UserWarning, match="beta2/AdamW at this update: 0.95, the checkpoint had 0.99"):
        rest = fit(
            tmp_path, LRSchedule(RECIPE, on_change="adopt"), adamw(), ["betas", "weight_decay"], ckpt_path=path
        )  # fmt: skip
    assert rest[0] == ((0.9, 0.95), 0.1)


def test_only_the_chosen_groups_must_have_it(tmp_path):
    class Two(Gan):
        def configure_optimizers(self):
            sgd = torch.optim.SGD(self.generator.parameters(), lr=0.1)
            return [sgd, torch.optim.Adam(self.critic.parameters(), lr=0.1)]

    schedule = LRSchedule(wsd(decay="50%"), optimizer=0, during={"decay": {"beta2": 0.5}})
    with pytest.raises(MisconfigurationException, match="no parameter group has a number 'beta2'. The first has"):
        trainer(tmp_path, schedule, max_epochs=1).fit(Two(), loader(6))


def test_values_without_effect_are_pointed_out(tmp_path):
    with pytest.warns(UserWarning, match="weight_decay is 0 in every group, so it is switched off and stays so"):
        fit(tmp_path, LRSchedule(RECIPE, during={"decay": {"weight_decay": 0.3}}), adamw(weight_decay=0.0), ["eps"])


def test_a_group_that_has_it_switched_off_keeps_it_so(tmp_path):
    module, values = adamw(), Values("weight_decay")
    configure = module.configure_optimizers

    def without_decay_for_the_head():
        optimizer = configure()
        optimizer.param_groups[1]["weight_decay"] = 0.0
        return optimizer

    module.configure_optimizers = without_decay_for_the_head
    run = trainer(tmp_path, LRSchedule(RECIPE, during={"decay": {"weight_decay": 0.3}}), values, max_epochs=1)
    run.fit(module, loader(10))
    assert values.seen == [[(0.1,), (0.0,)]] * 6 + [[(0.3,), (0.0,)]] * 4


def test_tensors_are_filled(tmp_path):
    betas, seen = (torch.tensor(0.9), torch.tensor(0.95)), []
    module = adamw(betas=betas, foreach=False)

    class Note(L.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            held = optimizer.param_groups[0]["betas"][1]
            seen.append((held.item(), held is betas[1]))

    trainer(tmp_path, LRSchedule(RECIPE, during={"decay": {"beta2": 0.5}}), Note(), max_epochs=1).fit(
        module, loader(10)
    )
    assert seen == [(pytest.approx(0.95), True)] * 6 + [(0.5, True)] * 4


@pytest.mark.parametrize(
    ("during", "message"),
    [
        ({"decay": 0.99}, r"during must be a dict such as \{\"decay\": \{\"beta2\": 0.99\}\}, got"),
        ("decay", "during must be a dict such as"),
        ({"decay": {"lr": 0.1}}, r"during\['decay'\]\['lr'\]: the rate is what the schedule drives; change its phases"),
        ({"decay": {"beta2": 1.0}}, r"during\['decay'\]\['beta2'\] must be in \[0, 1\), got 1.0"),
        ({"decay": {"weight_decay": -1}}, r"during\['decay'\]\['weight_decay'\] must be a finite number >= 0, got -1"),
        ({"decay": {"eps": "1e-8"}}, r"must be a finite number >= 0, got '1e-8'"),
    ],
)
def test_values_that_cannot_be_are_refused(during, message):
    with pytest.raises(ValueError, match=message):
        LRSchedule(RECIPE, during=during)


@pytest.mark.parametrize(
    ("schedule", "during", "message"),
    [
        (
            RECIPE,
            {"stabel": {"beta2": 0.9}},
            r"values for a phase 'stabel', and the schedule has \['warmup', 'stable', 'dec",
        ),
        (
            lambda step: 1.0,
            {"warmup": {"beta2": 0.9}},
            r"values for a phase 'warmup', and the schedule has \['anneal'\]",
        ),
        (
            RECIPE,
            {"decay": {"beta3": 0.9}},
            r"LRSchedule\(during=...\): no parameter group has a number 'beta3'. The first has numbers at \['eps'",
        ),
    ],
)
def test_what_is_not_there_is_refused_at_fit_start(tmp_path, schedule, during, message):
    with pytest.raises(MisconfigurationException, match=message):
        fit(tmp_path, LRSchedule(schedule, during=during), adamw(), ["betas"])


def test_a_cooldown_on_request_has_values_too(tmp_path):
    schedule = LRSchedule(constant(), during={"anneal": {"beta2": 0.99}})

    class Ask(L.Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 4:
                schedule.anneal_now(3)

    seen = fit(tmp_path, schedule, adamw(), ["betas"], Ask())
    assert [betas[1] for (betas,) in seen] == [0.95] * 4 + [0.99] * 3


def test_warmup_of_no_length_is_still_a_phase(tmp_path):
    seen = fit(tmp_path, LRSchedule(linear(), during={"warmup": {"beta2": 0.5}}), adamw(), ["betas"])
    assert {betas for (betas,) in seen} == {(0.9, 0.95)}
