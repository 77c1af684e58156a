"""Finished models from one trunk: each must be the model that a run of its own would have made."""

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, IterableDataset

from lightning_llmopt.callbacks import LRSchedule, branch, branch_many
from lightning_llmopt.schedules import constant, inverse_sqrt, linear, wsd

from fitting import Gan, Regression, Watch, loader, trainer, weights

TOTALS = [20, 30, 50]


def same(batches=60):
    """The batches of update 0, 1, 2, ...: the same in every run, wherever it starts."""
    return list(loader(batches, seed=3))


class From(IterableDataset):
    """Goes on where the checkpoint was, as a stateful loader does."""

    def __init__(self, start):
        self.start = start

    def __iter__(self):
        return iter(same()[self.start :])


def alone(tmp_path, total, optimizer=torch.optim.AdamW, **settings):
    watch, module = Watch(), Regression(optimizer)
    recipe = wsd(warmup=4, decay="20%", shape="sqrt", **settings)
    trainer(tmp_path, LRSchedule(recipe), watch, max_steps=total).fit(module, DataLoader(same(), batch_size=None))
    return watch.rates, weights(module)


def test_every_branch_is_the_model_that_a_run_of_its_own_would_have_made(tmp_path, capsys):
    runs = []

    def fit(callbacks, ckpt_path):
        start = torch.load(ckpt_path, weights_only=True)["global_step"] if ckpt_path else 0
        watch, module = Watch(), Regression(torch.optim.AdamW)
        run = trainer(tmp_path, *callbacks, watch, max_epochs=-1)
        run.fit(module, DataLoader(From(start), batch_size=None), ckpt_path=ckpt_path)
        runs.append(len(watch.rates))
        return watch.rates, weights(module)

    branches = branch_many(fit, totals=TOTALS, folder=tmp_path / "trunk", warmup=4, decay=0.2)
    assert runs == [40, 4, 6, 10]
    for total in TOTALS:
        rates, model = alone(tmp_path, total)
        own, own_model = branches.results[total]
        assert own == rates[-len(own) :]
        assert torch.equal(own_model, model)
    assert sorted(path.name for path in (tmp_path / "trunk").iterdir()) == [
        "trunk-16.ckpt",
        "trunk-24.ckpt",
        "trunk-40.ckpt",
    ]
    assert branches.cost.saved == pytest.approx(0.4)
    assert str(branches).endswith("saved: 40.0%")
    assert capsys.readouterr().out.endswith(f"{branches}\n")

    runs.clear()  # a longer one later goes on from the trunk that is there
    more = branch_many(fit, totals=[30, 60], folder=tmp_path / "trunk", warmup=4, decay=0.2)
    assert runs == [8, 6, 12]
    assert torch.equal(more.results[60][1], alone(tmp_path, 60)[1])


def trunk(tmp_path, recipe=None, *, stop=10, module=None, **settings):
    path = tmp_path / "trunk.ckpt"
    run = trainer(tmp_path, LRSchedule(recipe or constant(warmup=4), **settings), max_steps=stop)
    run.fit(module or Regression(), loader(6))
    run.save_checkpoint(path)
    return path


def finish(tmp_path, path, callback, module=None, **settings):
    watch = Watch()
    run = trainer(tmp_path, callback, watch, **{"max_epochs": -1, **settings})
    run.fit(module or Regression(), loader(6), ckpt_path=path)
    return watch.first


@pytest.mark.parametrize(("decay", "updates"), [(5, 5), ("50%", 10), ("12 samples", 3)])
def test_a_branch_cools_down_and_stops(tmp_path, decay, updates):
    path = trunk(tmp_path, total="1M samples")
    rates = finish(tmp_path, path, branch(path, decay=decay, shape="linear"))
    assert rates == pytest.approx([0.1 * (1 - step / updates) for step in range(updates)])


@pytest.mark.filterwarnings("ignore:LRSchedule. the run ended after 13 updates of SGD, but the cooldown")
def test_a_branch_that_is_killed_goes_on(tmp_path):
    path, killed = trunk(tmp_path), tmp_path / "killed.ckpt"
    whole = finish(tmp_path, path, branch(path, decay=8))
    run = trainer(tmp_path, branch(path, decay=8), max_steps=13)
    with pytest.raises(MisconfigurationException, match="the fall takes 8 updates, and the Trainer stops after 3"):
        run.fit(Regression(), loader(6), ckpt_path=path)

    class Kill(Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 13:
                trainer.save_checkpoint(killed)
                trainer.should_stop = True

    run = trainer(tmp_path, branch(path, decay=8), Kill(), max_epochs=-1)
    run.fit(Regression(), loader(6), ckpt_path=path)
    assert finish(tmp_path, killed, branch(path, decay=8)) == whole[3:]


def test_from_a_trunk_that_falls_by_itself(tmp_path):
    path = trunk(tmp_path, inverse_sqrt(warmup=4))
    with pytest.raises(ValueError, match="checkpoint must lie in a stable phase, got update 10 .* which is in 'decay'"):
        branch(path, decay=5)


@pytest.mark.parametrize(("recipe", "phase"), [(constant(warmup=10), "warmup"), (linear(), "decay")])
def test_a_checkpoint_outside_of_the_stable_phase_is_refused(tmp_path, recipe, phase):
    path = trunk(tmp_path, recipe)
    with pytest.raises(
        ValueError, match=f"in a stable phase, got update 10 .* in '{phase}'. Take an earlier one, or cool"
    ):
        branch(path, decay=5)


def test_checkpoints_that_are_none_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match="checkpoint must be one that a Trainer has written, and there is no '.*no.ckpt'"
    ):
        branch(tmp_path / "no.ckpt", decay=5)
    run = trainer(tmp_path, max_steps=3)
    run.fit(Regression(), loader(6))
    run.save_checkpoint(tmp_path / "plain.ckpt")
    with pytest.raises(ValueError, match="checkpoint must be one of a Trainer with LRSchedule in its callbacks, got"):
        branch(tmp_path / "plain.ckpt", decay=5)
    with pytest.raises(ValueError, match=r"branch takes no \['total'\]: it keeps the checkpoint's schedule"):
        branch(trunk(tmp_path), decay=5, total=10)


def test_without_its_checkpoint_a_branch_does_not_start(tmp_path):
    path = trunk(tmp_path)
    with pytest.raises(MisconfigurationException, match="branch: fit was not given the checkpoint. Say trainer.fit"):
        finish(tmp_path, None, branch(path, decay=5))


def test_two_optimizers_finish_together(tmp_path):
    path = trunk(tmp_path, module=Gan(), total=100, stop=20)
    rates = finish(tmp_path, path, branch(path, decay=5, shape="linear"), Gan())
    assert rates[::2] == pytest.approx([0.04 * (1 - step / 5) for step in range(5)])
    assert rates[1::2] == pytest.approx([0.01 * (1 - step / 5) for step in range(5)])


def test_a_trunk_of_another_warmup_is_not_gone_on_from(tmp_path):
    def fit(callbacks, ckpt_path):
        trainer(tmp_path, *callbacks, max_epochs=-1).fit(Regression(), loader(60), ckpt_path=ckpt_path)

    branch_many(fit, totals=[10], folder=tmp_path / "trunk", warmup=1)
    with pytest.raises(ValueError, match=r"the same warmup, got .*, whose trunk was constant\(warmup=1\). Name"):
        branch_many(fit, totals=[20], folder=tmp_path / "trunk", warmup=2)


def test_a_trunk_with_mixed_units_is_looked_at_too(tmp_path):
    path = trunk(tmp_path, wsd(warmup=2, decay="40 samples"), total=12, stop=9)
    with pytest.raises(ValueError, match="in a stable phase, got update 9 .* in 'decay'"):
        branch(path, decay=5)


@pytest.mark.parametrize("decay", ["20 samples", "0.2 s"])
def test_a_fall_may_count_what_the_trunk_did_not(tmp_path, decay):
    path = trunk(tmp_path)
    rates = finish(tmp_path, path, branch(path, decay=decay, shape="linear"))
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.09
    assert len(rates) == 5 or decay == "0.2 s"


def test_values_of_the_decay_are_for_the_branch_too(tmp_path):
    class Note(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            seen.append(optimizer.param_groups[0]["weight_decay"])

    seen, module = [], Regression(weight_decay=0.1)
    path = trunk(tmp_path, module=module)
    run = trainer(tmp_path, branch(path, decay=3, during={"decay": {"weight_decay": 0.3}}), Note(), max_epochs=-1)
    run.fit(Regression(weight_decay=0.1), loader(6), ckpt_path=path)
    assert seen == [0.3] * 3


def test_a_warmup_that_the_first_branch_would_leave_from_is_refused(tmp_path):
    with pytest.raises(ValueError, match="warmup must be over where the first branch leaves, at update 16, got 17"):
        branch_many(lambda callbacks, ckpt_path: None, totals=TOTALS, folder=tmp_path, warmup=17)
