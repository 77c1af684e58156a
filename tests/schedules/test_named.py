"""The recipes, against values worked out by hand."""

import math

import pytest

from lightning_llmopt.schedules import constant, cosine, inverse_sqrt, linear, polynomial, power


def test_linear_by_hand():
    schedule = linear(warmup=2).resolve(total_steps=10)
    assert [schedule(step) for step in range(11)] == [0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0]


def test_cosine_by_hand():
    schedule = cosine(floor=0.1).resolve(total_steps=3)
    assert [schedule(step) for step in range(4)] == pytest.approx([1.0, 0.775, 0.325, 0.1], abs=1e-15)


@pytest.mark.parametrize("warmup_shape", ["linear", "cosine", "sqrt"])
def test_warmup_has_a_shape_of_its_own(warmup_shape):
    schedule = constant(warmup=4, warmup_shape=warmup_shape).resolve(total_steps=9)
    half = {"linear": 0.5, "cosine": 0.5, "sqrt": math.sqrt(0.5)}[warmup_shape]
    assert schedule(1) == pytest.approx(half)
    assert schedule(3) == 1.0


def test_polynomial_of_power_one_is_linear():
    with pytest.raises(ValueError, match="power must be a finite number > 0, got 0"):
        polynomial(power=0)
    for step in range(30):
        assert polynomial(power=1.0).resolve(total_steps=30)(step) == linear().resolve(total_steps=30)(step)


def test_inverse_sqrt_is_the_transformers_schedule_one_update_later():
    """Vaswani et al. 2017, d = 512, W = 4000: 6.98771e-4 at the peak (update 4000 from 1), 4.94106e-4 at 8000."""
    schedule = inverse_sqrt(warmup=4_000).resolve(total_steps=None)
    peak = 512**-0.5 * 4_000**-0.5
    assert peak == pytest.approx(6.98771e-4, rel=1e-6)
    assert schedule(0) * peak == pytest.approx(1.7469e-7, rel=1e-4)
    assert schedule(8_000) * peak == pytest.approx(4.94106e-4, rel=1e-6)
    for number in (1, 77, 4_000):
        assert schedule(number - 1) == pytest.approx(number / 4_000)
    for number in (4_001, 5_000, 123_456):
        assert schedule(number) == pytest.approx((4_000 / number) ** 0.5)


def test_inverse_sqrt_can_cool_down():
    schedule = inverse_sqrt(warmup=4, cooldown=6, floor=0.1).resolve(total_steps=18)
    assert schedule(12) == pytest.approx((4 / 12) ** 0.5)
    assert [schedule(15), schedule(18)] == pytest.approx([((4 / 12) ** 0.5 + 0.1) / 2, 0.1])
    with pytest.raises(ValueError, match=r"timescale \(by default warmup\) must be > 0, got '0 updates'"):
        inverse_sqrt(warmup=0)


def test_power_does_not_depend_on_the_length_of_the_run_before_the_last_fall():
    short, long = (power(warmup=10, knee=30, decay=50).resolve(total_steps=total) for total in (500, 5_000))
    assert [short(step) for step in range(450)] == [long(step) for step in range(450)]
    assert short(30) == 1.0
    assert short(60) == pytest.approx(0.7022, abs=5e-5)
    with pytest.raises(ValueError, match="exponent must be a finite number < 0, got 0.5"):
        power(exponent=0.5)
    with pytest.raises(ValueError, match=r"stable is to end at update 5 .*, .* end at update 10"):
        power(warmup=10, knee=5).resolve(total_steps=100)
