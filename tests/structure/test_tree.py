"""Wrappers do not show."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from lightning_llmopt.structure import find_blocks
from lightning_llmopt.structure.tree import class_of, tree_of

from .networks import ResNet, gpt2

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # torch.compile's own


class FullyShardedDataParallel(nn.Module):
    """What FSDP1 leaves to be seen: a wrapped module whose weights are in one flat parameter.

    The real one wants an accelerator. Names and attributes are those of torch.distributed.fsdp 2.13.
    """

    def __init__(self, module, *, use_orig_params):
        super().__init__()
        owners = [
            (owner, name)
            for owner in module.modules()
            for name, value in owner._parameters.items()
            if value is not None
        ]
        flat = nn.Parameter(torch.cat([owner._parameters[name].flatten() for owner, name in owners]).detach())
        flat._param_infos = [SimpleNamespace(module=owner, param_name=name) for owner, name in owners]
        flat._shapes = [owner._parameters[name].shape for owner, name in owners]
        self.__dict__["_handle"] = SimpleNamespace(flat_param=flat)
        for owner, name in owners:
            if use_orig_params:
                owner._parameters[name] = nn.Parameter(owner._parameters[name].detach().flatten()[:0])
            else:
                del owner._parameters[name]
        if not use_orig_params:
            module._parameters["_flat_param"] = flat
        self._fsdp_wrapped_module = module


def encoder():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.Sequential(nn.Linear(4, 8), nn.TransformerEncoder(layer, 2), nn.Linear(8, 4))


def with_checkpoints(model):
    for i, layer in enumerate(model[1].layers):
        model[1].layers[i] = checkpoint_wrapper(layer)
    return model


def with_fsdp(model, **settings):
    for i, layer in enumerate(model[1].layers):
        model[1].layers[i] = FullyShardedDataParallel(layer, **settings)
    return model


WRAPPERS = {
    "compile": torch.compile,
    "data parallel": nn.DataParallel,
    "compiled data parallel": lambda model: torch.compile(nn.DataParallel(model)),
    "checkpoints": with_checkpoints,
    "compiled checkpoints": lambda model: torch.compile(with_checkpoints(model)),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_wrapped_network_has_the_structure_of_the_bare_one(wrap):
    bare = find_blocks(encoder())
    model = wrap(encoder())
    structure = find_blocks(model)
    assert structure.blocks == bare.blocks
    assert (structure.embedding, structure.head) == (bare.embedding, bare.head)
    assert list(structure.raw_names.values()) == [name for name, _ in model.named_parameters()]
    for clean, (raw, _) in zip(structure.raw_names, model.named_parameters(), strict=True):
        assert structure.depth_of(raw) == bare.depth_of(clean)


def test_names_given_by_wrappers_added_later_are_known():
    assert find_blocks(encoder()).depth_of("_orig_mod.1.layers.0._checkpoint_wrapped_module.norm1.bias") == 1


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_modules_of_a_wrapped_network_are_the_bare_blocks(wrap):
    model = encoder()
    layers = list(model[1].layers)
    assert list(find_blocks(encoder()).modules(wrap(model))) == layers


def test_a_network_that_calls_its_own_part_module_keeps_the_name():
    net = nn.Module()
    net.module = encoder()
    assert find_blocks(net).blocks[0].name == "module.1.layers.0"


def test_fsdp_with_original_parameters_is_seen_through():
    bare, structure = find_blocks(encoder()), find_blocks(with_fsdp(encoder(), use_orig_params=True))
    assert structure.blocks == bare.blocks
    assert structure.sizes == bare.sizes


def test_fsdp_with_flat_parameters_around_each_block():
    model = with_fsdp(encoder(), use_orig_params=False)
    structure = find_blocks(model)
    assert [block.parameters for block in structure.blocks] == [(f"1.layers.{i}._flat_param",) for i in (0, 1)]
    assert structure.depth_of("1.layers.1._fsdp_wrapped_module._flat_param") == 2
    assert sum(structure.sizes.values()) == sum(parameter.numel() for parameter in encoder().parameters())


def test_flat_parameter_of_all_that_is_no_block_lies_with_the_shallowest():
    model = encoder()
    layers = model[1].layers
    model[1].layers = nn.ModuleList()
    outer = FullyShardedDataParallel(model, use_orig_params=False)
    model[1].layers = nn.ModuleList(FullyShardedDataParallel(layer, use_orig_params=False) for layer in layers)
    assert find_blocks(outer).embedding == ("_flat_param",)
    assert find_blocks(outer).head == ()


def test_flat_parameter_of_several_blocks_is_refused():
    with pytest.raises(
        ValueError, match=r"flat parameter '_fsdp_wrapped_module._flat_param' holds 2 blocks.*Wrap each"
    ):
        find_blocks(FullyShardedDataParallel(encoder(), use_orig_params=False))


def test_parametrized_and_fully_sharded_classes_are_the_ones_written():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    assert type(layer) is not nn.Linear
    assert class_of(layer) is nn.Linear
    assert class_of(type("FSDPResNet", (ResNet,), {})()) is ResNet  # what fully_shard does


def test_zero3_stubs_count_in_full():
    model = encoder()
    for parameter in model.parameters():
        parameter.ds_shape = parameter.shape
        parameter.data = torch.empty(0)
    assert find_blocks(model).sizes == find_blocks(encoder()).sizes


def test_repeated_module_is_met_once():
    layer = nn.Linear(2, 2)
    nodes = list(tree_of(nn.Sequential(layer, layer)).walk())
    assert [(node.name, node.again) for node in nodes] == [("", False), ("0", False), ("1", True)]
    assert nodes[0].size == 6


def test_module_that_holds_its_owner_ends():
    child, owner = nn.Linear(2, 2), nn.Sequential()
    owner.append(child)
    child.owner = owner
    assert len(list(tree_of(owner).walk())) == 2


def test_copies_are_equal():
    model = gpt2()
    assert find_blocks(copy.deepcopy(model)) == find_blocks(model)
