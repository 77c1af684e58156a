"""The recipes, against values worked out by hand and against their peers."""

import math

import pytest
import torch
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup, get_wsd_schedule

from lightning_llmopt.schedules import constant, cosine, linear, wsd

RECIPES = {
    "constant": constant(warmup=3),
    "linear": linear(warmup="10%", floor=0.1),
    "cosine": cosine(warmup=5, floor=0.1),
    "wsd": wsd(warmup="2%", decay="20%", floor=0.05),
}
every_recipe = pytest.mark.parametrize("spec", RECIPES.values(), ids=RECIPES.keys())


@every_recipe
@pytest.mark.parametrize("total_steps", [10, 101, 10**9, 2**63])
def test_warms_up_once_and_never_rises_again(spec, total_steps):
    schedule = spec.resolve(total_steps=total_steps)
    steps = sorted(
        {*range(8), *(total_steps * share // 97 for share in range(97)), total_steps - 1, total_steps, 2**64}
    )
    after = [schedule(step) for step in steps if schedule.phase_at(step).name != "warmup"]
    assert after == sorted(after, reverse=True)
    assert 0 < schedule(0) <= 1
    assert after[-1] == schedule.phases[-1].end


@every_recipe
def test_no_update_of_the_run_is_wasted(spec):
    schedule = spec.resolve(total_steps=50)
    assert min(schedule(step) for step in range(50)) > 0


def test_linear_by_hand():
    schedule = linear(warmup=2).resolve(total_steps=10)
    assert [schedule(step) for step in range(11)] == [0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0]


def test_cosine_by_hand():
    schedule = cosine(floor=0.1).resolve(total_steps=3)
    assert [schedule(step) for step in range(4)] == pytest.approx([1.0, 0.775, 0.325, 0.1], abs=1e-15)


def test_wsd_keeps_the_values_of_the_cooldown_paper():
    """Hägele et al. 2024 with 1-sqrt, N = 1000, 20 % decay: factors at 800, 801, 850, 900, 999, 1000."""
    schedule = wsd(warmup=100, decay="20%", shape="sqrt").resolve(total_steps=1_000)
    values = [schedule(step) for step in (99, 100, 799, 800, 801, 850, 900, 999, 1_000)]
    assert values == pytest.approx([1, 1, 1, 1, 0.929289, 0.5, 0.292893, 0.002503, 0], abs=5e-7)


@pytest.mark.parametrize("warmup_shape", ["linear", "cosine", "sqrt"])
def test_warmup_has_a_shape_of_its_own(warmup_shape):
    schedule = constant(warmup=4, warmup_shape=warmup_shape).resolve(total_steps=9)
    half = {"linear": 0.5, "cosine": 0.5, "sqrt": math.sqrt(0.5)}[warmup_shape]
    assert schedule(1) == pytest.approx(half)
    assert schedule(3) == 1.0


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (linear(warmup=10), lambda optimizer: get_linear_schedule_with_warmup(optimizer, 10, 100)),
        (cosine(warmup=10), lambda optimizer: get_cosine_schedule_with_warmup(optimizer, 10, 100)),
        (
            wsd(warmup=10, decay=30, shape="sqrt"),
            lambda optimizer: get_wsd_schedule(optimizer, 10, 30, num_training_steps=100, decay_type="1-sqrt"),
        ),
        (
            wsd(warmup=10, decay=30, shape="linear", floor=0.1),
            lambda optimizer: get_wsd_schedule(
                optimizer, 10, 30, num_training_steps=100, decay_type="linear", min_lr_ratio=0.1
            ),
        ),
    ],
)
def test_agrees_with_transformers_after_warmup(ours, theirs):
    """Same values from the end of warmup on; their warmup gives update ``s`` the value ours gives ``s - 1``."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, schedule = theirs(optimizer), ours.resolve(total_steps=100)
    for step in range(100):
        if step >= 10:
            assert optimizer.param_groups[0]["lr"] == pytest.approx(schedule(step), abs=1e-12)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: wsd(decay="-3%"), "decay must be >= 0, got '-3%'"),
        (lambda: wsd(warmup=-1), "warmup must be >= 0, got -1"),
        (lambda: wsd(shape="banana"), r"shape must be one of \[.*\], got 'banana'"),
        (lambda: constant(warmup_shape="square wave"), r"warmup_shape must be one of \[.*\], got 'square wave'"),
        (lambda: cosine(floor=1.5), r"floor must be a number in \[0, 1\] .*, got 1.5"),
        (lambda: linear(floor=math.nan), r"floor must be a number in \[0, 1\] .*, got nan"),
        (lambda: wsd(floor="10%"), r"floor must be a number in \[0, 1\] .*, got '10%'"),
    ],
)
def test_refuses_bad_values_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
