"""Blocks named by the user, and what is said when there are none."""

import pytest
from torch import nn

from lightning_llmopt.structure import find_blocks

from .networks import LSTM, ResNet, gpt2, mlp


def names(structure):
    return [block.name for block in structure.blocks]


def test_globs_go_part_by_part():
    assert names(find_blocks(ResNet(), blocks=["layer?"])) == ["layer1", "layer2", "layer3", "layer4"]
    assert names(find_blocks(ResNet(), blocks=["layer[12].*"])) == ["layer1.0", "layer1.1", "layer2.0", "layer2.1"]


def test_depth_goes_by_the_order_of_globs():
    structure = find_blocks(ResNet(), blocks=["layer2", "layer1"])
    assert structure.depth_of("layer2.0.conv1.weight") == 1
    assert structure.depth_of("layer1.0.conv1.weight") == 2


def test_what_no_glob_names_goes_by_registration():
    structure = find_blocks(ResNet(), blocks=["layer1", "layer3"])
    assert structure.block_of("conv1.weight") == "embedding"
    assert structure.block_of("layer2.0.conv1.weight") == "layer3"
    assert structure.block_of("layer4.0.conv1.weight") == "head"


def test_function_of_module():
    structure = find_blocks(mlp(), blocks=lambda name, module: isinstance(module, nn.Linear) and name != "4")
    assert names(structure) == ["0", "2"]
    assert structure.head == ("4.weight", "4.bias")


def test_index_of_parameter():
    structure = find_blocks(LSTM(), index=lambda name: int(name[-1]) if name.startswith("lstm") else None)
    assert names(structure) == ["block_0", "block_1", "block_2"]
    assert structure.depth_of("lstm.bias_ih_l2") == 3
    assert structure.embedding == ("embed.weight",)
    assert structure.block_of("heads.0.weight") == "head"


def test_index_of_none_between_goes_to_the_following():
    structure = find_blocks(mlp(), index={"0.weight": 0, "4.weight": 1}.get)
    assert [structure.depth_of(f"{name}.bias") for name in (0, 2, 4)] == [2, 2, 3]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blocks": ["layer9.*"]}, r"The glob 'layer9.\*' matches no module\. ResNet .* has:"),
        ({"blocks": []}, "blocks must choose at least one module, got none"),
        ({"blocks": lambda name, module: False}, "blocks must choose at least one module, got none"),
        ({"blocks": ["layer1", "layer1.0"]}, "must not lie inside each other, got 'layer1' and 'layer1.0'"),
        ({"index": lambda name: None}, r"index must give block numbers .* got \[\]"),
        ({"index": lambda name: 2 if "fc" in name else 0}, r"without a gap, got \[0, 2\]"),
        ({"index": lambda name: -1}, "whole number >= 0 or None, got -1 for 'conv1.weight'"),
        ({"index": lambda name: True}, "whole number >= 0 or None, got True"),
    ],
)
def test_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        find_blocks(ResNet(), **settings)


def test_one_string_is_no_list_of_globs():
    with pytest.raises(TypeError, match=r"list of globs or a function, got the string 'layer\?'"):
        find_blocks(ResNet(), blocks="layer?")


def test_blocks_or_index():
    with pytest.raises(TypeError, match="takes blocks or index, got both"):
        find_blocks(ResNet(), blocks=["layer1"], index=lambda name: 0)


def test_error_names_what_it_saw_and_both_ways_out():
    with pytest.raises(ValueError, match="No repeated blocks") as caught:
        find_blocks(LSTM())
    for part in (
        "LSTM (7,583 parameters) has:",
        "  lstm: LSTM, 6,528 parameters",
        "blocks=[",
        "(name, module)",
        "index=",
    ):
        assert part in str(caught.value)


def test_error_shows_no_more_than_a_page():
    parts = nn.ModuleDict({f"{i}": nn.Linear(2, 3) for i in range(99)})
    with pytest.raises(ValueError, match=r"  \.\.\.") as caught:
        find_blocks(parts)
    assert len(str(caught.value).splitlines()) < 30


def test_a_network_without_children():
    with pytest.raises(ValueError, match="Linear .* has no children"):
        find_blocks(nn.Linear(2, 2))


def test_a_found_block_can_be_named_again():
    structure = find_blocks(gpt2())
    assert find_blocks(gpt2(), blocks=names(structure)) == structure
