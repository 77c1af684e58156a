"""The rates that optimizers really step with, against the closed form."""

import contextlib
import math

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
    StochasticWeightAveraging,
)
from lightning.pytorch.demos.boring_classes import ManualOptimBoringModel
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, IterableDataset

from lightning_llmopt.callbacks import LRSchedule
from lightning_llmopt.schedules import Phase, Schedule, constant, cosine, linear, wsd

from fitting import BASE_RATE, Gan, MemoryLogger, Regression, Watch, loader, trainer
from ranks import on_ranks

RECIPE = wsd(warmup=2, decay="40%", shape="sqrt")


def planned(total, recipe=RECIPE):
    schedule = recipe.resolve(total_steps=total)
    return [BASE_RATE * schedule(step) for step in range(total)]


@pytest.mark.parametrize(
    ("settings", "updates"),
    [
        ({"max_steps": 10}, 10),
        ({"max_epochs": 2}, 16),
        ({"max_epochs": 2, "max_steps": 10}, 10),
        ({"max_epochs": 2, "accumulate_grad_batches": 3}, 6),  # 8 batches: windows of 3, 3 and 2
        ({"max_epochs": 2, "limit_train_batches": 5}, 10),
        ({"max_epochs": 2, "limit_train_batches": 0.5}, 8),
        ({"max_steps": 10, "overfit_batches": 2}, 10),
    ],
)
def test_every_update_runs_at_the_planned_rate(tmp_path, settings, updates):
    watch = Watch()
    run = trainer(tmp_path, LRSchedule(RECIPE), watch, **settings)
    run.fit(Regression(), loader(8))
    assert run.global_step == updates
    assert watch.first == planned(updates)


def test_windows_that_change_by_epoch_are_counted(tmp_path):
    watch = Watch()
    run = trainer(tmp_path, GradientAccumulationScheduler({0: 1, 2: 4}), LRSchedule(RECIPE), watch, max_epochs=4)
    run.fit(Regression(), loader(8))
    assert watch.first == planned(8 + 8 + 2 + 2)


def test_groups_keep_their_ratios(tmp_path):
    watch = Watch()
    trainer(tmp_path, LRSchedule(RECIPE), watch, max_steps=10).fit(Regression(), loader())
    assert [head for _, head in watch.rates] == pytest.approx([rate / 10 for rate in watch.first], rel=1e-15)


def test_no_line_of_the_rate_is_left_behind_after_the_run(tmp_path):
    module = Regression()
    run = trainer(tmp_path, LRSchedule(RECIPE), max_steps=5)
    run.fit(module, loader())
    optimizer = run.optimizers[0]
    optimizer.param_groups[0]["lr"] = 7.0
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] == 7.0


@pytest.mark.parametrize("critic_steps", [1, 3])
def test_each_optimizer_follows_its_own_updates(tmp_path, critic_steps):
    seen = {}

    class Note(Watch):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            seen.setdefault(trainer.optimizers.index(optimizer), []).append(optimizer.param_groups[0]["lr"])

    trainer(tmp_path, LRSchedule(RECIPE, total=6), Note(), max_epochs=1).fit(Gan(critic_steps), loader(6))
    schedule = RECIPE.resolve(total_steps=6)
    assert seen[0] == [0.01 * schedule(step) for step in range(6)]
    assert seen[1] == [0.04 * schedule(step) for step in range(6 * critic_steps)]


@pytest.mark.parametrize("settings", [{"max_epochs": 1}, {"max_steps": 12}, {"max_steps": 11}])
def test_two_optimizers_share_the_run_and_not_the_count(tmp_path, settings):
    watch = Watch()
    trainer(tmp_path, LRSchedule(linear()), watch, **settings).fit(Gan(), loader(6))
    critic, generator = watch.first[::2], watch.first[1::2]
    assert generator == pytest.approx([0.01 * (1 - step / 6) for step in range(6)])
    assert critic == pytest.approx([0.04 * (1 - step / 6) for step in range(6)])


def test_manual_optimization_of_lightnings_own_demo(tmp_path):
    watch = Watch()
    schedule = LRSchedule(RECIPE, replace_schedulers=True)  # the demo returns a StepLR
    trainer(tmp_path, schedule, watch, max_epochs=1, limit_train_batches=10).fit(ManualOptimBoringModel())
    assert watch.first == planned(10)


def test_steps_that_bypass_lightning_count_too(tmp_path):
    class Raw(Regression):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.seen = []

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers(use_pl_optimizer=False)
            optimizer.zero_grad()
            super().training_step(batch, batch_idx).backward()
            self.seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()

    module = Raw()
    trainer(tmp_path, LRSchedule(RECIPE, total=8), max_epochs=1).fit(module, loader(8))
    assert module.seen == planned(8)


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_a_training_step_that_returns_none_is_no_update(tmp_path):
    class Skips(Regression):
        def training_step(self, batch, batch_idx):
            return None if batch_idx in (1, 4) else super().training_step(batch, batch_idx)

    schedule, watch = LRSchedule(RECIPE, total=10), Watch()
    trainer(tmp_path, schedule, watch, max_epochs=1).fit(Skips(), loader(8))
    rates = planned(10)
    assert watch.first == [rates[count] for count in (0, 1, 1, 2, 3, 3, 4, 5)]
    assert schedule.state_dict()["updates"] == [6]


@pytest.mark.parametrize("fused", [False, True])
def test_an_update_that_the_fp16_scaler_skips_does_not_count(tmp_path, fused):
    class Overflows(Regression):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * (math.inf if batch_idx in (2, 3) else 1)

    precision = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=8.0))
    schedule, watch = LRSchedule(RECIPE, total=10), Watch()
    trainer(tmp_path, schedule, watch, max_epochs=1, plugins=[precision]).fit(
        Overflows(torch.optim.AdamW, fused=fused), loader(8)
    )
    rates = planned(10)
    assert watch.first == [rates[count] for count in (0, 1, 2, 2, 2, 3, 4, 5)]
    assert schedule.state_dict()["updates"] == [6]


def test_lbfgs_moves_once_a_step_however_often_it_looks(tmp_path):
    schedule = LRSchedule(constant(warmup=2))
    module = Regression(torch.optim.LBFGS)
    module.configure_optimizers = lambda: torch.optim.LBFGS(module.parameters(), lr=BASE_RATE, max_iter=5)
    trainer(tmp_path, schedule, max_epochs=1, logger=MemoryLogger(), log_every_n_steps=1).fit(module, loader(3))
    assert schedule.state_dict()["updates"] == [3]


def test_a_rate_held_as_a_tensor_is_filled_and_not_replaced(tmp_path):
    module, rate = Regression(), torch.tensor(BASE_RATE, dtype=torch.float64)
    module.configure_optimizers = lambda: torch.optim.AdamW(module.parameters(), lr=rate)
    watch = Watch()
    trainer(tmp_path, LRSchedule(RECIPE), watch, max_steps=6).fit(module, loader())
    assert watch.first == pytest.approx(planned(6), rel=1e-15)
    assert float(rate) == 0.0  # the rate of the update after the last


def test_a_group_added_during_the_run_joins_at_its_own_rate(tmp_path):
    class Grows(Regression):
        def on_train_batch_start(self, batch, batch_idx):
            if batch_idx == 3:
                extra = torch.nn.Parameter(torch.zeros(2))
                self.trainer.optimizers[0].add_param_group({"params": [extra], "lr": 5.0})

    watch = Watch()
    trainer(tmp_path, LRSchedule(linear()), watch, max_epochs=1).fit(Grows(), loader(8))
    assert [rates[2] for rates in watch.rates[3:]] == pytest.approx([5.0 * (1 - step / 8) for step in range(3, 8)])


def test_groups_that_load_state_dict_put_in_place_are_written_too(tmp_path):
    class Reloads(Regression):
        def on_train_batch_start(self, batch, batch_idx):
            if batch_idx == 3:
                optimizer = self.trainer.optimizers[0]
                optimizer.load_state_dict(optimizer.state_dict())

    watch = Watch()
    trainer(tmp_path, LRSchedule(RECIPE), watch, max_epochs=1).fit(Reloads(), loader(8))
    assert watch.first == planned(8)


def test_a_group_put_in_the_place_of_another_is_written_too(tmp_path):
    class Replaces(Regression):
        def on_train_batch_start(self, batch, batch_idx):
            if batch_idx == 3:
                groups = self.trainer.optimizers[0].param_groups
                groups[1] = dict(groups[1])

    watch = Watch()
    trainer(tmp_path, LRSchedule(linear()), watch, max_epochs=1).fit(Replaces(), loader(8))
    assert [rates[1] for rates in watch.rates] == pytest.approx([0.01 * (1 - step / 8) for step in range(8)])


def test_a_state_loaded_by_hand_brings_no_base_rate(tmp_path):
    class Loads(Regression):
        def on_train_batch_start(self, batch, batch_idx):
            if batch_idx == 3:
                optimizer = self.trainer.optimizers[0]
                state = optimizer.state_dict()
                for group in state["param_groups"]:
                    group["lr"] = group["initial_lr"] = 5.0
                optimizer.load_state_dict(state)

    watch = Watch()
    trainer(tmp_path, LRSchedule(RECIPE), watch, max_epochs=1).fit(Loads(), loader(8))
    assert watch.first == planned(8)


def test_a_group_that_makes_way_for_a_new_one_takes_its_base_rate_along(tmp_path):
    class Unfreezes(Regression):
        def on_train_batch_start(self, batch, batch_idx):
            if batch_idx == 3:
                optimizer = self.trainer.optimizers[0]
                optimizer.param_groups.pop()
                optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(2))], "lr": 0.7})

    watch = Watch()
    trainer(tmp_path, LRSchedule(linear()), watch, max_epochs=1).fit(Unfreezes(), loader(8))
    assert [rates[1] for rates in watch.rates[3:]] == pytest.approx([0.7 * (1 - step / 8) for step in range(3, 8)])


def test_a_tensor_rate_that_is_replaced_is_found_out(tmp_path):
    class Swaps(Regression):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=torch.tensor(0.1))

        def on_train_batch_start(self, batch, batch_idx):
            if batch_idx == 2:
                self.trainer.optimizers[0].param_groups[0]["lr"] = torch.tensor(9.0)

    with pytest.raises(MisconfigurationException, match="Two writers of the learning rate: .* has changed it to 9.0"):
        trainer(tmp_path, LRSchedule(linear()), max_epochs=1).fit(Swaps(), loader(8))


def test_an_optimizer_that_torch_cannot_hook_is_counted_too(tmp_path):
    class Wrapper:
        def __init__(self, inner):
            self.inner, self.param_groups, self.state = inner, inner.param_groups, inner.state
            self.defaults, self.step, self.zero_grad = inner.defaults, inner.step, inner.zero_grad
            self.state_dict, self.load_state_dict = inner.state_dict, inner.load_state_dict

    module, watch = Regression(), Watch()
    inner = Regression.configure_optimizers
    module.configure_optimizers = lambda: Wrapper(inner(module))
    trainer(tmp_path, LRSchedule(RECIPE), watch, max_steps=10).fit(module, loader())
    assert watch.first == planned(10)


@pytest.mark.parametrize("schedule", [lambda step: 1 / (step + 1), Schedule(Phase("fall", 10, 1.0, 0.0))])
def test_any_function_of_the_update_number_will_do(tmp_path, schedule):
    watch = Watch()
    trainer(tmp_path, LRSchedule(schedule), watch, max_steps=5).fit(Regression(), loader())
    assert watch.first == [BASE_RATE * schedule(step) for step in range(5)]


def test_a_function_that_returns_no_rate_is_stopped(tmp_path):
    run = trainer(tmp_path, LRSchedule(lambda step: 1.0 - step), max_steps=5)
    with pytest.raises(ValueError, match=r"schedule\(2\) must be a finite number >= 0, got -1.0"):
        run.fit(Regression(), loader())


class Calls(torch.optim.AdamW):
    """Hands its step to the one it inherits; torch runs the hooks of both."""

    def step(self, closure=None):
        return super().step(closure)


def test_a_step_that_calls_the_inherited_step_counts_once(tmp_path):
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # torch patches a class at its first instance
    watch = Watch()
    trainer(tmp_path, LRSchedule(RECIPE), watch, max_epochs=1).fit(Regression(Calls), loader(8))
    assert watch.first == planned(8)


def test_a_step_that_fails_is_forgotten(tmp_path):
    class Fails(torch.optim.SGD):
        def step(self, closure=None):
            if len(watch.rates) == 3:
                watch.rates.append(watch.rates[-1])
                raise RuntimeError("once")
            return super().step(closure)

    class Manual(Regression):
        def __init__(self):
            super().__init__(Fails)
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            with contextlib.suppress(RuntimeError):
                optimizer.step()

    watch = Watch()
    schedule = LRSchedule(RECIPE, total=8)
    trainer(tmp_path, schedule, watch, max_epochs=1).fit(Manual(), loader(6))
    assert schedule.state_dict()["updates"] == [5]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_compiled_optimizer_step_counts(tmp_path):
    class Compiled(Regression):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            optimizer.step = torch.compile(optimizer.step, backend="eager")
            return optimizer

    def fit(rank):
        watch = Watch()
        trainer(tmp_path, LRSchedule(RECIPE), watch, max_steps=6).fit(Compiled(), loader())
        return watch.first

    assert on_ranks(1, fit) == [planned(6)]  # in a process of its own: dynamo keeps tensors for as long as it lives


@pytest.mark.filterwarnings("ignore:`LightningModule.configure_optimizers` returned `None`")
def test_no_optimizer_is_no_trouble(tmp_path):
    module = Regression()
    module.configure_optimizers = lambda: None
    trainer(tmp_path, LRSchedule(RECIPE), max_steps=3).fit(module, loader())


@pytest.mark.parametrize("number", [np.float64, np.float32, torch.tensor])
def test_whatever_number_a_function_returns_the_rate_is_a_plain_float(tmp_path, number):
    run = trainer(tmp_path, LRSchedule(lambda step: number(1 / (step + 1))), max_steps=3)
    run.fit(Regression(), loader())
    assert type(run.optimizers[0].param_groups[0]["lr"]) is float
    run.save_checkpoint(tmp_path / "run.ckpt")
    torch.load(tmp_path / "run.ckpt", weights_only=True)


# the length of the run


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.zeros(4), torch.zeros(1)


@pytest.mark.parametrize("settings", [{"max_epochs": 2}, {"max_epochs": -1}])
def test_an_unknown_length_is_refused_with_the_ways_to_say_it(tmp_path, settings):
    run = trainer(tmp_path, LRSchedule(cosine()), **settings)
    with pytest.raises(
        MisconfigurationException, match=r"LRSchedule\(cosine\) needs the length .* max_steps is -1.* total="
    ):
        run.fit(Regression(), DataLoader(Endless(), batch_size=4))


@pytest.mark.parametrize("total", [6, "6", "6 steps"])
def test_the_length_can_be_said(tmp_path, total):
    watch = Watch()
    run = trainer(tmp_path, LRSchedule(RECIPE, total=total), watch, max_epochs=1, limit_train_batches=6)
    run.fit(Regression(), DataLoader(Endless(), batch_size=4))
    assert watch.first == planned(6)


def test_a_constant_rate_needs_no_length(tmp_path):
    watch = Watch()
    run = trainer(tmp_path, LRSchedule(constant(warmup=2)), watch, max_epochs=1, limit_train_batches=4)
    run.fit(Regression(), DataLoader(Endless(), batch_size=4))
    assert watch.first == [BASE_RATE / 2, BASE_RATE, BASE_RATE, BASE_RATE]


def test_a_schedule_longer_than_the_run_is_refused_with_the_arithmetic(tmp_path):
    run = trainer(tmp_path, LRSchedule(wsd(warmup=20, decay="20%")), max_steps=10)
    with pytest.raises(
        MisconfigurationException, match=r"warmup 20 \+ decay 2 \(20%\) = 22 updates, but total_steps is 10"
    ):
        run.fit(Regression(), loader())


# beside others


def test_a_second_writer_is_refused_by_name_with_both_ways_out(tmp_path):
    class Scheduled(Regression):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)]

    with pytest.raises(
        MisconfigurationException,
        match="LRSchedule and ExponentialLR, returned by Scheduled.configure_optimizers. "
        "Return only the optimizer .*replace_schedulers=True.*, or remove LRSchedule",
    ):
        trainer(tmp_path, LRSchedule(RECIPE), max_steps=5).fit(Scheduled(), loader())


def test_a_second_writer_can_be_dropped_without_an_edit_of_the_module(tmp_path):
    class Scheduled(Regression):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)]

    watch = Watch()
    trainer(tmp_path, LRSchedule(RECIPE, replace_schedulers=True), watch, max_steps=10).fit(Scheduled(), loader())
    assert watch.first == planned(10)


def test_a_dropped_one_cycle_leaves_its_peak_as_the_base_rate(tmp_path):
    class Cycled(Regression):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.7, total_steps=9)]

    watch = Watch()
    trainer(tmp_path, LRSchedule(linear(), replace_schedulers=True), watch, max_steps=2).fit(Cycled(), loader())
    assert watch.first == [0.7, 0.35]


class InHook(Regression):
    def on_train_batch_start(self, batch, batch_idx):
        self.trainer.optimizers[0].param_groups[self.which]["lr"] = 0.5


@pytest.mark.parametrize(("which", "name"), [(0, "group0"), (1, "head")])
def test_a_writer_in_a_hook_is_found_out(tmp_path, which, name):
    module = InHook()
    module.which = which
    run = trainer(tmp_path, LRSchedule(RECIPE), max_steps=5, logger=MemoryLogger(), log_every_n_steps=3)
    with pytest.raises(
        MisconfigurationException,
        match=f"LRSchedule wrote 0.0?[51]+ as lr/SGD/{name}, .* changed it to 0.5. Remove that",
    ):
        run.fit(module, loader())


@pytest.mark.parametrize(
    "other", [StochasticWeightAveraging(swa_lrs=0.5), BackboneFinetuning()], ids=lambda other: type(other).__name__
)
def test_callbacks_that_write_rates_are_refused_by_name(tmp_path, other):
    run = trainer(tmp_path, LRSchedule(RECIPE), other, max_steps=5)
    with pytest.raises(
        MisconfigurationException, match=f"LRSchedule and {type(other).__name__}. Remove one of the two"
    ):
        run.fit(Regression(), loader())


def test_a_schedule_that_was_not_played_out_is_pointed_out(tmp_path):
    class EveryFourth(Regression):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            self.manual_backward(super().training_step(batch, batch_idx))
            if batch_idx % 4 == 3:
                self.optimizers().step()
                self.optimizers().zero_grad()

    run = trainer(tmp_path, LRSchedule(linear()), max_epochs=1)
    with pytest.warns(UserWarning, match="after 2 updates of SGD, but the schedule was made for 8, .*total=2"):
        run.fit(EveryFourth(), loader(8))


def test_groups_of_one_name_are_told_apart(tmp_path):
    module, logger = Regression(), MemoryLogger()
    groups = [{"params": [parameter], "name": "same"} for parameter in module.parameters()]
    module.configure_optimizers = lambda: torch.optim.SGD(groups, lr=0.1)
    trainer(tmp_path, LRSchedule(linear()), logger=logger, log_every_n_steps=1, max_steps=2).fit(module, loader())
    assert {tag for tag in logger.points if tag[:3] == "lr/"} == {f"lr/SGD/same-{index}" for index in range(4)}


def test_lightnings_own_rate_monitor_sees_the_same_rates(tmp_path):
    logger = MemoryLogger()
    run = trainer(
        tmp_path, LearningRateMonitor("step"), LRSchedule(RECIPE), logger=logger, log_every_n_steps=1, max_steps=8
    )
    run.fit(Regression(), loader())
    assert list(logger.points["lr/SGD/group0"].values()) == planned(8)
    assert logger.points["lr-SGD/pg1"] == logger.points["lr/SGD/group0"]
    assert logger.points["lr-SGD/head"] == logger.points["lr/SGD/head"]


def test_lightnings_rate_finder_changes_the_base_rate(tmp_path):
    class Tunable(Regression):
        def __init__(self):
            super().__init__()
            self.lr = 0.5

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.lr)

    module, watch = Tunable(), Watch()
    finder = LearningRateFinder(num_training_steps=20, early_stop_threshold=None)
    trainer(tmp_path, LRSchedule(linear()), finder, watch, max_steps=4).fit(module, loader())
    found = module.lr
    assert found != 0.5
    assert watch.first == pytest.approx([found, found * 0.75, found * 0.5, found * 0.25])


# what is logged


def test_logs_on_the_x_axis_of_self_log_and_at_its_rhythm(tmp_path):
    logger = MemoryLogger()
    trainer(tmp_path, LRSchedule(RECIPE), logger=logger, log_every_n_steps=3, max_steps=10).fit(Regression(), loader())
    rates = planned(10)
    assert logger.points["lr/SGD/group0"] == {step: rates[step] for step in (2, 5, 8)}
    assert logger.points["lr/SGD/head"] == {step: rates[step] / 10 for step in (2, 5, 8)}


def test_two_optimizers_of_one_class_have_tags_of_their_own(tmp_path):
    logger = MemoryLogger()
    run = trainer(tmp_path, LRSchedule(linear()), logger=logger, log_every_n_steps=1, max_epochs=1)
    with pytest.warns(UserWarning, match=r"LRSchedule: Adam-1 has made 3 updates, .* LRSchedule\(..., total=...\)"):
        run.fit(Gan(critic_steps=2), loader(3))
    assert logger.points["lr/Adam/group0"] == pytest.approx({step: 0.01 * (1 - step / 3) for step in range(3)})
    assert logger.points["lr/Adam-1/group0"].keys() == {0, 1, 2}
    assert run.callback_metrics["lr/Adam/group0"] == pytest.approx(0.01 / 3)


# what it refuses to be built from


@pytest.mark.parametrize("schedule", [None, 0.1, wsd, torch.nn.ReLU, lambda: 1.0, lambda step: None, lambda step: -1])
def test_refuses_what_is_no_schedule(schedule):
    with pytest.raises(
        ValueError, match=r"schedule must be a recipe such as|schedule\(0\) must be a finite number >= 0, got"
    ):
        LRSchedule(schedule)


@pytest.mark.parametrize("total", [0, -5, "50%", 0.5, 10.5, "1e5", "0", True])
def test_refuses_a_total_that_is_no_number_of_updates(total):
    with pytest.raises(ValueError, match=f"total must be a whole number of updates >= 1 .*, got {total!r}"):
        LRSchedule(RECIPE, total=total)


def test_refuses_an_answer_that_is_neither_yes_nor_no():
    with pytest.raises(ValueError, match="replace_schedulers must be True or False, got 'yes'"):
        LRSchedule(RECIPE, replace_schedulers="yes")


def test_rates_follow_the_plan_where_parameters_are_sharded(tmp_path):
    """FSDP2 on two real processes: rates do not depend on what a rank holds."""

    class Sharded(Regression):
        def configure_model(self):
            mesh = self.device_mesh["data_parallel"]
            fully_shard(self.body, mesh=mesh)
            fully_shard(self.head, mesh=mesh)
            fully_shard(self, mesh=mesh)

    def fit(rank):
        watch = Watch()
        strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1, process_group_backend="gloo")
        run = trainer(tmp_path, LRSchedule(RECIPE), watch, max_steps=10, devices=2, strategy=strategy)
        run.fit(Sharded(), loader(20))
        return watch.rates

    first, second = on_ranks(2, fit)
    assert first == second
    assert [rate for rate, _ in first] == planned(10)


class Steps(Gan):
    """Steps a scheduler of its own by hand."""

    def configure_optimizers(self):
        optimizers = super().configure_optimizers()
        return optimizers, [torch.optim.lr_scheduler.StepLR(optimizers[0], 1)]

    def training_step(self, batch, batch_idx):
        super().training_step(batch, batch_idx)
        self.lr_schedulers().step()


def test_a_module_that_steps_its_scheduler_by_hand_may_go_on_doing_so(tmp_path):
    watch = Watch()
    run = trainer(
        tmp_path,
        LRSchedule(linear(), replace_schedulers=True),
        watch,
        LearningRateMonitor(),
        logger=MemoryLogger(),
        max_epochs=1,
    )
    run.fit(Steps(), loader(6))
    assert watch.first[1::2] == pytest.approx([0.01 * (1 - step / 6) for step in range(6)])
    run.save_checkpoint(tmp_path / "run.ckpt")
    trainer(tmp_path, LRSchedule(linear(), replace_schedulers=True, on_change="keep"), max_epochs=1).fit(
        Steps(), loader(6), ckpt_path=tmp_path / "run.ckpt"
    )


@pytest.mark.parametrize("recipe", ["cosine", {"recipe": "wsd", "warmup": 2, "decay": "40%", "shape": "sqrt"}])
def test_recipes_may_be_named(tmp_path, recipe):
    watch = Watch()
    trainer(tmp_path, LRSchedule(recipe), watch, max_steps=10).fit(Regression(), loader())
    assert watch.first == planned(10, cosine() if recipe == "cosine" else RECIPE)


@pytest.mark.parametrize(
    ("wrong", "message"), [("cosin", r"schedule must be one of \['constant'"), ({"warmup": 2}, "recipe and its")]
)
def test_names_that_are_none_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        LRSchedule(wrong)
