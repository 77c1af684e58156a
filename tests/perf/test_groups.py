"""A schedule writes into the groups it finds: none is added, split or replaced."""

import torch
from lightning.pytorch import Callback

from lightning_llmopt.callbacks import LRSchedule
from lightning_llmopt.schedules import wsd

from fitting import Regression, loader, trainer


class Groups(Callback):
    """Notes which group objects the optimizer has, with which parameters and which keys."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        groups = optimizer.param_groups
        self.seen.append([(id(group), [id(entry) for entry in group["params"]], set(group)) for group in groups])


def groups_of_a_fit(tmp_path, *callbacks):
    watch = Groups()
    model = Regression(torch.optim.AdamW)
    trainer(tmp_path, *callbacks, watch, max_steps=5).fit(model, loader(5))
    return watch.seen


def test_groups_stay_the_same_objects_through_a_run(tmp_path):
    first, *later = groups_of_a_fit(tmp_path, LRSchedule(wsd(warmup=2, decay=2)))
    assert later == [first] * 4


def test_a_group_gains_its_base_rate_and_nothing_else(tmp_path):
    without, with_schedule = groups_of_a_fit(tmp_path)[0], groups_of_a_fit(tmp_path, LRSchedule(wsd()))[0]
    assert len(with_schedule) == len(without)
    for (_, parameters, keys), (_, more_parameters, more_keys) in zip(without, with_schedule, strict=True):
        assert len(parameters) == len(more_parameters)
        assert more_keys - keys == {"initial_lr"}
