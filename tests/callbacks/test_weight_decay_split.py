"""Weight decay for matrices alone, through a real Trainer; see also test_strategies_groups.py."""

import pytest
import torch
from torch import nn

from lightning_llmopt.callbacks import HyperparameterSchedule, WeightDecaySplit
from lightning_llmopt.schedules import linear

from fitting import Regression, loader, trainer, weights


class Normed(Regression):
    """A batch norm and an embedding beside two linear layers, in one group."""

    def __init__(self, optimizer=torch.optim.AdamW, **settings):
        super().__init__(optimizer, **settings)
        self.norm, self.token = nn.LayerNorm([2, 2]), nn.Embedding(3, 1)

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) + self.norm.weight.sum() + self.token.weight.sum()

    def configure_optimizers(self):
        return self.optimizer(self.parameters(), **{"lr": 0.1, "weight_decay": 0.25, **self.settings})


def decays(run, module):
    of = {id(one): group["weight_decay"] for group in run.optimizers[0].param_groups for one in group["params"]}
    return {name: of[id(parameter)] for name, parameter in module.named_parameters()}


@pytest.mark.parametrize("embeddings", [False, True])
def test_norms_and_biases_go_without_and_embeddings_on_request(tmp_path, embeddings):
    module, run = Normed(), trainer(tmp_path, WeightDecaySplit(embeddings=embeddings), max_steps=2)
    run.fit(module, loader())
    found = decays(run, module)
    matrices = {"body.weight", "head.weight"} | (set() if embeddings else {"token.weight"})
    assert {name for name, decay in found.items() if decay == 0.25} == matrices
    assert {found[name] for name in found.keys() - matrices} == {0.0}


def test_updates_are_those_of_groups_written_by_hand(tmp_path):
    class ByHand(Normed):
        def configure_optimizers(self):
            matrices = [self.body.weight, self.head.weight, self.token.weight]
            others = [one for one in self.parameters() if all(one is not matrix for matrix in matrices)]
            return torch.optim.AdamW(
                [{"params": matrices}, {"params": others, "weight_decay": 0.0}], 0.1, weight_decay=0.25
            )

    found = []
    for module, callbacks in ((ByHand(), []), (Normed(), [WeightDecaySplit()])):
        trainer(tmp_path, *callbacks, max_steps=4).fit(module, loader())
        found.append(weights(module))
    assert found[0].equal(found[1])


def test_a_schedule_of_the_decay_leaves_those_without_alone(tmp_path):
    decay = HyperparameterSchedule("weight_decay", linear(), total=4, between=(0.0, 1.0))
    module, run = Normed(), trainer(tmp_path, WeightDecaySplit(), decay, max_steps=4)
    run.fit(module, loader())
    found = decays(run, module)
    assert found["body.bias"] == 0.0
    assert found["norm.weight"] == 0.0


def test_a_weight_decay_of_0_leaves_one_group(tmp_path):
    """Equal ones are merged; no schedule of the decay moves a 0, so that the two would never differ."""
    decay = HyperparameterSchedule("weight_decay", linear(), total=4, between=(0.0, 1.0))
    module, run = Normed(weight_decay=0.0), trainer(tmp_path, WeightDecaySplit(), decay, max_steps=4)
    with pytest.warns(UserWarning, match="it is 0 in every group"):
        run.fit(module, loader())
    (group,) = run.optimizers[0].param_groups
    assert (group["name"], group["weight_decay"]) == ("all", 0.0)
    assert len(group["params"]) == len(list(module.parameters()))


def test_an_optimizer_without_weight_decay_is_left_as_it_is(tmp_path):
    class Bare(torch.optim.Optimizer):
        def __init__(self, params, lr, **settings):
            super().__init__(params, {"lr": lr})

        def step(self, closure=None):
            return closure()

    run = trainer(tmp_path, WeightDecaySplit(), max_steps=2)
    run.fit(Normed(Bare), loader())
    assert len(run.optimizers[0].param_groups) == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"embeddings": 1}, "embeddings must be True or False, got 1"),
        ({"on_change": ""}, r"on_change must be one of \['error', 'adopt'\], got ''"),
        ({"show": None}, "show must be True or False, got None"),
    ],
)
def test_bad_arguments_are_refused_at_once(settings, said):
    with pytest.raises(ValueError, match=said):
        WeightDecaySplit(**settings)
