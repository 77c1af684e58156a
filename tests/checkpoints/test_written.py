"""What a Trainer has written down, and where its schedules stand."""

import pytest

from lightning_llmopt.callbacks import HyperparameterSchedule, LRSchedule
from lightning_llmopt.checkpoints import diagnose
from lightning_llmopt.checkpoints.diagnosis import Contents
from lightning_llmopt.checkpoints.written import contents_of, is_lightnings
from lightning_llmopt.schedules import constant, wsd

from fitting import Gan, Regression, loader, trainer


def contents(folder, *callbacks, module=None, steps=6, anneal_at=None):
    run = trainer(folder, *callbacks, max_steps=steps)
    run.fit(module or Regression(weight_decay=0.1), loader())
    run.save_checkpoint(folder / "run.ckpt")
    return diagnose(folder / "run.ckpt").contents


@pytest.mark.filterwarnings("ignore:LRSchedule. The run of .* updates ends within")
@pytest.mark.parametrize(
    ("steps", "line"),
    [
        (1, "LRSchedule: in 'warmup', after 1 updates of a run of 10 updates, next at 0.1, 0.01; "),
        (2, "LRSchedule: in 'stable', after 2 updates of a run of 10 updates, next at 0.1, 0.01; "),
        (6, "LRSchedule: in 'decay', after 6 updates of a run of 10 updates, next at 0.1, 0.01; "),
        (9, "LRSchedule: in 'decay', after 9 updates of a run of 10 updates, next at 0.025, 0.0025; "),
        (10, "LRSchedule: at its end, after 10 updates of a run of 10 updates, next at 0, 0; "),
    ],
)
def test_the_phase_and_the_coming_rates_are_told(tmp_path, steps, line):
    callback = LRSchedule(wsd(warmup=2, decay=4, shape="linear"), total=10)
    told = contents(tmp_path, callback, steps=steps)
    assert told.step == steps
    assert told.callbacks == ("LRSchedule",)
    assert told.schedule == (line + "wsd(warmup=2, decay=4, shape='linear')",)


def test_several_schedules_and_optimizers_have_a_line_each(tmp_path):
    told = contents(tmp_path, LRSchedule(constant(), total=50), module=Gan())
    assert [line.split(":")[0] for line in told.schedule] == ["LRSchedule of optimizer 0", "LRSchedule of optimizer 1"]
    (tmp_path / "2").mkdir()
    both = [LRSchedule(constant(), total=50), HyperparameterSchedule("weight_decay", constant(), total=50)]
    assert [line[:33] for line in contents(tmp_path / "2", *both).schedule] == [
        "LRSchedule: in 'stable', after 6 ", "HyperparameterSchedule('weight_de",
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore:LRSchedule. The run of .* updates ends within")
def test_lengths_in_several_units_are_told_by_their_leg(tmp_path):
    callback = LRSchedule(wsd(warmup=2, decay="8 samples"), total=20, samples=len_of)
    (line,) = contents(tmp_path, callback).schedule
    assert line.startswith("LRSchedule: in 'stable', after 6 updates of a run of 20 updates")


def len_of(batch):
    return len(batch[0])


def test_functions_have_no_phases(tmp_path):
    (line,) = contents(tmp_path, LRSchedule(lambda step: 1.0, total=50)).schedule
    assert line.startswith(
        "LRSchedule: a function, which has no phases, after 6 updates of a run of 50 updates, next at 0.1"
    )


@pytest.mark.parametrize(
    "state",
    [
        None, [], {"updates": 3}, {"updates": []},
        {"updates": [3]}, {"updates": [3], "plan": {"phases": 7}, "playing": {"cooldowns": []}, "clock": {}},
        {"updates": [3], "plan": {"spec": {}}, "playing": {"cooldowns": [None], "courses": []}, "clock": {}},
        {"updates": ["x"], "rates": 4, "said": 5, "plan": 6, "playing": 7, "clock": 8},
    ],
)  # fmt: skip
def test_states_that_make_no_sense_are_no_trouble(state):
    told = contents_of({"callbacks": {"LRSchedule": state}, "global_step": "x", "epoch": True})
    assert (told.step, told.epoch, told.callbacks) == (None, None, ("LRSchedule",))
    assert all("in a phase that cannot be told" in line for line in told.schedule)


@pytest.mark.parametrize("value", [None, [], 3, {}, {"callbacks": 3}, {"state_dict": {}}])
def test_what_is_no_checkpoint_has_no_contents(value):
    assert contents_of(value) == Contents()
    assert not is_lightnings(value)
