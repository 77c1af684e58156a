import random

import pytest

from lightning_llmopt.reporting.thinning import log_ticks, number, smoothed, thinned, ticks


def test_no_spike_is_lost():
    random.seed(0)
    points = [(step, random.random()) for step in range(100_000)]
    points[77_777], points[123] = (77_777, 50.0), (123, -50.0)
    kept = thinned(tuple(points), most=1_000)
    assert len(kept) <= 1_000
    assert {(77_777, 50.0), (123, -50.0)} <= set(kept)
    assert list(kept) == sorted(kept)
    assert set(kept) <= set(points)


def test_few_points_stay_as_they_are():
    points = tuple((step, 1.0) for step in range(10))
    assert thinned(points, most=10) == points


def test_the_mean_of_a_straight_line_is_the_line_and_of_noise_is_calmer():
    line = tuple((step, 3.0 * step) for step in range(200))
    assert dict(smoothed(line, part=0.1)[20:180]) == pytest.approx(dict(line[20:180]))
    noise = tuple((step, float(step % 2)) for step in range(200))
    assert all(0.4 < value < 0.6 for _, value in smoothed(noise, part=0.1))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 7.7), (1e-9, 3e-9), (5.0, 5e6), (99.0, 101.0)])
def test_ticks_are_inside_and_few(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 7
    assert all(low - 1e-12 <= one <= high * (1 + 1e-12) for one in found)
    assert len({number(one) for one in found}) == len(found)


def test_a_range_of_nothing_has_one_tick():
    assert ticks(2.0, 2.0) == [2.0]


@pytest.mark.parametrize(("low", "high"), [(0.02, 30.0), (1e-8, 1e4), (0.4, 9.0)])
def test_log_ticks_are_inside_and_few(low, high):
    found = log_ticks(low, high)
    assert 2 <= len(found) <= 14
    assert all(low <= one <= high for one in found)
