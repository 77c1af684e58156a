"""One look at the gradients: what it finds, when it is out of date, and clipping by it."""

import pytest
import torch

from lightning_llmopt.gradients import GradientReading


def parameters(*gradients):
    made = []
    for gradient in gradients:
        parameter = torch.nn.Parameter(torch.zeros(3))
        parameter.grad = None if gradient is None else torch.full((3,), float(gradient))
        made.append(parameter)
    return made


def test_counts_every_parameter_once_and_leaves_out_those_without_a_gradient():
    first, none, second = parameters(1, None, 2)
    reading = GradientReading([first, none, second, first])
    assert reading.norms.tolist() == pytest.approx([3**0.5, 12**0.5])
    assert reading.total.item() == pytest.approx(15**0.5)
    assert reading.coefficient == 1


def test_clips_as_torch_does():
    ours, theirs = parameters(1, None, 2), parameters(1, None, 2)
    reading = GradientReading(ours)
    reading.clip_(ours, max_norm=0.5)
    total = torch.nn.utils.clip_grad_norm_(theirs, 0.5)
    assert torch.equal(reading.total, total)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours, theirs, strict=True) if a.grad is not None)
    assert reading.clipped.item() == pytest.approx(0.5, rel=1e-5)


def test_clipping_twice_multiplies_the_factors():
    ours = parameters(3, 4)
    reading = GradientReading(ours)
    raw = reading.total.item()
    reading.clip_(ours, max_norm=2.0)
    reading.clip_(ours, max_norm=1.0)
    assert reading.coefficient.item() == pytest.approx(1.0 / raw, rel=1e-5)
    assert GradientReading(ours).total.item() == pytest.approx(1.0, rel=1e-5)


def test_takes_the_loss_scale_off_the_norm_and_leaves_it_on_the_gradient():
    ours = parameters(3 * 1024, 4 * 1024)
    reading = GradientReading(ours, loss_scale=torch.tensor(1024.0))
    assert reading.total.item() == pytest.approx(75**0.5)
    reading.clip_(ours, max_norm=75**0.5 / 2)
    assert ours[0].grad[0].item() == pytest.approx(3 * 512)


def test_a_gradient_that_is_nan_stays_where_it_is():
    ours = parameters(1, float("nan"), 2)
    GradientReading(ours).clip_(ours, max_norm=0.1)
    assert ours[0].grad.tolist() == [1.0] * 3
    assert ours[2].grad.tolist() == [2.0] * 3


def test_a_norm_that_overflows_clips_to_nothing():
    """As torch does: no update is better than one of 1e25 times its size."""
    ours = parameters(1e25, 2)
    reading = GradientReading(ours)
    reading.clip_(ours, max_norm=0.1)
    assert ours[0].grad.tolist() == ours[1].grad.tolist() == [0.0] * 3
    assert reading.total == float("inf")
    assert reading.clipped == 0


def test_no_gradient_at_all_is_a_norm_of_zero():
    ours = parameters(None)
    reading = GradientReading(ours)
    reading.clip_(ours, max_norm=1.0)
    assert reading.total == 0


def test_nothing_is_copied_to_the_host():
    """On the meta device any host read raises."""
    with torch.device("meta"):
        ours = parameters(1, 2)
    reading = GradientReading(ours)
    reading.clip_(ours, max_norm=1.0)
    assert reading.clipped.device.type == "meta"


def test_keeps_no_gradient_alive():
    ours = parameters(1)
    reading = GradientReading(ours)
    reading.clip_(ours, max_norm=1.0)
    held = [value for value in vars(reading).values() if isinstance(value, torch.Tensor)]
    assert all(value is not ours[0].grad and value.numel() <= 1 for value in held)
