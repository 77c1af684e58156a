"""The same curves as our peers', number by number, and what is not the same.

Ours, in a run of N updates counted from 0: update ``s`` of a warmup of ``w`` gets the value at ``(s + 1) / w``, update
``s`` of a fall of ``d`` that begins at ``a`` the value at ``(s - a) / d``, and the end value stands one update after
the last. A peer is described by two numbers: which of our updates its update ``s`` is equal to, while it warms up
(``rise``) and afterwards (``fall``). An update of theirs before our first stands where the rise begins.
"""

import math

import pytest
from torch.optim import lr_scheduler
from transformers import SchedulerType, get_scheduler

from lightning_llmopt.schedules import (
    constant,
    cosine,
    cosine_restarts,
    inverse_sqrt,
    linear,
    multi_step,
    one_cycle,
    piecewise,
    polynomial,
    power,
    sequence,
    wsd,
    wsd_s,
)

import peers
from peers import rates_of

N, W, D, LOW = 100, 10, 30, 0.1


def assert_same(theirs, ours, *, total=N, warmup=W, rise=0, fall=0, start=0.0, tolerance=1e-12):
    """Their rates are ours, ``rise`` and ``fall`` updates later (earlier if negative)."""
    schedule = ours.resolve(total_steps=total)
    places = [step + (rise if step < warmup else fall) for step in range(len(theirs))]
    assert theirs == pytest.approx([schedule(place) if place >= 0 else start for place in places], abs=tolerance)


def first_updates(formula, updates=N, *, counted_from=0, **settings):
    return [formula(step + counted_from, **settings) for step in range(updates)]


@pytest.mark.parametrize("kind", ["linear", "sqrt", "cosine"])
@pytest.mark.parametrize("low", [0.0, LOW])
@pytest.mark.parametrize("warmup", [0, 1, W])
def test_torchtitans_wsd_is_ours_update_by_update(kind, low, warmup):
    """Their virtual extra update and their ``+ 1`` are our ``(s + 1) / w`` and ``(s - a) / d``, up to the end at N."""
    theirs = first_updates(peers.torchtitan_wsd, N + 1, total=N, warmup=warmup, decay=D, kind=kind, low=low)
    assert_same(theirs, wsd(warmup=warmup, decay=D, shape=kind, floor=low))


@pytest.mark.parametrize(("kind", "recipe"), [("linear", linear), ("cosine", cosine)])
def test_torchtitan_without_a_decay_ratio_is_a_fall_from_the_warmup_on(kind, recipe):
    theirs = first_updates(peers.torchtitan_wsd, total=N, warmup=W, decay=N - W, kind=kind, low=LOW)
    assert_same(theirs, recipe(warmup=W, floor=LOW))


def test_torchtitan_rounds_a_share_to_the_nearest_update_and_ours_rounds_down():
    """``decay_ratio=0.36`` of 10 updates; rounded down, parts that add up to at most 100 % always fit."""
    assert round(0.36 * 10) == 4
    assert wsd(decay=0.36).resolve(total_steps=10).phases[-1].steps == 3


def test_torchtitan_after_the_end_goes_below_its_floor_or_up_again_where_ours_holds():
    after = {
        kind: peers.torchtitan_wsd(N + 5, total=N, warmup=W, decay=D, kind=kind)
        for kind in ("linear", "sqrt", "cosine")
    }
    assert after["linear"] < 0
    assert after["sqrt"] < 0
    assert after["cosine"] > 0
    assert wsd(warmup=W, decay=D).resolve(total_steps=N)(N + 5) == 0


OLMO = {
    "WSD": (peers.olmo_wsd, {"decay": D, "start": 0.02, "low": LOW}, wsd(
        warmup=W, decay=D, shape="linear", floor=LOW, warmup_start=0.02
    )),
    "CosWithWarmup": (peers.olmo_fall, {"kind": "cosine"}, cosine(warmup=W, floor=LOW)),
    "LinearWithWarmup": (peers.olmo_fall, {"kind": "linear"}, linear(warmup=W, floor=LOW)),
    "PowerLR": (peers.olmo_power, {"decay": D, "low": 0.01}, power(warmup=W, decay=D, floor=0.01)),
}  # fmt: skip


@pytest.mark.parametrize("name", OLMO)
def test_olmo_cores_falls_are_ours_one_update_earlier(name):
    """They count the coming update from 1: the warmups are the same, and their last update stands on the floor."""
    formula, settings, ours = OLMO[name]
    theirs = first_updates(formula, counted_from=1, total=N, warmup=W, **settings)
    assert_same(theirs, ours, fall=1)
    assert theirs[-1] == pytest.approx(settings.get("low", LOW))


def test_olmo_cores_wsd_goes_below_its_floor_after_the_end_where_ours_holds():
    assert peers.olmo_wsd(N + 5, total=N, warmup=W, decay=D) < 0
    assert wsd(warmup=W, decay=D).resolve(total_steps=N)(N + 5) == 0


def test_olmo_cores_inverse_sqrt_is_ours_one_update_earlier_if_it_falls_to_nothing():
    """``alpha_f`` (0.1 by default) mixes a constant in, ``a + (1 - a) sqrt(w / s)``: no recipe of ours does."""
    theirs = first_updates(peers.olmo_inverse_sqrt, 400, counted_from=1, warmup=W, low=0.0)
    assert_same(theirs, inverse_sqrt(warmup=W), total=500, fall=1)
    mixed = peers.olmo_inverse_sqrt(40, warmup=W)
    assert mixed == pytest.approx(0.1 + 0.9 * inverse_sqrt(warmup=W).resolve(total_steps=None)(40))


def test_olmo_cores_wsds_is_ours_one_update_earlier_but_for_the_last_of_a_period():
    """Their last update of a period stands on the floor, where our next one is back at the peak already."""
    theirs = first_updates(peers.olmo_wsds, counted_from=1, periods=[40, 60], share=0.2, warmup=W, low=LOW)
    ours = wsd_s(periods=[40, 60], decay=0.2, warmup=W, floor=LOW)
    assert theirs[39] == LOW
    assert ours.resolve(total_steps=N)(40) == 1.0
    assert_same(theirs[:39], ours, fall=1)
    assert theirs[40:] == pytest.approx([ours.resolve(total_steps=N)(step) for step in range(41, 101)])


def test_olmo_core_rounds_a_share_of_a_period_to_the_nearest_and_ours_never_shortens_a_decay():
    assert peers.olmo_wsds(8, periods=[11], share=0.3, warmup=0) == 1.0  # 3.3 updates are 3
    schedule = wsd_s(periods=[11], decay=0.3).resolve(total_steps=11)
    assert [phase.steps for phase in schedule.phases] == [7, 4]


def test_olmo_cores_exponential_rise_is_a_piece_of_ours():
    theirs = first_updates(peers.olmo_exponential, counted_from=1, total=N, low=1e-4)
    assert_same(theirs, piecewise(points={0: 1e-4, "100%": 1.0}, shape="exponential"))


MEGATRON = {
    "linear": ({"style": "linear"}, linear(warmup=W, floor=LOW)),
    "cosine": ({"style": "cosine"}, cosine(warmup=W, floor=LOW)),
    "WSD linear": ({"style": "WSD", "wsd_style": "linear"}, wsd(warmup=W, decay=D, shape="linear", floor=LOW)),
    "WSD cosine": ({"style": "WSD", "wsd_style": "cosine"}, wsd(warmup=W, decay=D, shape="cosine", floor=LOW)),
    "WSD minus_sqrt": ({"style": "WSD", "wsd_style": "minus_sqrt"}, wsd(warmup=W, decay=D, shape="sqrt", floor=LOW)),
    "constant": ({"style": "constant"}, constant(warmup=W)),
    "inverse-square-root": ({"style": "inverse-square-root"}, inverse_sqrt(warmup=W)),
}


@pytest.mark.parametrize("name", MEGATRON)
def test_megatrons_schedules_are_ours_with_a_warmup_one_update_later(name):
    """Their update 0 has ``init_lr``, 0 by default; after the end both hold."""
    settings, ours = MEGATRON[name]
    theirs = first_updates(peers.megatron, N + 1, total=N, warmup=W, decay=D, low=LOW, **settings)
    assert_same(theirs, ours, rise=-1)
    assert theirs[0] == 0.0


def test_megatrons_exponential_is_ours_at_half_the_peak_only():
    """Theirs is ``2 * 0.5 ** x - 1`` of the gap, a line with a bend; ours the same factor every update."""
    settings = {"total": N, "warmup": W, "style": "WSD", "decay": D, "wsd_style": "exponential"}
    ours = wsd(warmup=W, decay=D, shape="exponential", floor=0.5)
    assert_same(first_updates(peers.megatron, low=0.5, **settings), ours, rise=-1)
    middle = wsd(warmup=W, decay=D, shape="exponential", floor=LOW).resolve(total_steps=N)(N - D // 2)
    assert middle == pytest.approx(math.sqrt(LOW))
    assert peers.megatron(N - D // 2, low=LOW, **settings) == pytest.approx(0.1 + 0.9 * (math.sqrt(2) - 1))


def test_megatrons_inverse_square_root_has_a_floor_that_ours_has_not():
    theirs = peers.megatron(2_000, total=9_999, warmup=W, style="inverse-square-root", low=LOW)
    assert theirs == LOW > inverse_sqrt(warmup=W).resolve(total_steps=None)(2_000)


TIMM = {
    "CosineLRScheduler": (peers.timm_cycles, {"first": N - W, "kind": "cosine"}, cosine(
        warmup=W, floor=LOW, warmup_start=0.02
    )),
    "PolyLRScheduler": (peers.timm_cycles, {"first": N - W, "kind": "polynomial", "power": 0.5}, polynomial(
        power=0.5, warmup=W, floor=LOW, warmup_start=0.02
    )),
    "CosineLRScheduler, 3 cycles": (
        peers.timm_cycles, {"first": 30, "kind": "cosine", "cycles": 3},
        cosine_restarts(first_cycle=30, floor=LOW, warmup=W, warmup_start=0.02),
    ),
    "CosineLRScheduler, cycle_mul": (
        peers.timm_cycles, {"first": 30, "kind": "cosine", "cycles": 2, "factor": 2},
        cosine_restarts(first_cycle=30, cycle_factor=2, floor=LOW, warmup=W, warmup_start=0.02),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TIMM)
def test_timms_schedules_are_ours_with_a_warmup_one_update_later(name):
    """With ``warmup_prefix=True``; their update 0 has ``warmup_lr_init``; they hold the floor after the end."""
    formula, settings, ours = TIMM[name]
    theirs = first_updates(formula, N + 5, warmup=W, low=LOW, start=0.02, **settings)
    assert_same(theirs, ours, rise=-1, start=0.02)


def test_timms_steps_are_milestones():
    """Their ``decay_t`` counts from the end of the warmup, our milestones from the beginning of the run."""
    theirs = first_updates(peers.timm_steps, every=30, factor=0.1, warmup=W)
    assert_same(theirs, multi_step(warmup=W, milestones={40: 0.1, 70: 0.1**2}), rise=-1)


def test_timm_without_a_prefix_jumps_down_after_the_warmup_where_ours_cannot():
    """Their default lets the fall run under the warmup, and hands over below the peak."""
    settings = {"first": N, "kind": "cosine", "warmup": W, "prefix": False}
    assert peers.timm_cycles(W, **settings) == pytest.approx((1 + math.cos(math.pi * W / N)) / 2)
    assert cosine(warmup=W).resolve(total_steps=N)(W) == 1.0


RESTARTS = cosine_restarts(first_cycle=30, warmup=W)
TRANSFORMERS = {  # name: settings, ours, which of our updates their update s is while it rises and falls
    "linear": ({}, linear(warmup=W), -1, 0),
    "cosine": ({}, cosine(warmup=W), -1, 0),
    "cosine_with_restarts": ({"num_cycles": 3}, RESTARTS, -1, 0),
    "polynomial": ({"power": 2.0, "lr_end": LOW}, polynomial(power=2.0, warmup=W, floor=LOW), -1, 0),
    "constant": ({}, constant(), 0, 0),
    "constant_with_warmup": ({}, constant(warmup=W), -1, 0),
    "inverse_sqrt": ({"timescale": 40}, inverse_sqrt(warmup=W, timescale=40), -1, 0),
    "cosine_with_min_lr": ({"min_lr": LOW}, cosine(warmup=W, floor=LOW), -1, 0),
    "cosine_warmup_with_min_lr": ({"min_lr": LOW}, cosine(warmup=W, floor=LOW), 0, 1),
    "warmup_stable_decay": (
        {"num_decay_steps": D, "min_lr_ratio": LOW, "decay_type": "1-sqrt"},
        wsd(warmup=W, decay=D, shape="sqrt", floor=LOW, warmup_start=LOW), -1, 0,
    ),
}  # fmt: skip
FOLLOW_THE_LOSS = {"reduce_lr_on_plateau", "greedy"}


def test_every_schedule_of_transformers_is_here_but_those_that_follow_the_loss():
    assert {kind.value for kind in SchedulerType} - FOLLOW_THE_LOSS <= TRANSFORMERS.keys()


@pytest.mark.parametrize("name", sorted(TRANSFORMERS.keys() & {kind.value for kind in SchedulerType}))
def test_transformers_schedules_are_ours_but_for_the_warmup_of_most(name):
    """Their update 0 has rate 0 (``warmup_stable_decay``: the floor), so their warmups are one update later.

    ``cosine_warmup_with_min_lr`` counts as we do while it warms up and one update ahead while it falls.
    """
    settings, ours, rise, fall = TRANSFORMERS[name]
    theirs = rates_of(lambda optimizer: get_scheduler(name, optimizer, W, N, settings), N)
    start = LOW if name == "warmup_stable_decay" else 0.0
    assert_same(theirs, ours, rise=rise, fall=fall, start=start)
    assert (theirs[0] == start) == (rise == -1)


@pytest.mark.parametrize(
    ("theirs", "ours"), [("linear", "linear"), ("cosine", "cosine"), ("1-sqrt", "polynomial(0.5)")]
)
@pytest.mark.parametrize(("kind", "shape"), [("linear", "linear"), ("cosine", "cosine"), ("1-sqrt", "sqrt")])
def test_transformers_wsd_has_our_shapes_in_both_directions(theirs, ours, kind, shape):
    """Their rise ``1 - sqrt(1 - x)`` is our ``polynomial(0.5)``; theirs after the end holds the floor, as ours."""
    settings = {"num_decay_steps": D, "warmup_type": theirs, "decay_type": kind}
    rates = rates_of(lambda optimizer: get_scheduler("warmup_stable_decay", optimizer, W, N, settings), N + 5)
    assert_same(rates, wsd(warmup=W, decay=D, shape=shape, warmup_shape=ours), rise=-1)


def test_transformers_cosine_goes_up_again_after_the_end_where_ours_holds():
    rates = rates_of(lambda optimizer: get_scheduler("cosine", optimizer, W, N), N + 30)
    assert rates[N + 29] > 0.2 > cosine(warmup=W).resolve(total_steps=N)(N + 29) == 0


TORCH = {
    "CosineAnnealingLR": (lr_scheduler.CosineAnnealingLR, {"T_max": N, "eta_min": LOW}, cosine(floor=LOW)),
    "PolynomialLR": (lr_scheduler.PolynomialLR, {"total_iters": N, "power": 3.0}, polynomial(power=3.0)),
    "LinearLR, falling": (
        lr_scheduler.LinearLR, {"start_factor": 1.0, "end_factor": LOW, "total_iters": N}, linear(floor=LOW),
    ),
    "ExponentialLR": (lr_scheduler.ExponentialLR, {"gamma": 0.01 ** (1 / N)}, piecewise(
        points={0: 1.0, "100%": 0.01}, shape="exponential"
    )),
    "MultiStepLR": (lr_scheduler.MultiStepLR, {"milestones": [40, 70], "gamma": 0.5}, multi_step(
        milestones={40: 0.5, 70: 0.25}
    )),
    "StepLR": (lr_scheduler.StepLR, {"step_size": 40, "gamma": 0.5}, multi_step(milestones={40: 0.5, 80: 0.25})),
}  # fmt: skip


@pytest.mark.parametrize("name", TORCH)
def test_torchs_falls_are_ours_update_by_update(name):
    """From the first update, at the base rate, to the end value one update after the last."""
    scheduler, settings, ours = TORCH[name]
    assert_same(rates_of(lambda optimizer: scheduler(optimizer, **settings), N + 1), ours, warmup=0)


def test_torchs_linear_rise_is_ours_one_update_later():
    """``LinearLR(start_factor=f)``: their update 0 has ``f`` itself, ours is one step above it."""
    theirs = rates_of(lambda optimizer: lr_scheduler.LinearLR(optimizer, 0.25, total_iters=W), N)
    assert_same(theirs, constant(warmup=W, warmup_start=0.25), rise=-1, start=0.25)


def test_torchs_way_to_spell_out_warmup_and_cosine():
    """``SequentialLR`` of ``LinearLR`` and ``CosineAnnealingLR``, as in torch's own documentation."""

    def theirs(optimizer):
        rise = lr_scheduler.LinearLR(optimizer, 1 / W, total_iters=W)
        return lr_scheduler.SequentialLR(optimizer, [rise, lr_scheduler.CosineAnnealingLR(optimizer, N - W)], [W])

    assert_same(rates_of(theirs, N), cosine(warmup=W, warmup_start=1 / W), rise=-1, start=1 / W)


@pytest.mark.parametrize(("first", "factor"), [(10, 1), (10, 2), (7, 3), (1, 2)])
@pytest.mark.parametrize("low", [0.0, LOW])
def test_torchs_warm_restarts_are_ours_update_by_update(first, factor, low):
    theirs = rates_of(
        lambda optimizer: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, first, factor, eta_min=low), 150
    )
    assert_same(theirs, cosine_restarts(first_cycle=first, cycle_factor=factor, floor=low), total=150, warmup=0)


@pytest.mark.parametrize(("anneal", "shape"), [("cos", "cosine"), ("linear", "linear")])
def test_torchs_one_cycle_is_ours_of_one_update_less(anneal, shape):
    """Theirs of N updates has its peak at ``pct_start * N - 1`` and its floor at the last update itself."""
    theirs = rates_of(
        lambda optimizer: lr_scheduler.OneCycleLR(
            optimizer, 1.0, total_steps=N, pct_start=0.3, anneal_strategy=anneal, cycle_momentum=False
        ),
        N - 1,
    )
    assert_same(theirs, one_cycle(warmup=29, shape=shape), total=N - 1, warmup=29, rise=-1, start=0.04)


def test_torchs_one_cycle_in_three_phases_is_points_of_ours():
    theirs = rates_of(
        lambda optimizer: lr_scheduler.OneCycleLR(
            optimizer, 1.0, total_steps=N, pct_start=0.3, three_phase=True, cycle_momentum=False
        ),
        N - 1,
    )
    ours = piecewise(points={0: 0.04, 29: 1.0, 58: 0.04, N - 1: 4e-6}, shape="cosine")
    assert_same(theirs, ours, total=N - 1, warmup=29, rise=-1, start=0.04)


def test_torchs_cosine_goes_up_again_after_the_end_where_ours_holds():
    rates = rates_of(lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=N), N + 30)
    assert rates[N + 29] > 0.1 > cosine().resolve(total_steps=N)(N + 29) == 0


def test_torchs_constant_factor_is_a_sequence_with_a_lower_first_part():
    theirs = rates_of(lambda optimizer: lr_scheduler.ConstantLR(optimizer, 0.25, total_iters=40), N)
    ours = sequence(parts=[(piecewise(points={0: 0.25}), 40), (constant(), None)])
    assert_same(theirs, ours, warmup=0)
