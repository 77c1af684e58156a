"""Trunks and their decays, by hand and against the papers' own numbers."""

import pytest

from lightning_llmopt.schedules import half_life, rewarm, wsd, wsd_s


def test_wsd_keeps_the_values_of_the_cooldown_paper():
    """Hägele et al. 2024 with 1-sqrt, N = 1000, 20 % decay: factors at 800, 801, 850, 900, 999, 1000."""
    schedule = wsd(warmup=100, decay="20%", shape="sqrt").resolve(total_steps=1_000)
    values = [schedule(step) for step in (99, 100, 799, 800, 801, 850, 900, 999, 1_000)]
    assert values == pytest.approx([1, 1, 1, 1, 0.929289, 0.5, 0.292893, 0.002503, 0], abs=5e-7)


def test_wsd_s_takes_its_warmup_from_the_first_period():
    schedule = wsd_s(periods=[4, 6], decay=0.5, warmup=2, floor=0.5).resolve(total_steps=10)
    assert [schedule(step) for step in range(11)] == pytest.approx(
        [0.5, 1, 1, 0.75, 1, 1, 1, 1, 1 - 0.5 / 3, 1 - 1 / 3, 0.5]
    )


def test_wsd_s_can_have_periods_that_are_parts_of_the_run():
    schedule = wsd_s(periods=["20%", "30%", "50%"], decay=0.5).resolve(total_steps=100)
    assert [schedule(step) for step in (0, 9, 10, 19, 20, 34, 35, 50, 74, 75, 99)] == pytest.approx(
        [1, 1, 1, 0.1, 1, 1, 1, 1, 1, 1, 0.04], abs=1e-12
    )


def test_wsd_s_periods_must_fit():
    with pytest.raises(ValueError, match=r"= 30 updates, but total_steps is 20"):
        wsd_s(periods=[10, 20]).resolve(total_steps=20)
    with pytest.raises(ValueError, match=r"stable 1 is to end at update 5 .* the phases before it end at update 8"):
        wsd_s(periods=2, decay=0.0, warmup=8).resolve(total_steps=10)
    with pytest.raises(
        ValueError, match="wsd_s does not fill the run: its periods end at update 10, but total_steps is"
    ):
        wsd_s(periods=[5, 5]).resolve(total_steps=100)
    assert wsd_s(periods=3).resolve(total_steps=100).total_steps == 100
    for periods in (0, True, [], [10, "20%"], None, "50%", 10**7, 1.5):
        with pytest.raises(ValueError, match="periods must"):
            wsd_s(periods=periods)


def test_half_life_halves():
    schedule = half_life(warmup=10, decay=100, half_life=20).resolve(total_steps=300)
    assert [schedule(200 + 20 * halvings) for halvings in range(6)] == pytest.approx(
        [1, 0.5, 0.25, 0.125, 0.0625, 0.03125]
    )
    assert schedule(10**9) == schedule(300) == pytest.approx(2**-5)


def test_half_life_can_be_a_part_of_the_run():
    schedule = half_life(decay="50%", half_life="25%").resolve(total_steps=8)
    assert schedule(6) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="half_life must be at least 1 update, got 1% of 8"):
        half_life(decay="50%", half_life="1%").resolve(total_steps=8)
    with pytest.raises(ValueError, match="half_life must be > 0, got 0"):
        half_life(half_life=0)


def test_rewarm_starts_where_the_first_run_ended():
    schedule = rewarm(first_warmup=2_000, share=0.3, start=0.1, floor=0.1).resolve(total_steps=10_000)
    assert [phase.steps for phase in schedule.phases] == [600, 9_400]
    assert schedule(0) == pytest.approx(0.1 + 0.9 / 600)
    assert schedule(599) == 1.0
    assert schedule(600 + 4_700) == pytest.approx(0.55)
    assert rewarm(first_warmup="10%", share=0.5).resolve(total_steps=100).phases[0].steps == 5
