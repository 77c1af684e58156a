"""FSDP2 on modules that know nothing of it: what is sharded, when gradients are sent, what is refused."""

import warnings

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

from lightning_llmopt.selftest._fits import Subject
from lightning_llmopt.selftest._fits import loader as tokens
from lightning_llmopt.strategies import FSDP2

from curves import PLANS, Calls, Encoder, Llama, batches, demo, train
from fitting import Regression, loader, trainer, weights
from ranks import on_ranks


class Stack(L.LightningModule):
    """Blocks that torch can fill after they were on the meta device."""

    def __init__(self, width=8, blocks=3):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(blocks))
        self.head = nn.Linear(width, 1)

    def training_step(self, batch, batch_idx):
        x = torch.cat([batch[0], batch[0]], dim=1)
        for block in self.blocks:
            x = block(x)
        return (self.head(x) - batch[1]).pow(2).mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def refused(tmp_path, module, ranks=1, error=MisconfigurationException, data=None, **settings):
    """The sentence with which a fit under FSDP2 ends, on rank 0."""

    def attempt(rank):
        warnings.simplefilter("ignore")
        run = trainer(tmp_path, strategy=FSDP2(**settings), devices=ranks, max_steps=1)
        with pytest.raises(error) as caught:
            run.fit(module, data or batches(rank, ranks))
        return str(caught.value)

    return on_ranks(ranks, attempt)[0]


def test_four_processes_hold_a_quarter_each_of_a_module_that_nobody_prepared(tmp_path):
    def share(rank):
        module = Encoder()
        whole = sum(parameter.numel() for parameter in module.parameters())
        train(tmp_path, module, rank=rank, ranks=4, updates=1, strategy="llmopt_fsdp2")
        mine = sum(parameter.to_local().numel() for parameter in module.parameters())
        sharded = [name for name, part in module.named_modules() if isinstance(part, FSDPModule)]
        return mine / whole, sharded, type(module).__dict__.get("configure_model")

    for part, sharded, hook in on_ranks(4, share):
        assert part == pytest.approx(0.25, rel=0.05)
        assert sharded == ["", *(f"encoder.layers.{number}" for number in range(4))]
        assert hook is None


@pytest.mark.parametrize(("defer", "expected"), [(True, 2 * 5), (False, 2 * 5 * 4)])
def test_gradients_are_sent_once_an_update_and_not_once_a_batch(tmp_path, defer, expected):
    """Two updates of four batches; four blocks and the rest: five units."""

    def count(rank):
        with Calls() as calls:
            train(tmp_path, "Encoder", rank=rank, ranks=2, updates=2, accumulate=4, clip=False,
                  strategy=FSDP2(defer_sync=defer))  # fmt: skip
        return calls.sent

    assert on_ranks(2, count) == [[torch.float32] * expected] * 2


def test_under_bf16_parameters_buffers_and_reductions_stay_fp32(tmp_path):
    seen = {}

    class Looks(L.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            seen["gradients"] = {p.grad.dtype for p in pl_module.parameters()}
            seen["parameters"] = {p.dtype for p in pl_module.parameters()}
            seen["buffers"] = {b.dtype for b in pl_module.buffers()}

    def fit(rank):
        module = demo()
        module.blocks[0].register_forward_pre_hook(lambda part, given: seen.update(angles=given[1].dtype))
        module.blocks[0].up.register_forward_hook(lambda part, given, out: seen.update(inside=part.weight.dtype))
        with Calls() as calls:
            train(tmp_path, module, rank=rank, ranks=2, updates=1, precision="bf16-mixed", strategy="llmopt_fsdp2",
                  more=[Looks()])  # fmt: skip
        return {**seen, "reduced": {*calls.sent}}

    fp32 = {torch.float32}
    for found in on_ranks(2, fit):
        assert found == {
            "gradients": fp32, "parameters": fp32, "buffers": fp32, "angles": torch.float32, "inside": torch.bfloat16,
            "reduced": fp32,
        }  # fmt: skip


def test_tied_frozen_and_unused_parameters_train(tmp_path):
    def fit(rank):
        module = Subject("GPT")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = trainer(tmp_path, strategy=FSDP2(), devices=2, max_steps=2, use_distributed_sampler=False)
            run.fit(module, tokens(rank, 2))
        model = module.model
        return model.head.weight is model.token.weight, all(isinstance(p, DTensor) for p in module.parameters())

    assert on_ranks(2, fit) == [(True, True)] * 2


def test_blocks_that_share_a_parameter_stay_in_the_unit_of_the_whole(tmp_path):
    def fit(rank):
        module = Stack()
        module.blocks[2][0].weight = module.blocks[0][0].weight
        trainer(tmp_path, strategy=FSDP2(), devices=1, max_steps=2).fit(module, loader())
        tied = module.blocks[2][0].weight is module.blocks[0][0].weight
        return tied, [name for name, part in module.named_modules() if isinstance(part, FSDPModule)]

    assert on_ranks(1, fit) == [(True, ["", "blocks.1"])]


def test_a_module_that_shards_itself_is_left_alone(tmp_path):
    class Own(Stack):
        def configure_model(self):
            if not isinstance(self, FSDPModule):
                fully_shard(self, mesh=self.device_mesh["data_parallel"])

        def training_step(self, batch, batch_idx):
            return self(batch, batch_idx)

        def forward(self, batch, batch_idx):
            return Stack.training_step(self, batch, batch_idx)

    def fit(rank):
        module = Own()
        trainer(tmp_path, strategy=FSDP2(), devices=1, max_steps=1).fit(module, loader())
        return [name for name, part in module.named_modules() if isinstance(part, FSDPModule)]

    assert on_ranks(1, fit) == [[""]]


def test_two_fits_in_a_row_and_validation_between(tmp_path):
    class Validated(Stack):
        def validation_step(self, batch, batch_idx):
            return self.training_step(batch, batch_idx)

    def fit(rank):
        module = Validated()
        run = trainer(tmp_path, strategy=FSDP2(), devices=2, max_steps=2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run.fit(module, loader())
            run.validate(module, loader(), verbose=False)
            run.fit_loop.epoch_loop.max_steps = 4
            run.fit(module, loader())
        return run.global_step

    assert on_ranks(2, fit) == [4, 4]


@pytest.mark.filterwarnings("ignore:DTensor random operators may not have complete support on cpu")
def test_a_module_on_the_meta_device_is_filled_after_it_was_cut(tmp_path):
    def fit(rank):
        with torch.device("meta"):
            module = Stack()
        trainer(tmp_path, strategy=FSDP2(), devices=2, max_steps=1).fit(module, loader())
        return [(p.device.type, bool(p.full_tensor().isfinite().all())) for p in module.parameters()]

    assert all(found == [("cpu", True)] * 8 for found in on_ranks(2, fit))


def test_a_module_without_blocks_is_one_unit_and_says_so(tmp_path):
    def fit(rank):
        run = trainer(tmp_path, strategy=FSDP2(), devices=1, max_steps=1)
        with pytest.warns(
            UserWarning, match="The whole Regression is one unit of sharding, gathered at once. No repeat"
        ):
            run.fit(Regression(), loader())
        return run.global_step

    assert on_ranks(1, fit) == [1]


class Scaled(Stack):
    """Has a parameter of its own, and no way to fill it."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


def test_meta_without_reset_is_refused(tmp_path):
    with torch.device("meta"):
        module = Scaled()
    assert refused(tmp_path, module, data=loader()) == (
        "Parameters or buffers of Scaled are on the meta device and the class has no reset_parameters() to fill them: "
        "add that method, or build the module on the CPU."
    )


@pytest.mark.filterwarnings("ignore:DTensor random operators may not have complete support on cpu")
def test_torchs_attention_on_the_meta_device_is_filled_as_torch_does(tmp_path, monkeypatch):
    """Its class has no ``reset_parameters``, unless ``lightning.pytorch.demos.transformer`` was imported."""
    monkeypatch.delattr(nn.MultiheadAttention, "reset_parameters", raising=False)

    def fit(rank):
        with torch.device("meta"):
            module = Encoder(optimizer=lambda parameters, lr: torch.optim.SGD(parameters, lr=0.0))
        trainer(tmp_path, strategy=FSDP2(), devices=2, max_steps=1).fit(module, batches(rank, 2))
        parts = [part for part in module.modules() if isinstance(part, nn.MultiheadAttention)]
        assert not any("reset_parameters" in vars(part) for part in module.modules())
        numbers = [(part.in_proj_weight, part.in_proj_bias, part.out_proj.weight, part.out_proj.bias) for part in parts]
        return [[number.detach().full_tensor().abs().max().item() for number in several] for several in numbers]

    for found in on_ranks(2, fit)[0]:
        assert found[0] == pytest.approx((6 / (96 + 32)) ** 0.5, rel=0.01)
        assert found[2] == pytest.approx(1 / 32**0.5, rel=0.01)
        assert found[1] == found[3] == 0


def test_sizes_that_do_not_divide_the_processes_are_refused(tmp_path):
    assert (
        refused(tmp_path, Encoder(), ranks=2, tensor_parallel_size=3)
        == "tensor_parallel_size must divide the number of processes, got 3 and 2: change it, or devices."
    )
    assert (
        refused(tmp_path, Encoder(), ranks=2, shard_size=3)
        == "shard_size must divide the number of processes, got 3 and 2: change it, or devices."
    )


def test_more_processes_than_rows_are_refused(tmp_path):
    assert refused(tmp_path, Stack(width=2), ranks=4, data=loader()) == (
        "FSDP2 would cut blocks whose longest first dimension is 2 into 4 shards, and some processes would hold "
        "nothing: use at most 2 devices, or preset('hybrid', shard_size=2)."
    )


def test_fp16_is_refused(tmp_path):
    def attempt(rank):
        run = trainer(tmp_path, strategy="llmopt_fsdp2", devices=1, max_steps=1)
        run.strategy.precision_plugin.precision = "16-mixed"
        with pytest.raises(MisconfigurationException, match="'bf16-mixed' and 'bf16-true', got '16-mixed': use one of"):
            run.fit(Stack(), loader())

    on_ranks(1, attempt)


# tensor parallelism


def test_without_a_plan_tensor_parallelism_is_refused(tmp_path):
    sentence = refused(tmp_path, Encoder(), ranks=2, tensor_parallel_size=2)
    assert sentence.startswith(
        "There is no tensor-parallel plan: Encoder holds no Hugging Face model with a base_model"
    )
    assert sentence.endswith("or use preset('fsdp2').")


class Weighed(Stack):
    """With a parameter that has no dimension, as the scale of CLIP's scores has none."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))


def test_parameters_without_a_dimension_are_refused_with_both_ways_out(tmp_path):
    assert refused(tmp_path, Weighed()) == (
        "FSDP2 takes parameters of one dimension or more, and scale of Weighed have none: give them the shape (1,), or "
        "use preset('ddp')."
    )


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        (
            {"encoder.layers.*.linear1": "sequence"},
            "asks for 'sequence' at 'encoder.layers.*.linear1', and known styles",
        ),
        (
            {"encoder.layers.*.up": "colwise"},
            "'encoder.layers.*.up' of the tensor-parallel plan matches no module of En",
        ),
        (
            {"encoder.layers.*": "colwise"},
            "names 'encoder.layers.0', a TransformerEncoderLayer, and only Linear and Emb",
        ),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(tmp_path, plan, sentence):
    assert sentence in refused(tmp_path, Encoder(), ranks=2, tensor_parallel_size=2, tensor_parallel_plan=plan)


def test_layers_that_cannot_be_cut_evenly_are_refused(tmp_path):
    class Odd(Encoder):
        def __init__(self):
            super().__init__()
            for layer in self.encoder.layers:
                layer.linear1, layer.linear2 = nn.Linear(32, 63), nn.Linear(63, 32)

    sentence = refused(tmp_path, Odd(), ranks=2, tensor_parallel_size=2, tensor_parallel_plan=PLANS["Encoder"])
    assert "tensor_parallel_size must divide what it cuts, got 2 and the 63 of 'encoder.layers.0.linear1'" in sentence


def test_heads_of_a_hugging_face_model_are_dealt_out_evenly(tmp_path):
    pytest.importorskip("transformers")
    sentence = refused(tmp_path, Llama(), ranks=4, tensor_parallel_size=4)
    assert sentence == (
        "tensor_parallel_size must divide num_key_value_heads, got 4 and 2: use a divisor, or preset('fsdp2')."
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shard_size": "rack"}, "shard_size must be an integer >= 1, \"node\" or None, got 'rack'"),
        ({"shard_size": True}, 'shard_size must be an integer >= 1, "node" or None, got True'),
        ({"tensor_parallel_size": 0}, 'tensor_parallel_size must be an integer >= 1 or "all", got 0'),
        (
            {"shard_size": 2, "tensor_parallel_size": 2},
            "are a third dimension, which this strategy has not: drop shard",
        ),
        ({"checkpoint": "half"}, "checkpoint must be 'sharded' or 'full', got 'half'"),
    ],
)
def test_refuses_bad_values_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        FSDP2(**settings)


def test_a_checkpoint_of_other_groups_is_refused(tmp_path):
    path = tmp_path / "one.ckpt"
    train(tmp_path, "Encoder", updates=1, save=path)

    def attempt(rank):
        run = trainer(tmp_path, strategy=FSDP2(), devices=1, max_steps=2)
        with pytest.raises(
            MisconfigurationException, match=r"optimizer has groups of \[18, 33\] parameters, this one of"
        ):
            run.fit(Encoder(), batches(), ckpt_path=path, weights_only=False)

    on_ranks(1, attempt)


def test_manual_optimization_through_the_modules_own_call(tmp_path):
    class Manual(Stack):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def forward(self, batch):
            return Stack.training_step(self, batch, 0)

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            for _ in range(2):
                optimizer.zero_grad()
                loss = self(batch)
                self.manual_backward(loss)
                optimizer.step()

    def fit(rank):
        run = trainer(tmp_path, strategy=FSDP2(), devices=2, max_steps=4)
        run.fit(Manual(), loader())
        return run.global_step

    assert on_ranks(2, fit) == [4, 4]


class Mixture(nn.Module):
    """Each sample goes to one of two experts, and an expert without samples is left out."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(2))

    def forward(self, x, choice):
        parts = torch.zeros_like(x)
        for number in choice.unique().tolist():
            parts = parts + torch.where((choice == number)[:, None], self.experts[number](x), 0.0)
        return x + torch.tanh(parts)


class Experts(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(Mixture() for _ in range(3))

    def training_step(self, batch, batch_idx):
        x, choice = batch
        for block in self.blocks:
            x = block(x, choice)
        return x.pow(2).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


def test_experts_that_only_some_processes_use_get_their_own_gradients(tmp_path):
    data = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    settings = {"max_steps": 2, "use_distributed_sampler": False}

    def fit(rank):
        module, batch = Experts(), [(data[rank : rank + 1], torch.tensor([rank]))] * 2
        strategy = FSDP2(blocks=["blocks.*"], find_unused_parameters=True)
        trainer(tmp_path, devices=2, strategy=strategy, **settings).fit(module, DataLoader(batch, batch_size=None))
        return torch.cat([parameter.full_tensor().flatten() for parameter in module.parameters()]).tolist()

    alone, batch = Experts(), [(data, torch.tensor([0, 1]))] * 2
    trainer(tmp_path, **settings).fit(alone, DataLoader(batch, batch_size=None))
    for found in on_ranks(2, fit):
        assert found == pytest.approx(weights(alone).tolist(), rel=1e-5)


def test_buffers_of_any_kind_and_transposed_weights_are_those_of_rank_0(tmp_path):
    def fit(rank):
        torch.manual_seed(rank)
        module = Stack()
        module.register_buffer("angles", torch.randn(3, 2, dtype=torch.complex64))
        module.register_buffer("mask", torch.rand(5) > 0.5)
        module.register_buffer("places", torch.randn(4, 1).expand(4, 3))
        module.head.weight = nn.Parameter(torch.randn(8, 1).t())
        module.blocks[0][0].weight = nn.Parameter(torch.randn(8, 8).t())
        first = [tensor.tolist() for tensor in (module.angles, module.mask, module.places)]
        trainer(tmp_path, devices=2, strategy=FSDP2(), max_steps=1).fit(module, loader())
        return first, [tensor.tolist() for tensor in (module.angles, module.mask, module.places)]

    (first, _), (_, second) = on_ranks(2, fit)
    assert first == second


class Dropping(Encoder):
    """What each process sees of the stream between layers that are split."""

    def __init__(self):
        super().__init__()
        for layer in self.encoder.layers:
            layer.dropout1.p = layer.dropout2.p = 0.5


def test_dropout_is_the_same_on_processes_that_split_a_layer(tmp_path):
    def fit(rank):
        strategy = FSDP2(tensor_parallel_size=2, tensor_parallel_plan=PLANS["Encoder"])
        return train(tmp_path, Dropping(), rank=0, ranks=1, seed=1 + rank, updates=3, clip=False,
                     devices=2, strategy=strategy)[0]  # fmt: skip

    first, second = on_ranks(2, fit)
    assert first == pytest.approx(second, rel=1e-6)


def test_blocks_that_are_named_are_those_that_compute_again_too(tmp_path):
    def fit(rank):
        module, named = Encoder(), ["encoder.layers.*.linear1"]
        train(tmp_path, module, updates=1, strategy=FSDP2(blocks=named, checkpointing="every_block"))
        return [name for name, part in module.named_modules() if "forward" in vars(part)]

    assert on_ranks(1, fit) == [[f"encoder.layers.{number}.linear1" for number in range(4)]]
