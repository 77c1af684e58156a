import copy
import pickle

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from lightning_llmopt.strategies import preset
from lightning_llmopt.strategies.checkpointing import MODES, Recomputed, apply_checkpointing

from curves import arguments, train
from doubles import deepspeed_is_here
from fitting import Regression, loader, trainer
from ranks import on_ranks

RECOMPUTING = [mode for mode in MODES if mode != "none"] + [1, 2, 5]


def net(blocks=6, *, dropout=0.1, width=16):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(width, 2, 4 * width, dropout=dropout, batch_first=True)
    return nn.Sequential(
        nn.Embedding(11, width), nn.TransformerEncoder(layer, blocks, enable_nested_tensor=False), nn.Linear(width, 11)
    )


def loss_and_gradients(model, *, seed=1):
    torch.manual_seed(seed)
    tokens = torch.randint(11, (3, 7))
    loss = nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
    model.zero_grad()
    loss.backward()
    return loss.detach(), torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("mode", RECOMPUTING)
def test_loss_and_gradients_are_bit_equal_dropout_included(mode):
    model = net()
    plain = loss_and_gradients(model)
    assert apply_checkpointing(model, mode)
    again = loss_and_gradients(model)
    assert again[0].equal(plain[0])
    assert again[1].equal(plain[1])


@pytest.mark.parametrize(
    ("mode", "names"),
    [("every_block", range(6)), ("sqrt", [0, 2, 4]), (1, range(6)), (4, [0, 4]), (9, [0]), ("selective", range(6))],
)
def test_these_blocks_compute_again(mode, names):
    assert apply_checkpointing(net(), mode) == [f"1.layers.{index}" for index in names]


def test_attention_alone_computes_again():
    assert apply_checkpointing(net(2), "attention") == ["1.layers.0.self_attn", "1.layers.1.self_attn"]


def forwards(model):
    """How often each block's first linear layer runs in a forward and a backward pass."""
    counts = [0] * len(model[1].layers)

    def count(index):
        def hook(*args):
            counts[index] += 1

        return hook

    handles = [layer.linear1.register_forward_hook(count(index)) for index, layer in enumerate(model[1].layers)]
    loss_and_gradients(model)
    for handle in handles:
        handle.remove()
    return counts


def test_blocks_run_twice_and_the_others_once():
    model = net()
    assert forwards(model) == [1] * 6
    apply_checkpointing(model, "every_block")
    assert forwards(model) == [2] * 6
    apply_checkpointing(model, 3)
    assert forwards(model) == [2, 1, 1, 2, 1, 1]


def kept(model):
    """Bytes of distinct activations that a forward pass keeps for the backward pass."""
    storages = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(torch.randint(11, (4, 32)))
    return sum(storage.nbytes() for storage in storages.values())


def test_less_is_kept_the_more_computes_again():
    plain, blocks, third = (kept_by(mode) for mode in ("none", "every_block", 3))
    assert blocks < 0.15 * plain
    assert 0.6 * plain < third < 0.75 * plain


def kept_by(mode):
    model = net(dropout=0.0)
    apply_checkpointing(model, mode)
    return kept(model)


def peak(model, tokens):
    """Largest sum of allocated bytes during a forward and a backward pass, exactly, by the profiler's events."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        model(tokens).mean().backward()
    now = most = 0
    for event in prof.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def test_a_selective_pass_keeps_products_and_attention(recwarn):
    tokens = torch.randint(11, (4, 32))
    sizes = {}
    for mode in ("none", "selective", "every_block"):
        model = net(dropout=0.0, width=32)
        apply_checkpointing(model, mode)
        sizes[mode] = peak(model, tokens)
    assert sizes["every_block"] < sizes["selective"] < sizes["none"]


def test_nothing_computes_again_where_no_gradient_is_wanted():
    model = net()
    apply_checkpointing(model, "every_block")
    with torch.no_grad():
        counts = []
        handle = model[1].layers[0].linear1.register_forward_hook(lambda *args: counts.append(1))
        model.train()(torch.randint(11, (2, 3)))
        handle.remove()
    assert counts == [1]


def test_names_states_copies_and_pickles_are_those_of_the_plain_network():
    model, plain = net(), net()
    apply_checkpointing(model, "every_block")
    assert list(model.state_dict()) == list(plain.state_dict())
    assert type(model[1].layers[0]) is nn.TransformerEncoderLayer
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.add_(0.01)  # a copy that still ran the original's forward would not see it
        moved = copy.deepcopy(plain)
        with torch.no_grad():
            for parameter in moved.parameters():
                parameter.add_(0.01)
        assert loss_and_gradients(twin)[1].equal(loss_and_gradients(moved)[1])
        assert forwards(twin) == [2] * 6


def test_none_takes_off_what_was_put_on_and_twice_is_once():
    model = net()
    own = model[1].layers[2].forward
    model[1].layers[2].forward = own
    for _ in range(2):
        apply_checkpointing(model, "every_block")
    assert forwards(model) == [2] * 6
    assert apply_checkpointing(model, "none") == []
    assert model[1].layers[2].__dict__["forward"] is own
    assert all("forward" not in vars(model[1].layers[index]) for index in (0, 1, 3, 4, 5))


def test_a_cache_that_blocks_append_to_is_left_out():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.norm = nn.Linear(4, 4), nn.Linear(4, 4), nn.LayerNorm(4)

        def forward(self, x, past_key_values=None, use_cache=True):
            if past_key_values is not None:
                past_key_values.append(x)
                x = x + sum(past_key_values)
            return self.norm(x + self.two(self.one(x).relu()))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([Block(), Block()])

        def forward(self, x):
            for block in self.blocks:
                x = block(x, past_key_values=[], use_cache=True)
            return x

    model = Net()
    apply_checkpointing(model, "every_block")
    model(torch.ones(2, 4)).sum().backward()


class Residual(nn.Module):
    """A block of a convolutional network."""

    def __init__(self, norm):
        super().__init__()
        self.one, self.norm_1 = nn.Conv1d(6, 6, 3, padding=1), norm()
        self.two, self.norm_2 = nn.Conv1d(6, 6, 3, padding=1), norm()

    def forward(self, x):
        return x + self.norm_2(self.two(self.norm_1(self.one(x)).relu()))


class Centered(nn.Module):
    """Takes off a running mean that it has moved in the same pass, counts its passes, and replaces a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("last", torch.zeros(6))
        self.register_buffer("passes", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        self.mean.mul_(0.5).add_(x.detach().mean() * 0.5)
        self.passes += 1
        x = (x - self.mean) * (1 + self.last.mean() / self.passes)
        self.last = x.detach().mean((0, 2))
        return x.tanh()


NORMS = {
    "batch": lambda: nn.BatchNorm1d(6),
    "batch, cumulative": lambda: nn.BatchNorm1d(6, momentum=None),
    "instance": lambda: nn.InstanceNorm1d(6, track_running_stats=True),
    "own": Centered,
}


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
@pytest.mark.parametrize("mode", ["every_block", "selective"])
def test_buffers_are_as_without_it(norm, mode):
    """Each block is used twice in a pass, as in a recurrent network: the second use reads what the first wrote."""

    def trained(mode):
        torch.manual_seed(0)
        blocks = nn.Sequential(*[Residual(norm) for _ in range(4)])
        model = nn.Sequential(nn.Conv1d(2, 6, 1), blocks, nn.Conv1d(6, 1, 1))
        assert len(apply_checkpointing(model, mode, blocks=["1.*"])) == (0 if mode == "none" else 4)
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.05), []
        for _ in range(3):
            loss = model[2](model[1](model[1](model[0](torch.randn(5, 2, 8))))).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert sum(not buffer.equal(before[name]) for name, buffer in model.named_buffers()) >= 2 * 8
        return losses, model.state_dict()

    losses, state = trained("none")
    found, held = trained(mode)
    assert found == losses
    assert all(held[name].equal(value) for name, value in state.items())


class Spread(nn.Module):
    """Has one row of a mask that shows as many, as ``expand`` makes them, and moves it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.ones(6, 1).expand(5, 6, 8))
        self.register_buffer("passes", torch.zeros(()).expand(3))

    def forward(self, x):
        self.mask[0, :, 0] += 1
        self.passes[0] += 1
        return (x * self.mask / self.passes[2]).tanh()


class Resized(nn.Module):
    """Makes a buffer as large as it needs in the first pass, as torch's observers for quantization do."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(2))

    def forward(self, x):
        fresh = len(self.scale) == 2
        self.scale.resize_(6).copy_(x.detach().abs().mean((0, 2)) + (1 if fresh else self.scale))
        return x / self.scale.clone()[:, None]


@pytest.mark.parametrize("norm", [Spread, Resized])
@pytest.mark.parametrize("mode", ["every_block", "selective"])
def test_buffers_that_are_no_plain_memory_of_one_size(norm, mode):
    def trained(mode):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv1d(2, 6, 1), nn.Sequential(*[Residual(norm) for _ in range(4)]), nn.Flatten())
        apply_checkpointing(model, mode, blocks=["1.*"])
        losses = []
        for _ in range(3):
            loss = model(torch.randn(5, 2, 8)).pow(2).mean()
            loss.backward()
            losses.append(loss.item())
        return losses, [parameter.grad for parameter in model.parameters()], list(model.buffers())

    for found, expected in zip(trained(mode), trained("none"), strict=True):
        assert all(torch.as_tensor(one).equal(torch.as_tensor(two)) for one, two in zip(found, expected, strict=True))


@pytest.mark.parametrize("mode", ["all", "", 0, -1, True, 1.5, None])
def test_what_is_no_mode_is_refused(mode):
    with pytest.raises(ValueError, match="checkpointing must be one of .* or a whole number >= 1, got"):
        apply_checkpointing(net(), mode)


def test_a_network_without_blocks_or_attention_is_refused():
    with pytest.raises(ValueError, match="No repeated blocks found"):
        apply_checkpointing(nn.Linear(2, 2), "every_block")
    deep = nn.Sequential(*[nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 8), nn.Linear(8, 4)) for _ in range(3)])
    with pytest.raises(ValueError, match=r'"attention" needs modules .* none in Sequential. Use "selective"'):
        apply_checkpointing(deep, "attention")


needs_deepspeed = pytest.mark.skipif(
    not deepspeed_is_here(), reason="deepspeed is not installed: pip install 'lightning-llmopt[deepspeed]'"
)
MODES_OF = dict.fromkeys(("fp32", "ddp", "fsdp", "fsdp2", "zero2"), ("none", "every_block", "selective"))
MODES_OF["zero3"] = ("none", "every_block", "attention")
ZERO = [pytest.param(f"zero{stage}", marks=needs_deepspeed) for stage in (2, 3)]


@pytest.mark.parametrize("name", ["fp32", "ddp", "fsdp", "fsdp2", *ZERO])
def test_under_every_kind_of_preset_losses_are_bit_equal(tmp_path, name):
    ranks = 1 if name == "fp32" else 2
    numbers = {} if name == "fp32" else {"precision": "fp32"}

    def fits(rank):
        found = {}
        for mode in MODES_OF[name]:
            given = arguments(name, "Encoder", **numbers, checkpointing=mode)
            losses, _, run = train(tmp_path, "Encoder", rank=rank, ranks=ranks, updates=3, **given)
            modules = run.lightning_module.modules()
            found[mode] = losses, sum(isinstance(vars(module).get("forward"), Recomputed) for module in modules)
        return found

    for found in on_ranks(ranks, fits):
        assert [count for _, count in found.values()] == [0, 4, 4]
        first, *others = [losses for losses, _ in found.values()]
        assert others == [first, first]


@needs_deepspeed
@pytest.mark.parametrize("mode", ["every_block", "attention", 2])
def test_a_preset_for_a_module_without_blocks_names_both_ways_out(tmp_path, mode):
    run = trainer(tmp_path, **preset("fp32", checkpointing=mode), max_steps=1)
    with pytest.raises(ValueError, match=f"checkpointing={mode!r} cannot be put on Regression: drop it, or ") as caught:
        run.fit(Regression(torch.optim.SGD), loader())
    assert f"apply_checkpointing(self, {mode!r}, blocks=[...]) in configure_model. No repeated blocks" in str(
        caught.value
    )


def test_keeping_single_operations_under_zero_3_is_refused():
    with pytest.raises(ValueError, match='one of them: use checkpointing="every_block" or "attention", or stage 2'):
        preset("zero3", checkpointing="selective")


@pytest.mark.parametrize("name", ["bf16", "ddp", "fsdp", "fsdp2", "tp", pytest.param("zero2", marks=needs_deepspeed)])
def test_every_preset_refuses_what_is_no_mode_at_once(name):
    with pytest.raises(ValueError, match="checkpointing must be one of .* or a whole number >= 1, got 'all'"):
        preset(name, checkpointing="all")
