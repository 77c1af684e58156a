"""A run that is told to come to its end: from code, by a file, by a signal."""

import os
import signal
import time

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_llmopt.callbacks import LRSchedule
from lightning_llmopt.schedules import Anneal, constant, linear, wsd

from fitting import Gan, MemoryLogger, Regression, Watch, loader, trainer
from ranks import on_ranks


class At(L.Callback):
    """Does something when ``batch`` batches are over."""

    def __init__(self, batch, act):
        self.batch, self.act = batch, act

    def on_train_batch_end(self, trainer, *args):
        if trainer.fit_loop.epoch_loop.total_batch_idx + 1 == self.batch:
            self.act()


def cooled(start, length, shape="linear", base=0.1):
    """Rates of an endless constant run that begins to cool at update ``start``."""
    fall = wsd(decay=length, shape=shape).resolve(total_steps=length)
    return [base] * start + [base * fall(step) for step in range(length)]


def fit(tmp_path, schedule, *callbacks, ckpt_path=None, module=None, **settings):
    watch = Watch()
    run = trainer(tmp_path, schedule, *callbacks, watch, **{"max_epochs": -1, **settings})
    run.fit(module or Regression(), loader(6), ckpt_path=ckpt_path)
    return watch.first


def test_from_code_an_endless_run_cools_down_and_stops(tmp_path):
    schedule = LRSchedule(constant())
    rates = fit(tmp_path, schedule, At(10, lambda: schedule.anneal_now(8, "linear")))
    assert rates == pytest.approx(cooled(10, 8))


@pytest.mark.parametrize(
    ("anneal", "length", "shape"),
    [
        (None, 4, "sqrt"),
        (Anneal(duration=5, shape="linear"), 5, "linear"),
        (Anneal(duration="50%", shape="cosine"), 13, "cosine"),
    ],
)
def test_a_file_in_the_runs_folder_does_the_same_and_is_taken_away(tmp_path, anneal, length, shape):
    file = tmp_path / "ANNEAL"
    rates = fit(tmp_path, LRSchedule(constant(), anneal=anneal), At(12, file.touch))
    assert rates == pytest.approx(cooled(13, length, shape))  # it is seen when the next batch is over
    assert not file.exists()


def test_it_may_lie_in_the_loggers_folder(tmp_path):
    logger = L.pytorch.loggers.CSVLogger(tmp_path / "logs")
    os.makedirs(logger.log_dir)
    touch = At(12, (tmp_path / "logs" / "lightning_logs" / "version_0" / "ANNEAL").touch)
    rates = fit(tmp_path, LRSchedule(constant()), touch, logger=logger)
    assert len(rates) == 17


def test_a_signal_does_the_same_and_is_listened_to_only_while_training(tmp_path):
    assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL
    rates = fit(tmp_path, LRSchedule(constant()), At(12, lambda: os.kill(os.getpid(), signal.SIGUSR2)))
    assert rates == pytest.approx(cooled(13, 4, "sqrt"))
    assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL


def test_a_signal_that_somebody_listens_to_is_left_to_him(tmp_path):
    heard = []
    before = signal.signal(signal.SIGUSR2, lambda *args: heard.append(1))
    try:
        rates = fit(tmp_path, LRSchedule(constant()), At(4, lambda: os.kill(os.getpid(), signal.SIGUSR2)), max_steps=9)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert heard == [1]
    assert rates == [0.1] * 9


def test_neither_is_looked_for_if_it_is_not_wanted(tmp_path):
    quiet = LRSchedule(constant(), anneal=Anneal(file=None, signal=None))
    rates = fit(tmp_path, quiet, At(4, (tmp_path / "ANNEAL").touch), max_steps=9)
    assert rates == [0.1] * 9


def test_the_recipes_own_decay_is_the_length(tmp_path):
    schedule = LRSchedule(wsd(warmup=2, decay=5), total="1M steps")
    rates = fit(tmp_path, schedule, At(10, schedule.anneal_now))
    assert len(rates) == 15


def test_it_goes_down_from_wherever_the_rate_is(tmp_path):
    schedule = LRSchedule(linear(warmup=100), total=1_000)
    rates = fit(tmp_path, schedule, At(10, lambda: schedule.anneal_now(4, "linear", floor=0.04)))
    assert rates[:10] == pytest.approx([0.001 * (at + 1) for at in range(10)])
    top = 0.11
    assert rates[10:] == pytest.approx([0.1 * (0.04 + (top - 0.04) * (1 - step / 4)) for step in range(4)])


def test_in_the_unit_of_the_run(tmp_path):
    schedule = LRSchedule(constant(), total="1M samples")
    rates = fit(tmp_path, schedule, At(10, lambda: schedule.anneal_now("32 samples", "linear")))
    assert rates == pytest.approx(cooled(10, 8))


def test_in_time(tmp_path):
    class Slow(Regression):
        def training_step(self, batch, batch_idx):
            time.sleep(0.005)
            return super().training_step(batch, batch_idx)

    schedule = LRSchedule(constant(), anneal=Anneal(duration="0.3 s", shape="linear"))
    rates = fit(tmp_path, schedule, At(10, schedule.anneal_now), module=Slow())
    assert rates[:10] == [0.1] * 10
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.01
    assert len(rates) > 20


@pytest.mark.parametrize("stop", [10, 11, 14, 17])
def test_a_run_that_is_killed_while_it_cools_goes_on_cooling(tmp_path, stop):
    whole, path = LRSchedule(constant()), tmp_path / "stop.ckpt"
    save = At(stop, lambda: whole._trainer.save_checkpoint(path))
    expected = fit(tmp_path, whole, At(10, lambda: whole.anneal_now(8, "linear")), save)
    assert fit(tmp_path, LRSchedule(constant()), ckpt_path=path) == expected[stop:]


def test_a_second_request_changes_nothing(tmp_path):
    schedule = LRSchedule(constant())
    acts = [At(at, lambda: schedule.anneal_now(8, "linear")) for at in (10, 12)]
    rates = fit(tmp_path, schedule, *acts, At(13, (tmp_path / "ANNEAL").touch))
    assert rates == pytest.approx(cooled(10, 8))


def test_every_optimizer_cools_from_its_own_count(tmp_path):
    schedule = LRSchedule(constant())
    seen = []

    class Note(Watch):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            seen.append((trainer.optimizers.index(optimizer), optimizer.param_groups[0]["lr"]))

    fit(tmp_path, schedule, At(5, lambda: schedule.anneal_now(6, "linear")), Note(), module=Gan(critic_steps=2))
    generator, critic = ([rate for index, rate in seen if index == at] for at in (0, 1))
    assert generator == pytest.approx(cooled(5, 6, base=0.01))
    assert critic == pytest.approx([*cooled(10, 6, base=0.04), *[0.0] * 6])


def test_phase_and_progress_say_so(tmp_path):
    schedule, logger = LRSchedule(constant()), MemoryLogger()
    act = At(6, lambda: schedule.anneal_now(6, "linear"))
    fit(tmp_path, schedule, act, logger=logger, log_every_n_steps=1)
    assert list(logger.points["schedule/phase"].values()) == [0.0] * 6 + [1.0] * 6  # stable, anneal
    assert list(logger.points["schedule/progress"].values()) == [at / 12 for at in range(6, 12)]


@pytest.mark.parametrize(
    ("call", "settings", "message"),
    [
        ((50,), {"max_steps": 20}, "the fall takes 50 updates, and the Trainer stops after 15. Shorten it, or give"),
        (
            ("1M tokens",),
            {"max_steps": 20},
            r"a length of 1000000 tokens cannot be counted in this run.*Anneal\(duration=",
        ),
    ],
)
def test_what_cannot_be_played_is_refused(tmp_path, call, settings, message):
    schedule = LRSchedule(constant())
    with pytest.raises(MisconfigurationException, match=message):
        fit(tmp_path, schedule, At(5, lambda: schedule.anneal_now(*call)), **settings)


def test_a_request_from_outside_that_cannot_be_played_ends_no_run(tmp_path):
    schedule = LRSchedule(constant(), anneal=Anneal(duration=50))
    with pytest.warns(
        UserWarning, match="the request to anneal cannot be met, and training goes on. anneal_now: the fall"
    ):
        rates = fit(tmp_path, schedule, At(5, (tmp_path / "ANNEAL").touch), max_steps=20)
    assert rates == [0.1] * 20


def test_without_a_run_there_is_nothing_to_anneal(tmp_path):
    with pytest.raises(MisconfigurationException, match="anneal_now: no run is under way. Call it while trainer.fit"):
        LRSchedule(constant()).anneal_now()


def asked(rank, tmp_path, by):
    class Ask(L.Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 13:
                if by == "signal" and rank == 1:
                    os.kill(os.getpid(), signal.SIGUSR2)
                if by == "file" and rank == 0:
                    (tmp_path / "ANNEAL").touch()

    watch = Watch()
    settings = {"strategy": "ddp", "devices": 2, "max_epochs": -1, "log_every_n_steps": 10}
    run = trainer(tmp_path, LRSchedule(constant(), anneal=Anneal(duration=6)), Ask(), watch, **settings)
    run.fit(Regression(), loader(6))
    return watch.first


@pytest.mark.parametrize("by", ["file", "signal"])
def test_all_ranks_begin_at_the_same_update(tmp_path, by):
    one, other = on_ranks(2, asked, tmp_path, by)
    assert one == other == pytest.approx(cooled(20, 6, "sqrt"))


def test_a_file_from_before_the_run_is_taken_away_with_a_line(tmp_path):
    (tmp_path / "ANNEAL").touch()
    with pytest.warns(UserWarning, match="ANNEAL is from before this run, and was taken away. Touch it again"):
        rates = fit(tmp_path, LRSchedule(constant()), max_steps=9)
    assert rates == [0.1] * 9


def test_several_schedules_cool_together_and_the_run_stops_with_the_last(tmp_path):
    fast, slow = (Anneal(duration=length, shape="linear") for length in (4, 6))
    watch = Watch()
    callbacks = [LRSchedule(constant(), group=0, anneal=fast), LRSchedule(constant(), group="head", anneal=slow)]
    run = trainer(tmp_path, At(5, (tmp_path / "ANNEAL").touch), *callbacks, watch, max_epochs=-1)
    run.fit(Regression(), loader(6))
    assert watch.rates == [
        pytest.approx([body, head])
        for body, head in zip([*cooled(5, 4), 0.0, 0.0], cooled(5, 6, base=0.01), strict=True)
    ]


def test_time_that_the_trainer_does_not_have_is_refused(tmp_path):
    schedule = LRSchedule(constant(), anneal=Anneal(duration="10 s"))
    with pytest.raises(MisconfigurationException, match=r"takes 10 s, and max_time leaves [\d.]+ s. Shorten it, or"):
        fit(tmp_path, schedule, At(5, schedule.anneal_now), max_time={"seconds": 3})


def test_a_cooldown_that_the_run_does_not_finish_is_said(tmp_path):
    schedule = LRSchedule(constant(), anneal=Anneal(duration="60 samples"))
    with pytest.warns(UserWarning, match="after 12 updates of SGD, but the cooldown that was asked for was not"):
        fit(tmp_path, schedule, At(10, schedule.anneal_now), max_epochs=2)


def test_the_finished_model_is_kept_where_checkpoints_are(tmp_path):
    saves = L.pytorch.callbacks.ModelCheckpoint(tmp_path / "kept", every_n_train_steps=4)
    schedule = LRSchedule(constant())
    ask = At(10, lambda: schedule.anneal_now(5))
    fit(tmp_path, schedule, ask, saves, enable_checkpointing=True)
    assert (tmp_path / "kept" / "annealed-step=15.ckpt").exists()
    assert torch.load(tmp_path / "kept" / "annealed-step=15.ckpt", weights_only=True)["global_step"] == 15
