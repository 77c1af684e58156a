"""One look at the gradients: what it finds, when it is out of date, and clipping by it."""

import math

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


def test_counts_every_parameter_once_and_those_without_a_gradient_as_zero():
    first, none, second = parameters(1, None, 2)
    reading = GradientReading([first, none, second, first])
    assert reading.norms.tolist() == pytest.approx([3**0.5, 0.0, 12**0.5])
    assert reading.present == (True, False, True)
    assert reading.total.item() == pytest.approx(15**0.5)
    assert reading.coefficient == 1


def test_clips_as_torch_does():
    ours, theirs = parameters(1, None, 2), parameters(1, None, 2)
    reading = GradientReading(ours)
    reading.clip_(ours, max_norm=0.5)
    total = torch.nn.utils.clip_grad_norm_(theirs, 0.5)
    torch.testing.assert_close(reading.total, total, rtol=2e-7, atol=0)
    for mine, other in zip(ours[::2], theirs[::2], strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=2e-7, atol=0)
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


def test_a_huge_gradient_is_clipped_to_the_bound():
    """Its squares overflow in fp32, its norm does not; torch's own clipping makes it 0."""
    ours = parameters(1e30, 2e30)
    reading = GradientReading(ours)
    reading.clip_(ours, max_norm=0.1)
    assert reading.total.item() == pytest.approx(15**0.5 * 1e30, rel=1e-6)
    assert GradientReading(ours).total.item() == pytest.approx(0.1, rel=1e-6)


def test_a_norm_that_overflows_clips_to_nothing():
    """As torch does: no update is better than one of any size."""
    ours = parameters(3e38, 3e38)
    reading = GradientReading(ours)
    reading.clip_(ours, max_norm=0.1)
    assert ours[0].grad.tolist() == ours[1].grad.tolist() == [0.0] * 3
    assert reading.total == float("inf")
    assert reading.clipped == 0


def test_a_factor_of_one_on_cpu_writes_nothing():
    ours = parameters(1, 2)
    versions = [parameter.grad._version for parameter in ours]
    GradientReading(ours).clip_(ours, max_norm=100.0)
    assert [parameter.grad._version for parameter in ours] == versions
    GradientReading(ours).clip_(ours, max_norm=0.1)
    assert [parameter.grad._version for parameter in ours] != versions


@pytest.mark.parametrize(("p", "norms", "total"), [(1.0, [3, 6], 9), (math.inf, [1, 2], 2)])
def test_other_orders_count_and_clip_as_in_torch(p, norms, total):
    ours, theirs = parameters(1, 2), parameters(1, 2)
    reading = GradientReading(ours, p=p)
    assert reading.norms.tolist() == pytest.approx(norms)
    assert reading.total.item() == pytest.approx(total)
    reading.clip_(ours, max_norm=0.5)
    torch.nn.utils.clip_grad_norm_(theirs, 0.5, norm_type=p)
    assert ours[0].grad.tolist() == pytest.approx(theirs[0].grad.tolist())


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
