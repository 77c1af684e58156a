"""The value that ``find_blocks`` gives."""

import pickle

import pytest
import torch
from torch import nn

from lightning_llmopt.structure import find_blocks

from .networks import gpt2, on_meta, transformer


def test_depths_of_a_tied_network():
    structure = find_blocks(gpt2())
    assert structure.depth_of("transformer.wte.weight") == structure.depth_of("lm_head.weight") == 0
    assert structure.depth_of("transformer.h.2.ln_1.bias") == 3
    assert structure.depth_of("transformer.ln_f.weight") == 4


def test_labels():
    structure = find_blocks(gpt2())
    names = ["transformer.wpe.weight", "transformer.h.1.ln_1.bias", "transformer.ln_f.bias"]
    assert [structure.block_of(name) for name in names] == ["embedding", "transformer.h.1", "head"]


def test_unknown_parameter_is_refused():
    with pytest.raises(ValueError, match=r"The network has no parameter 'no.such.weight'\."):
        find_blocks(gpt2()).depth_of("no.such.weight")


def test_blocks_tell_type_and_stack():
    block = find_blocks(transformer()).blocks[3]
    assert (block.name, block.index, block.type) == ("decoder.layers.0", 3, "TransformerDecoderLayer")
    assert block.stack == "decoder.layers"


def test_survives_pickling():
    structure = find_blocks(on_meta(gpt2))
    assert pickle.loads(pickle.dumps(structure)) == structure
    assert hash(pickle.loads(pickle.dumps(structure))) == hash(structure)


def test_modules_are_the_blocks_of_the_model_given():
    model = gpt2()
    assert list(find_blocks(on_meta(gpt2)).modules(model)) == list(model.transformer.h)


def test_modules_of_another_model_are_refused():
    with pytest.raises(ValueError, match=r"Block 'transformer.h.0' is no module of this Linear\."):
        list(find_blocks(gpt2()).modules(nn.Linear(1, 1)))


def test_modules_of_blocks_made_of_parameters_are_refused():
    net = nn.LSTM(4, 4, num_layers=2)
    with pytest.raises(ValueError, match=r"Block 'block_0' is a set of parameters"):
        list(find_blocks(net, index=lambda name: int(name[-1])).modules(net))


def test_table_counts_every_parameter_once():
    model = gpt2()
    lines = str(find_blocks(model)).splitlines()
    counts = [int(line.split()[-2].replace(",", "")) for line in lines[1:]]
    assert len(lines) == 6
    assert sum(counts) == sum(parameter.numel() for parameter in model.parameters())


def test_network_with_lazy_layers_has_a_table():
    net = nn.Sequential(
        nn.LazyLinear(8), nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 8, batch_first=True), 2)
    )
    assert "TransformerEncoderLayer" in str(find_blocks(net))
    assert torch.nn.parameter.is_lazy(net[0].weight)
