"""The schedule as a picture, drawn by the run that is about to follow it."""

import csv

import lightning as L
import matplotlib.image
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_llmopt.callbacks import HyperparameterSchedule, LRSchedule
from lightning_llmopt.schedules import constant, inverse_sqrt, linear, wsd

from fitting import Gan, Regression, loader, trainer
from ranks import on_ranks

RECIPE = wsd(warmup=1, decay=4, floor=0.1)


def rows(file):
    with file.open() as lines:
        return list(csv.DictReader(lines))


def test_is_drawn_into_the_log_folder_and_into_tensorboard(tmp_path):
    logger = L.pytorch.loggers.TensorBoardLogger(tmp_path)
    callbacks = [
        LRSchedule(RECIPE, preview=True, during={"decay": {"beta2": 0.99}}),
        HyperparameterSchedule("weight_decay", linear(floor=0.5)),
    ]
    module = Regression(torch.optim.AdamW, betas=(0.9, 0.95), weight_decay=0.1)
    trainer(tmp_path, *callbacks, logger=logger, max_epochs=2).fit(module, loader(10))
    folder = tmp_path / "lightning_logs" / "version_0"
    schedule, falling = RECIPE.resolve(total_steps=20), linear(floor=0.5).resolve(total_steps=20)
    for step, row in enumerate(rows(folder / "lr_schedule.csv")):
        assert float(row["lr/AdamW/group0"]) == 0.1 * schedule(step)
        assert float(row["lr/AdamW/head"]) == 0.01 * schedule(step)
        assert float(row["beta2"]) == (0.99 if step >= 16 else 0.95)
        assert float(row["weight_decay"]) == 0.1 * falling(step)
        assert row["phase"] == schedule.phase_at(step).name
    assert matplotlib.image.imread(folder / "lr_schedule.png").shape[2] in (3, 4)
    events = EventAccumulator(str(folder)).Reload()
    (image,) = events.Images("schedule/preview")
    assert image.width > 400


def test_goes_into_the_file_that_is_named(tmp_path):
    schedule = LRSchedule(RECIPE, preview=tmp_path / "new" / "lr.png")
    trainer(tmp_path, schedule, max_epochs=2).fit(Gan(), loader(10))
    assert (tmp_path / "new" / "lr.png").stat().st_size > 5_000
    assert list(rows(tmp_path / "new" / "lr.csv")[0]) == [
        "update",
        "phase",
        "multiplier",
        "lr/Adam/group0",
        "lr/Adam-1/group0",
    ]


def test_says_what_looks_unintended(tmp_path):
    schedule = LRSchedule(wsd(warmup=4, decay=4), preview=True)
    with pytest.warns(UserWarning, match="LRSchedule: The warmup takes 4 of 20 updates"):
        trainer(tmp_path, schedule, max_epochs=2).fit(Regression(), loader(10))


def test_a_disk_that_is_full_ends_no_run(tmp_path):
    (tmp_path / "file").touch()
    run = trainer(tmp_path, LRSchedule(RECIPE, preview=tmp_path / "file" / "lr.png"), max_epochs=2)
    with pytest.warns(UserWarning, match="the preview could not be written to .*lr.png: .*. Training goes on."):
        run.fit(Regression(), loader(10))
    assert run.global_step == 20


def test_units_that_are_mixed_cannot_be_drawn_before_the_run(tmp_path):
    schedule = LRSchedule(wsd(warmup="8 samples", decay=4), preview=True)
    with pytest.warns(UserWarning, match="lengths in several units are known as the run goes, not before it"):
        trainer(tmp_path, schedule, max_epochs=2).fit(Regression(), loader(10))


@pytest.mark.parametrize("wrong", [3, None, "", "lr.pdf", "folder"])
def test_is_a_choice_or_a_png_file(wrong):
    with pytest.raises(
        ValueError, match="preview must (be True, False or the PNG file to write|name a PNG file, such as)"
    ):
        LRSchedule(RECIPE, preview=wrong)


def drawn(rank, tmp_path):
    folder = tmp_path / str(rank)
    schedule = LRSchedule(RECIPE, preview=True)
    run = trainer(folder, schedule, strategy="ddp", devices=2, max_epochs=2)
    run.fit(Regression(), loader(20))
    return sorted(file.name for file in folder.rglob("lr_schedule.*"))


def test_rank_0_draws_it_alone(tmp_path):
    assert on_ranks(2, drawn, tmp_path) == [["lr_schedule.csv", "lr_schedule.png"], []]


@pytest.mark.parametrize(
    ("schedule", "settings"),
    [
        (constant(), {"max_epochs": -1}), (lambda step: 1.0, {"max_epochs": -1}),
        (constant(warmup=5), {"max_epochs": -1}),
        (inverse_sqrt(warmup=5), {"max_epochs": -1}), (wsd(decay="20%"), {"max_time": {"seconds": 20}}),
    ],
)  # fmt: skip
def test_runs_without_an_end_and_runs_by_the_clock_are_drawn_too(tmp_path, schedule, settings):
    class Stop(L.Callback):
        def on_train_batch_end(self, trainer, *args):
            trainer.should_stop = trainer.global_step >= 3

    trainer(tmp_path, LRSchedule(schedule, preview=True), Stop(), **settings).fit(Regression(), loader(10))
    assert len(rows(tmp_path / "lr_schedule.csv")) >= 1_000


def test_a_schedule_that_the_trainer_does_not_finish_is_pointed_out(tmp_path):
    schedule = LRSchedule(wsd(), total=100, preview=True)
    with pytest.warns(UserWarning, match="never reaches 'decay'"):
        trainer(tmp_path, schedule, max_steps=20).fit(Regression(), loader(10))


def test_two_schedules_have_two_pictures_and_odd_names_do_no_harm(tmp_path):
    module = Regression()
    configure = module.configure_optimizers

    def named():
        optimizer = configure()
        optimizer.param_groups[0]["name"] = "a\nb"
        return optimizer

    module.configure_optimizers = named
    callbacks = [LRSchedule(RECIPE, group=0, preview=True), LRSchedule(RECIPE, group="head", preview=True)]
    trainer(tmp_path, *callbacks, max_epochs=2).fit(module, loader(10))
    assert {file.name for file in tmp_path.glob("*.png")} == {"lr_schedule-0.png", "lr_schedule-head.png"}
