"""Laws of any network: every parameter in one place, deeper later."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_llmopt.structure import find_blocks

from .networks import MAKERS, BasicBlock, MoEBlock, Whole, on_meta

BLOCK = {
    "transformer": lambda: nn.TransformerEncoderLayer(16, 2, 16),
    "residual": lambda: BasicBlock(16, 16),
    "experts": lambda: MoEBlock(16, 4),
}
LIST = {
    "list": nn.ModuleList,
    "sequential": lambda blocks: nn.Sequential(*blocks),
    "dict": lambda blocks: nn.ModuleDict({f"block{i}": block for i, block in enumerate(blocks)}),
    "attributes": lambda blocks: Whole(**{f"stage{i}": block for i, block in enumerate(blocks)}),
}


@st.composite
def built(draw):
    """A network, and the blocks in it: stages of lists, a stem, a head, a few levels down."""
    make = BLOCK[draw(st.sampled_from(sorted(BLOCK)))]
    listed = LIST[draw(st.sampled_from(sorted(LIST)))]
    depths = draw(st.lists(st.integers(2, 4), min_size=1, max_size=3))
    stages = [[make() for _ in range(depth)] for depth in depths]
    body = nn.ModuleList(listed(stage) for stage in stages) if len(stages) > 1 else listed(stages[0])
    parts = {"stem": nn.Linear(4, 16), "body": body, "head": nn.Linear(16, 4)}
    if draw(st.booleans()):
        parts["tied"] = nn.Linear(4, 16)
        parts["tied"].weight = parts["stem"].weight
    net = Whole(**parts)
    if draw(st.booleans()):
        net.token = nn.Parameter(torch.empty(1, 16))
    for _ in range(draw(st.integers(0, 2))):
        net = Whole(net=net)
    return net, [block for stage in stages for block in stage]


@settings(max_examples=60, deadline=None)
@given(built())
def test_generated_blocks_are_found(case):
    with torch.device("meta"):
        net, blocks = case
    assert list(find_blocks(net).modules(net)) == blocks


@settings(max_examples=60, deadline=None)
@given(built())
def test_depth_follows_registration(case):
    net, _ = case
    structure = find_blocks(net)
    depths = [structure.depth_of(name) for name, _ in net.named_parameters()]
    assert depths == sorted(depths)


def assert_every_parameter_in_one_place(model, structure):
    listed = [*structure.embedding, *structure.head, *(name for b in structure.blocks for name in b.parameters)]
    assert sorted(listed) == sorted(name for name, _ in model.named_parameters())
    for name, parameter in model.named_parameters(remove_duplicate=False):
        assert 0 <= structure.depth_of(name) <= len(structure.blocks) + 1
        assert structure.sizes[structure.aliases.get(name, name)] == parameter.numel()


@settings(max_examples=60, deadline=None)
@given(built())
def test_every_parameter_is_in_one_place(case):
    assert_every_parameter_in_one_place(case[0], find_blocks(case[0]))


@pytest.mark.parametrize("name", MAKERS)
def test_every_parameter_of_a_real_network_is_in_one_place(name):
    model = on_meta(MAKERS[name])
    assert_every_parameter_in_one_place(model, find_blocks(model))


def test_parameter_tied_across_blocks_lies_in_the_first():
    net = nn.ModuleList(BLOCK["transformer"]() for _ in range(3))
    net[2].linear1.weight = net[1].linear1.weight
    assert find_blocks(net).depth_of("2.linear1.weight") == 2


def test_table_registered_after_the_blocks_is_embedding():
    net = Whole(layers=nn.ModuleList(BLOCK["transformer"]() for _ in range(2)), table=nn.Embedding(5, 16))
    assert find_blocks(net).embedding == ("table.weight",)
