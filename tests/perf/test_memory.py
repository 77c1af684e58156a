"""Nothing is kept: no gradient, no tensor, no list that grows with the run."""

import gc
import weakref

import numpy
import pytest
import torch
from lightning.pytorch import Callback

from lightning_llmopt.callbacks import GradientNormClip, GradientNormMonitor, LRSchedule
from lightning_llmopt.gradients import GradientReading
from lightning_llmopt.schedules import wsd

from fitting import Regression, loader, trainer


def ours():
    return LRSchedule(wsd(warmup=2, decay=2)), GradientNormClip(max_norm=0.01), GradientNormMonitor()


def test_a_reading_keeps_no_gradient_alive():
    memory = numpy.ones(4, dtype=numpy.float32)  # torch holds on to it as long as any tensor or view uses it
    alive = weakref.ref(memory)
    parameter = torch.nn.Parameter(torch.ones(4))
    parameter.grad = torch.from_numpy(memory)
    del memory
    reading = GradientReading([parameter])
    reading.clip_([parameter], max_norm=1.0)
    assert alive() is not None
    parameter.grad = None
    assert alive() is None
    assert reading.total.item() == pytest.approx(2.0)


def test_a_reading_holds_one_number_a_tensor_and_two_more():
    parameters = [torch.nn.Parameter(torch.ones(1000)) for _ in range(5)]
    for parameter in parameters:
        parameter.grad = torch.ones(1000)
    held = [value for value in vars(GradientReading(parameters)).values() if isinstance(value, torch.Tensor)]
    assert sorted(tensor.untyped_storage().nbytes() for tensor in held) == [4, 4, 5 * 4]


class TensorsAlive(Callback):
    """Counts all tensors of the process at the start of some batches."""

    def __init__(self, *batches):
        self.batches, self.counts = batches, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx in self.batches:
            gc.collect()
            self.counts.append(sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()))


def test_the_number_of_tensors_does_not_grow_with_the_run(tmp_path):
    alive = TensorsAlive(3, 19)
    run = trainer(tmp_path, *ours(), alive, max_steps=20, log_every_n_steps=1)
    run.fit(Regression(torch.optim.AdamW), loader(20))
    early, late = alive.counts
    assert late <= early  # fewer, if what an earlier test left behind went in between


class SizeOfState(Callback):
    """Number of things that each callback remembers, after each batch."""

    def __init__(self, watched):
        self.watched, self.sizes = watched, []

    def on_train_batch_end(self, *_):
        self.sizes.append([_things(vars(callback)) for callback in self.watched])


def _things(value):
    """Number of entries in nested containers."""
    if isinstance(value, dict):
        return sum(_things(entry) for entry in value.values()) + len(value)
    if isinstance(value, list | tuple | set):
        return sum(_things(entry) for entry in value) + len(value)
    return 0


def test_no_callback_collects_a_list_over_the_run(tmp_path):
    callbacks = ours()
    sizes = SizeOfState(callbacks)
    trainer(tmp_path, *callbacks, sizes, max_steps=12, log_every_n_steps=1).fit(Regression(), loader(12))
    assert sizes.sizes[2:] == [sizes.sizes[2]] * 10


def _plain(value):
    """Whether ``value`` is made of numbers, texts, lists and dicts alone."""
    if isinstance(value, dict):
        return all(_plain(entry) for entry in value.values())
    if isinstance(value, list):
        return all(_plain(entry) for entry in value)
    return type(value) in (int, float, str, bool, type(None))


@pytest.mark.parametrize("updates", [5, 500])
def test_saved_state_is_a_few_plain_numbers(tmp_path, updates):
    callbacks = ours()
    trainer(tmp_path, *callbacks, max_steps=updates).fit(Regression(), loader(5))
    states = [callback.state_dict() for callback in callbacks]
    assert all(_plain(state) for state in states)
    assert (
        _things(states[0]) < 100
    )  # counts, rates and bases of two groups, the plan's phases, what its length came from
    assert [_things(state) for state in states[1:]] == [0, 0]
