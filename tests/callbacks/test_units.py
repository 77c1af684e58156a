"""Runs whose length, or whose phases, are counted in tokens, samples, epochs or time."""

import math
import time

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler, Timer
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, IterableDataset

from lightning_llmopt.callbacks import LRSchedule, branch
from lightning_llmopt.schedules import (
    constant,
    cosine,
    cosine_restarts,
    linear,
    multi_step,
    sequence,
    wsd,
    wsd_s,
)

from fitting import Gan, MemoryLogger, Regression, SaveAt, Watch, loader, trainer
from ranks import on_ranks


class Texts(L.LightningModule):
    """Learns nothing of use from token ids; overflows where it is told to."""

    def __init__(self, overflows=()):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.overflows = torch.nn.Embedding(8, 4), overflows

    def training_step(self, batch, batch_idx):
        ids = batch["input_ids"] if isinstance(batch, dict) else batch
        return self.layer(ids).pow(2).mean() * (math.inf if batch_idx in self.overflows else 1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def texts(lengths, *, masked=0, samples=2):
    """Batches of ``samples`` texts of these lengths; of each the first ``masked`` tokens are padding."""
    batches = []
    for length in lengths:
        mask = torch.ones(samples, length, dtype=torch.int64)
        mask[:, :masked] = 0
        batches.append({"input_ids": torch.zeros(samples, length, dtype=torch.int64), "attention_mask": mask})
    return DataLoader(batches, batch_size=None)


def fit(tmp_path, schedule, data, module=None, *callbacks, ckpt_path=None, **settings):
    watch = Watch()
    run = trainer(tmp_path, schedule, watch, *callbacks, **settings)
    run.fit(module or Texts(), data, ckpt_path=ckpt_path)
    return watch.first


WSD = wsd(warmup=10, decay="20%", shape="linear")
IN_UPDATES = [WSD.resolve(total_steps=50)(step) for step in range(50)]


@pytest.mark.parametrize(
    ("recipe", "total", "settings"),
    [
        (wsd(warmup="200 tokens", decay="20%", shape="linear"), "1k tokens", {"max_epochs": 1}),
        (wsd(warmup="200 tokens", decay="200 tokens", shape="linear"), None, {"max_epochs": 1}),
        (wsd(warmup="20 samples", decay="10 steps", shape="linear"), "1000 tokens", {"max_epochs": 1}),
        (wsd(warmup="0.2 epochs", decay="20%", shape="linear"), "100 samples", {"max_epochs": 1}),
        (wsd(warmup=10, decay="0.2 epochs", shape="linear"), "1 epoch", {"max_epochs": 7, "max_steps": 50}),
        (wsd(warmup=10, decay="20%", shape="linear"), "1000 tokens", {"max_epochs": -1}),
        (wsd(warmup=10, decay="20 samples", shape="linear"), "50 steps", {"max_epochs": -1}),
    ],
)
def test_even_batches_give_the_rates_of_updates(tmp_path, recipe, total, settings):
    schedule = LRSchedule(recipe, total=total)
    assert fit(tmp_path, schedule, texts([10] * 50), **settings) == pytest.approx(IN_UPDATES, rel=1e-12)


@pytest.mark.parametrize("window", [2, 3])
def test_a_window_is_as_long_as_its_batches(tmp_path, window):
    schedule = LRSchedule(wsd(warmup="200 tokens", decay="20%", shape="linear"), total="1000 tokens")
    rates = fit(tmp_path, schedule, texts([10] * 50), max_epochs=1, accumulate_grad_batches=window)
    ends = [min(1000, 20 * window * (number + 1)) for number in range(math.ceil(50 / window))]
    rises = [min(1.0, end / 200) for end in ends if end - 20 * window < 200]
    falls = [min(1.0, (1000 - before) / 200) for before in [0, *ends[:-1]]]
    assert rates == pytest.approx([*rises, *falls[len(rises) :]])


def test_padding_is_not_counted(tmp_path):
    schedule = LRSchedule(linear(), total="400 tokens")
    rates = fit(tmp_path, schedule, texts([10] * 25, masked=2), max_epochs=1)
    assert rates == pytest.approx([1 - step / 25 for step in range(25)])


def test_uneven_batches_move_it_by_what_they_hold(tmp_path):
    lengths = [5, 20, 1, 30, 44]
    schedule = LRSchedule(linear(), total="200 tokens")
    rates = fit(tmp_path, schedule, texts(lengths), max_epochs=1)
    assert rates == pytest.approx([1 - 2 * sum(lengths[:at]) / 200 for at in range(5)])


@pytest.mark.parametrize(
    ("data", "tokens"),
    [
        ([torch.zeros(2, 10, dtype=torch.int64)] * 5, None),
        ([(torch.zeros(2, 10, dtype=torch.int64), torch.zeros(2))] * 5, None),
        ([{"input_ids": torch.zeros(2, 10, dtype=torch.int64)}] * 5, None),
        ([torch.zeros(2, 3)] * 5, lambda batch: 20),
        ([torch.zeros(2, 3)] * 5, lambda batch: torch.tensor(20)),
    ],
)
def test_the_usual_batches_are_counted_and_others_by_a_function(tmp_path, data, tokens):
    class Any(Texts):
        def training_step(self, batch, batch_idx):
            return self.layer.weight.pow(2).mean()

    schedule = LRSchedule(linear(), total="100 tokens", tokens=tokens)
    rates = fit(tmp_path, schedule, DataLoader(data, batch_size=None), Any(), max_epochs=1)
    assert rates == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    assert schedule.state_dict()["clock"]["applied"] == [{"tokens": 100, "samples": 0}]


def test_what_cannot_be_counted_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(
        MisconfigurationException,
        match=r"tokens of a batch that is a tensor of torch.float32, shape .*tokens=lambda batch",
    ):
        fit(tmp_path, LRSchedule(linear(), total="1M tokens"), loader(), Regression(), max_epochs=1)


@pytest.mark.parametrize("found", [1.5, "7", None, -1, True, torch.tensor(1.5), torch.ones(2), torch.tensor(True)])
def test_a_count_is_a_whole_number(tmp_path, found):
    schedule = LRSchedule(linear(), total="1M tokens", tokens=lambda batch: found)
    with pytest.raises(MisconfigurationException, match=r"tokens\(batch\) must return a whole number >= 0, got"):
        fit(tmp_path, schedule, loader(), Regression(), max_epochs=1)


@pytest.mark.parametrize("tokens", [3, "input_ids"])
def test_the_counter_is_a_function(tokens):
    with pytest.raises(ValueError, match="tokens must be a function from a batch to a whole number, got"):
        LRSchedule(linear(), tokens=tokens)


def test_updates_that_the_scaler_skips_consume_nothing(tmp_path):
    precision = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=8.0))
    schedule = LRSchedule(linear(), total="1000 tokens")
    fit(tmp_path, schedule, texts([10] * 12), Texts(overflows=(3, 4)), max_epochs=1, plugins=[precision])
    assert schedule.state_dict()["updates"] == [10]
    assert schedule.state_dict()["clock"]["applied"][0]["tokens"] == 200


def test_each_optimizer_counts_the_batches_of_its_own_updates(tmp_path):
    schedule = LRSchedule(linear(), total="1000 samples")
    trainer(tmp_path, schedule, max_epochs=1).fit(Gan(critic_steps=3), loader(6))
    assert [place["samples"] for place in schedule.state_dict()["clock"]["applied"]] == [24, 24]


def counted(rank, tmp_path, strategy, devices):
    schedule, watch = LRSchedule(wsd(warmup="80 tokens", decay="20%"), total="800 tokens"), Watch()
    lengths = [10] * 10 if rank == 0 else [30] * 10
    settings = {"strategy": strategy, "devices": devices, "max_epochs": 1, "use_distributed_sampler": False}
    trainer(tmp_path, schedule, watch, **settings).fit(Texts(), texts(lengths))
    return watch.first, schedule.state_dict()["clock"]["applied"][0]["tokens"]


def test_tokens_are_summed_over_ranks(tmp_path):
    answers = on_ranks(2, counted, tmp_path, "ddp", 2)
    expected = wsd(warmup=1, decay="20%").resolve(total_steps=10)
    for rates, tokens in answers:
        assert tokens == 800
        assert rates == pytest.approx([expected(step) for step in range(10)])


class StopAt(L.Callback):
    def __init__(self, batch):
        self.batch = batch

    def on_train_batch_end(self, trainer, *args):
        trainer.should_stop = trainer.fit_loop.epoch_loop.total_batch_idx + 1 == self.batch


LENGTHS = [3, 14, 15, 9, 26, 5, 35, 8, 9, 7, 9, 3]


class Same(IterableDataset):
    """Goes on where it was, as a stateful loader does."""

    def __init__(self, start=0):
        self.start = start

    def __iter__(self):
        return iter(list(texts(LENGTHS))[self.start :])


@pytest.mark.parametrize("window", [1, 2])
@pytest.mark.parametrize("stop", range(1, 12))
@pytest.mark.parametrize(
    "recipe", [wsd(warmup="60 tokens", decay="20%"), wsd(warmup=2, decay="60 tokens")], ids=["tokens", "mixed"]
)
def test_a_resumed_run_goes_on_at_the_same_rates(tmp_path, stop, recipe, window):
    def schedule():
        return LRSchedule(recipe, total=f"{2 * sum(LENGTHS)} tokens")

    path, settings = tmp_path / "stop.ckpt", {"max_epochs": 1, "accumulate_grad_batches": window}
    whole = fit(tmp_path, schedule(), texts(LENGTHS), None, SaveAt(path, stop), **settings)
    rest = fit(tmp_path, schedule(), DataLoader(Same(stop), batch_size=None), None, ckpt_path=path, **settings)
    assert rest == whole[len(whole) - len(rest) :]
    assert len(rest) == math.ceil(12 / window) - stop // window


def test_tokens_that_were_not_counted_cannot_be_gone_on_from(tmp_path):
    path = tmp_path / "stop.ckpt"
    fit(tmp_path, LRSchedule(constant()), texts(LENGTHS), None, SaveAt(path, 4), max_epochs=1)
    with pytest.raises(
        MisconfigurationException, match="counts tokens, and the checkpoint does not say how many there"
    ):
        fit(tmp_path, LRSchedule(linear(), total="1M tokens"), texts(LENGTHS), ckpt_path=path, max_epochs=1)


def test_an_endless_trainer_is_stopped_at_the_end_of_the_schedule(tmp_path):
    run = trainer(tmp_path, LRSchedule(linear(), total="70 samples"), max_epochs=-1)
    run.fit(Texts(), texts([10] * 4))
    assert run.global_step == 35


def test_a_trainer_with_an_end_of_its_own_is_not(tmp_path):
    rates = fit(tmp_path, LRSchedule(linear(floor=0.1), total="8 samples"), texts([10] * 6), max_epochs=1)
    assert rates == pytest.approx([1, 0.775, 0.55, 0.325, 0.1, 0.1])


def test_epochs_under_a_scheduler_of_windows(tmp_path):
    windows = GradientAccumulationScheduler({0: 1, 2: 4})
    schedule = LRSchedule(linear(), total="3 epochs")
    rates = fit(tmp_path, schedule, loader(8), Regression(), windows, max_epochs=4)
    assert rates == pytest.approx([*(0.1 * (1 - step / 18) for step in range(18)), 0, 0])
    with pytest.raises(
        MisconfigurationException, match=r"length of 1 epochs means a different number .* in every epoch"
    ):
        fit(tmp_path, LRSchedule(wsd(decay="1 epoch")), loader(8), Regression(), windows, max_epochs=4)


def test_epochs_without_a_length_are_refused(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"A length in epochs \(2\) needs epochs of a known length"):
        fit(tmp_path, LRSchedule(linear(), total="2 epochs"), DataLoader(Same(), batch_size=None), max_epochs=2)


class Slow(Texts):
    def training_step(self, batch, batch_idx):
        time.sleep(0.004)
        return super().training_step(batch, batch_idx)


def annealed(rates, floor=0.0):
    """Rises, holds, and comes down to the floor where the run ends."""
    top = [at for at, rate in enumerate(rates) if rate == 1.0]
    assert rates[: top[0]] == sorted(rates[: top[0]])
    assert rates[top[-1] :] == sorted(rates[top[-1] :], reverse=True)
    assert floor <= rates[-1] < floor + 0.1, rates[-1]
    return len(rates) - top[-1] - 1


@pytest.mark.parametrize(
    "recipe",
    [
        wsd(warmup=10, decay="40%", shape="linear"),
        wsd(warmup="0.1 s", decay="0.4 s", shape="linear"),
        wsd(warmup="10%", decay=60, shape="linear"),
        wsd(warmup="100 tokens", decay="1200 tokens", shape="linear"),
    ],
)
def test_with_a_time_limit_the_decay_ends_with_the_time(tmp_path, recipe):
    limit = {"seconds": 1}
    rates = fit(tmp_path, LRSchedule(recipe), texts([10] * 50), Slow(), max_time=limit, max_epochs=-1)
    assert 10 < annealed(rates) < 0.8 * len(rates)
    assert rates[0] > 0


def test_a_time_limit_that_will_cut_a_run_of_updates_is_said_early(tmp_path):
    limit = {"max_time": {"seconds": 1}, "max_steps": 10_000, "max_epochs": -1, "log_every_n_steps": 10}
    with pytest.warns(
        UserWarning, match=r'max_time ends the run at about update \d+ of 10000.*total="0.0166667 min"'
    ) as all_:
        rates = fit(tmp_path, LRSchedule(linear()), texts([10] * 50), Slow(), **limit)
    assert sum("max_time" in str(one.message) for one in all_) == 1
    assert rates[-1] > 0.9


def test_a_time_limit_that_will_not_cut_it_is_not_said(tmp_path):
    limit = {"max_time": {"seconds": 9}, "max_steps": 100, "max_epochs": -1, "log_every_n_steps": 10}
    rates = fit(tmp_path, LRSchedule(linear()), texts([10] * 50), Slow(), **limit)
    assert rates == pytest.approx([1 - step / 100 for step in range(100)])


def test_the_time_is_that_of_the_timer_and_goes_on_after_a_resume(tmp_path):
    path, limit = tmp_path / "stop.ckpt", {"seconds": 1}
    recipe = wsd(warmup=10, decay="50%", shape="linear")
    first = fit(
        tmp_path, LRSchedule(recipe), texts([10] * 50), Slow(), SaveAt(path, 60), StopAt(60), max_epochs=-1,
        max_time=limit,
    )  # fmt: skip
    time.sleep(0.7)  # a machine that is away is no training
    rest = fit(tmp_path, LRSchedule(recipe), texts([10] * 50), Slow(), max_time=limit, max_epochs=-1, ckpt_path=path)
    assert set(first[10:]) == {1.0}
    assert annealed([*first, *rest]) > 10
    assert rest[0] > 0.8


def test_a_length_in_time_needs_no_time_limit(tmp_path):
    schedule = LRSchedule(cosine(), total="0.5 s")
    start = time.monotonic()
    rates = fit(tmp_path, schedule, texts([10] * 50), Slow(), max_epochs=-1)
    assert 0.5 < time.monotonic() - start < 5
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.9
    assert rates[-1] < 0.05


def timed(rank, tmp_path):
    module, watch = Slow(), Watch()
    timer = Timer({"seconds": 1})
    if rank:
        time.sleep(0.1)
    schedule = LRSchedule(wsd(warmup="0.1 s", decay="40%"))
    run = trainer(tmp_path, schedule, watch, timer, strategy="ddp", devices=2, max_epochs=-1)
    run.fit(module, texts([10] * 50))
    return watch.first


def test_all_ranks_go_by_the_same_clock(tmp_path):
    one, other = on_ranks(2, timed, tmp_path)
    assert one == other
    annealed(one)


def test_consumed_tokens_phase_and_progress_are_logged(tmp_path):
    logger = MemoryLogger()
    schedule = LRSchedule(wsd(warmup="40 tokens", decay="80 tokens"), total="200 tokens")
    fit(tmp_path, schedule, texts([10] * 10), logger=logger, log_every_n_steps=1, max_epochs=1)
    assert list(logger.points["schedule/phase"].values()) == [0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert list(logger.points["schedule/progress"].values()) == pytest.approx([at / 10 for at in range(10)])
    assert list(logger.points["schedule/tokens"].values()) == [20.0 * at for at in range(10)]


@pytest.mark.parametrize("settings", [{"max_epochs": 1_000}, {"max_steps": 100_000}])
@pytest.mark.parametrize("decay", ["30%", 60])
def test_of_two_limits_the_decay_ends_with_the_one_that_comes_first(tmp_path, settings, decay):
    recipe = wsd(warmup=4, decay=decay, shape="linear")
    rates = fit(tmp_path, LRSchedule(recipe), texts([10] * 50), Slow(), max_time={"seconds": 1}, **settings)
    assert 10 < annealed(rates) < 0.8 * len(rates)
    long = {"max_time": {"seconds": 30}, "max_steps": 40}
    schedule = recipe.resolve(total_steps=40) if decay == "30%" else None
    if schedule is not None:
        rates = fit(tmp_path, LRSchedule(recipe), texts([10] * 50), Slow(), **long)
        assert rates == [schedule(step) for step in range(40)]


def test_the_decay_by_the_time_goes_on_after_a_resume(tmp_path):
    path, settings = tmp_path / "stop.ckpt", {"max_time": {"seconds": 1}, "max_steps": 100_000}
    recipe = wsd(warmup=4, decay="50%", shape="linear")

    class Late(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            late = trainer.global_step > 10 and trainer.optimizers[0].param_groups[0]["lr"] < 0.6
            if late and not path.exists():
                trainer.save_checkpoint(path)
                trainer.should_stop = True

    first = fit(tmp_path, LRSchedule(recipe), texts([10] * 50), Slow(), Late(), **settings)
    rest = fit(tmp_path, LRSchedule(recipe), texts([10] * 50), Slow(), ckpt_path=path, **settings)
    assert annealed([*first, *rest]) > 10
    assert 0.5 < rest[0] <= first[-1]


def test_phases_that_turn_out_not_to_fit_are_said_with_the_numbers(tmp_path):
    schedule = LRSchedule(wsd(warmup=100, decay="20%", shape="linear"), total="700 tokens")
    message = (
        "wsd does not fit into the run: warmup had 28 updates of 100 updates when decay had to begin, which goes down"
    )
    with pytest.warns(UserWarning, match=message):
        fit(tmp_path, schedule, texts([10] * 35), max_epochs=1)


@pytest.mark.parametrize(
    "recipe",
    [
        wsd(decay="100 tokens"), wsd_s(periods=["200 tokens", "400 tokens"]), cosine_restarts(first_cycle="200 tokens"),
        sequence(parts=[(linear(), "200 tokens"), (constant(), None)]), multi_step(milestones={"200 tokens": 0.5}),
    ],
)  # fmt: skip
def test_nothing_has_no_unit(tmp_path, recipe):
    schedule = recipe.resolve(total_steps=600, unit="tokens")
    rates = fit(tmp_path, LRSchedule(recipe, total="600 tokens"), texts([10] * 30), max_epochs=1)
    assert rates == pytest.approx([schedule(20 * step, 20) for step in range(30)])


def test_a_batch_that_is_skipped_is_not_counted(tmp_path):
    class Skips(Texts):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 3 else None

    schedule = LRSchedule(linear(), total="1000 tokens")
    fit(tmp_path, schedule, texts([10] * 8), Skips(), max_epochs=3)
    assert schedule.state_dict()["updates"] == [9]
    assert schedule.state_dict()["clock"]["applied"][0]["tokens"] == 180


def test_a_counter_that_fails_is_named(tmp_path):
    schedule = LRSchedule(linear(), total="1M tokens", tokens=lambda batch: batch["nope"])
    with pytest.raises(MisconfigurationException, match=r"tokens\(batch\) failed for a dict .*: KeyError\('nope'\)"):
        fit(tmp_path, schedule, texts([10] * 8), max_epochs=1)


def test_a_sum_below_zero_is_refused(tmp_path):
    schedule = LRSchedule(linear(), total="1M tokens", tokens=lambda batch: torch.tensor(-3))
    with pytest.raises(MisconfigurationException, match=r"must return a whole number >= 0, got a sum of -3"):
        fit(tmp_path, schedule, texts([10] * 8), max_epochs=1)


class Late(L.Callback):
    """Saves in the decay, and stops there."""

    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step > 10 and trainer.optimizers[0].param_groups[0]["lr"] < 0.7 and not self.path.exists():
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def stopped_in_the_decay_by_the_time(tmp_path):
    path, recipe = tmp_path / "stop.ckpt", wsd(warmup=4, decay="60%", shape="linear")
    settings = {"max_time": {"seconds": 1}, "max_steps": 100_000}
    first = fit(tmp_path, LRSchedule(recipe), texts([10] * 50), Slow(), Late(path), **settings)
    return path, recipe, settings, first


def test_keep_keeps_the_time_limit_too(tmp_path):
    path, recipe, settings, first = stopped_in_the_decay_by_the_time(tmp_path)
    rest = fit(tmp_path, LRSchedule(recipe, on_change="keep"), texts([10] * 50), Slow(), ckpt_path=path, **settings)
    assert rest[0] <= first[-1] < 0.8
    assert rest[-1] < 0.1


def test_another_time_limit_in_the_decay_is_a_change(tmp_path):
    path, recipe, settings, _ = stopped_in_the_decay_by_the_time(tmp_path)
    message = (
        "length of the run: 100000 updates, at most 4 seconds, the checkpoint had 100000 updates, at most 1 seconds"
    )
    with pytest.raises(MisconfigurationException, match=message):
        fit(
            tmp_path,
            LRSchedule(recipe),
            texts([10] * 50),
            Slow(),
            ckpt_path=path,
            **settings | {"max_time": {"seconds": 4}},
        )


def test_no_branch_leaves_from_a_decay_by_the_time(tmp_path):
    path, *_ = stopped_in_the_decay_by_the_time(tmp_path)
    with pytest.raises(ValueError, match="checkpoint must lie in a stable phase, got update .*, which is in 'decay'"):
        branch(path, decay=5)
