"""Clip factors, against torch's own clipping."""

import math

import pytest
import torch

from lightning_llmopt.gradients import clip_coefficient, scale_


@pytest.mark.parametrize(
    ("total", "max_norm"), [(4.0, 1.0), (0.5, 1.0), (1.0, 1.0), (0.0, 1.0), (1e-8, 1e-9), (3e30, 2.0)]
)
def test_factor_is_the_one_torch_uses(total, max_norm):
    gradient = torch.tensor([total])
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = gradient.clone()
    torch.nn.utils.clip_grad_norm_([parameter], max_norm)
    assert gradient * clip_coefficient(torch.tensor(total), max_norm=max_norm) == parameter.grad


def test_an_infinite_norm_scales_to_nothing_as_in_torch():
    assert clip_coefficient(torch.tensor(math.inf), max_norm=1.0) == 0.0


def test_a_norm_that_is_nan_scales_nothing():
    assert clip_coefficient(torch.tensor(math.nan), max_norm=1.0) == 1.0


@pytest.mark.parametrize("max_norm", [-1, 0, 0.0, math.nan, math.inf, "1", None, True])
def test_refuses_a_bound_that_is_none(max_norm):
    with pytest.raises(ValueError, match=f"max_norm must be a finite number > 0, got {max_norm!r}"):
        clip_coefficient(torch.tensor(1.0), max_norm=max_norm)


def test_scales_every_dtype_and_layout_in_place():
    sparse = torch.sparse_coo_tensor([[1, 1]], [2.0, 4.0], (3,), check_invariants=True)
    tensors = [torch.full((2,), 8.0), torch.full((2,), 8.0, dtype=torch.bfloat16), torch.zeros(0), sparse]
    scale_(tensors, torch.tensor(0.5))
    assert tensors[0].tolist() == tensors[1].tolist() == [4.0, 4.0]
    assert sparse.to_dense().tolist() == [0.0, 3.0, 0.0]
