"""Networks that nobody here wrote train with our groups, and each parameter at the rate the formula says."""

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from lightning_llmopt.callbacks import LayerwiseLRDecay, LRSchedule, ParamGroups, WeightDecaySplit
from lightning_llmopt.optim import traits_of
from lightning_llmopt.schedules import linear
from lightning_llmopt.structure import find_blocks

from fitting import trainer
from zoo import ZOO, pyg

BASE, DECAY, WEIGHT_DECAY, UPDATES = 1e-2, 0.9, 0.1, 2

every_network = pytest.mark.parametrize("entry", ZOO, ids=lambda entry: f"{entry.package}-{entry.name}")
pytestmark = pytest.mark.filterwarnings("ignore")  # theirs: deprecations, missing kernels, hints


class Plain(L.LightningModule):
    """A network and its loss, and a bare optimizer: nothing of ours."""

    def __init__(self, entry, *, fused):
        super().__init__()
        torch.manual_seed(0)
        self.model, self.loss, self.fused = entry.build(), entry.loss, fused

    def training_step(self, batch, batch_idx):
        torch.manual_seed(batch_idx)
        return self.loss(self.model)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=BASE, weight_decay=WEIGHT_DECAY, fused=self.fused)


class Look(L.Callback):
    """Notes before each update the rates, and what there is to be updated."""

    def __init__(self):
        self.rates, self.values, self.gradients = [], [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        every = [(p, group) for group in optimizer.param_groups for p in group["params"]]
        self.rates.append({p: float(group["lr"]) for p, group in every})
        self.values.append({p: p.detach().clone() for p, _ in every})
        self.gradients.append({p: p.grad.clone() for p, _ in every if p.grad is not None})


def fit(tmp_path, entry, *callbacks, fused=False):
    module, look = Plain(entry, fused=fused), Look()
    run = trainer(tmp_path, *callbacks, look, max_steps=UPDATES, num_sanity_val_steps=0)
    run.fit(module, DataLoader(torch.zeros(UPDATES)))
    assert run.global_step == UPDATES
    return module, run.optimizers[0], look


def starting_with(names, starts):
    return {name for name in names if any(name == start or name.startswith(f"{start}.") for start in starts)}


def rate(entry, depth):
    """By the formula of the docs."""
    return BASE * DECAY ** (entry.blocks + 1 - depth)


def step(parameter, look, weight_decay):
    """Length of the first AdamW step of the element that goes furthest: the rate, once weight decay is taken off."""
    before, after = look.values[0][parameter], look.values[1][parameter]
    return (after - before * (1 - look.rates[0][parameter] * weight_decay)).abs().max().item()


@every_network
def test_blocks_are_those_that_the_configuration_says(entry):
    model = entry.build()
    structure = find_blocks(model)
    stacks = [block.stack for block in structure.blocks]
    assert {stack: stacks.count(stack) for stack in dict.fromkeys(stacks)} == entry.stacks
    assert [block.index for block in structure.blocks] == list(range(entry.blocks))
    names = [name for name, _ in model.named_parameters()]
    assert set(structure.embedding) == starting_with(names, entry.embedding)
    assert set(structure.head) == starting_with(names, entry.head)


@every_network
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_every_parameter_is_in_one_group_and_trains_at_the_rate_of_its_depth(tmp_path, entry, fused):
    rules = [WeightDecaySplit(show=False), LayerwiseLRDecay(DECAY, show=False)]
    schedule = LRSchedule(linear(), total=UPDATES)  # 1, then 0.5
    module, optimizer, look = fit(tmp_path, entry, *rules, schedule, fused=fused)
    listed = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(listed) == len(set(listed)), "a parameter is in two groups"
    assert set(listed) == {parameter for parameter in module.parameters() if parameter.requires_grad}
    assert len(optimizer.param_groups) <= 2 * (entry.blocks + 2)
    structure, groups = find_blocks(module), {p: group for group in optimizer.param_groups for p in group["params"]}
    for trait in traits_of(module):
        depth, group = structure.depth_of(trait.name), groups[trait.parameter]
        expected = [rate(entry, depth) * factor for factor in (1.0, 0.5)]
        assert [rates[trait.parameter] for rates in look.rates] == pytest.approx(expected, rel=1e-12), trait.name
        is_norm = any("Norm" in kind.__name__ for kind in trait.kinds)
        assert group["weight_decay"] == (0.0 if trait.ndim < 2 or is_norm else WEIGHT_DECAY), trait.name
        if (gradient := look.gradients[0].get(trait.parameter)) is not None and gradient.abs().max() > 1e-5:
            assert step(trait.parameter, look, group["weight_decay"]) == pytest.approx(expected[0], rel=2e-3), (
                trait.name
            )
    unused = len(listed) - len(look.gradients[0])
    assert unused <= 0.1 * len(listed)


@pytest.mark.parametrize("entry", [entry for entry in ZOO if entry.tied], ids=lambda entry: entry.name)
def test_a_tied_parameter_is_in_one_group_at_the_rate_of_its_lowest_place(tmp_path, entry):
    module, optimizer, _ = fit(tmp_path, entry, LayerwiseLRDecay(DECAY, show=False))
    everything = dict(module.model.named_parameters(remove_duplicate=False))
    structure = find_blocks(module.model)
    for names in entry.tied:
        assert len({everything[name] for name in names}) == 1
        groups = [group for group in optimizer.param_groups if any(p is everything[names[0]] for p in group["params"])]
        assert len(groups) == 1
        assert groups[0]["lr"] == pytest.approx(rate(entry, min(map(structure.depth_of, names))), rel=1e-12)


@every_network
def test_rules_by_pattern_go_with_the_other_two(tmp_path, entry):
    """No decay and a tenth of the rate for one matrix of the first block, on top of everything else."""
    block = find_blocks(entry.build()).blocks[0]
    matrices = [trait for trait in traits_of(entry.build()) if trait.name in block.parameters and trait.ndim > 1]
    name = f"model.{matrices[0].name}"
    rules = {name: {"weight_decay": 0.0, "lr_scale": 0.1, "name": "special"}}
    callbacks = [ParamGroups(rules, show=False), WeightDecaySplit(show=False), LayerwiseLRDecay(DECAY, show=False)]
    module, optimizer, _ = fit(tmp_path, entry, *callbacks)
    special = dict(module.named_parameters())[name]
    (group,) = [group for group in optimizer.param_groups if any(p is special for p in group["params"])]
    assert (group["weight_decay"], group["lr"]) == (0.0, pytest.approx(0.1 * rate(entry, 1), rel=1e-12))
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(module.parameters()))


def test_a_network_without_blocks_is_a_true_error_with_the_ways_out():
    with pytest.raises(ValueError, match=r"(?s)No repeated blocks found\..*blocks=\['path\.to\.layers\.\*', \.\.\.\]"):
        find_blocks(pyg.MLP([8, 5]))
