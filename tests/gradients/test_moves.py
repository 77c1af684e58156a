"""Angles and sizes of updates, against formulas in as many digits as are needed."""

import math

import pytest
import torch

from lightning_llmopt.gradients import angle_of, move_sums


def sums(before, after):
    return move_sums([before], [after])[0]


def test_sums_are_those_of_each_tensor():
    old, new = torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.tensor([[3.0, 1.0], [2.0, 4.0]])
    assert move_sums([old, old[0]], [new, old[0] * 2]).tolist() == [[25.0, 5.0, 0.0], [9.0, 9.0, 9.0]]


def test_parts_add_up_to_the_whole():
    old, new = torch.randn(700_000), torch.randn(700_000)  # three pieces
    parts = move_sums(old.split(123_456), new.split(123_456)).sum(0)
    assert parts.tolist() == pytest.approx(sums(old, new).tolist(), rel=1e-12)
    expected = [old.double().pow(2).sum(), (new.double() - old.double()).pow(2).sum()]
    assert sums(old, new)[:2].tolist() == pytest.approx([float(one) for one in expected], rel=1e-12)


@pytest.mark.parametrize("angle", [1e-12, 1e-7, 0.5, math.pi / 2, 3.0, math.pi])
def test_an_angle_is_that_between_before_and_after(angle):
    old = torch.tensor([1.0, 0.0], dtype=torch.float64)
    new = 3 * torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    assert angle_of(sums(old, new)).item() == pytest.approx(angle, rel=1e-7, abs=5e-8)


def test_a_small_step_to_the_side_has_all_digits_where_its_cosine_says_nothing():
    old = torch.tensor([1.0, 0.0], dtype=torch.float64)
    new = old + torch.tensor([0.0, 1e-12], dtype=torch.float64)
    assert angle_of(sums(old, new)).item() == pytest.approx(1e-12, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.complex64])
def test_any_dtype_is_summed_in_fp64(dtype):
    old, new = torch.randn(1000).to(dtype), torch.randn(1000).to(dtype)
    found = sums(old, new)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    expected = (new.to(wide) - old.to(wide)).abs().pow(2).sum()
    assert found.dtype == torch.float64
    assert found[1].item() == pytest.approx(expected.item(), rel=1e-12)


def test_nothing_empty_and_zero_have_no_angle():
    missing = move_sums([None, torch.zeros(0), torch.zeros(3)], [None, torch.zeros(0), torch.ones(3)])
    assert missing.tolist() == [[0, 0, 0], [0, 0, 0], [0, 3, 0]]
    assert angle_of(missing).tolist() == [0, 0, 0]
    assert move_sums([], []).shape == (0, 3)


def test_no_host_read_is_needed():
    weight = torch.empty(3, 4, device="meta")
    assert angle_of(move_sums([weight], [weight])).device.type == "meta"
