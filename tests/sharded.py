"""Two small models under every strategy: fits on several ranks, and what to compare them with."""

import warnings
from contextlib import ExitStack

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.utils.data import DataLoader

from lightning_llmopt.callbacks import GradientNormClip, GradientNormMonitor
from lightning_llmopt.callbacks._readings import reading_for, run_last
from lightning_llmopt.callbacks._shards import parameters_of_update, update_is_due

from doubles import CPUFSDP, CPUDeepSpeed
from fitting import MemoryLogger, trainer

UPDATES, BATCH, LENGTH, VOCABULARY, WIDTH = 3, 8, 8, 23, 20


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, 2, WIDTH // 2)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """Output tied to the embedding, positions frozen, one layer that no token passes through."""

    def __init__(self):
        super().__init__()
        self.token, self.position = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.unused = nn.Linear(WIDTH, 3)
        self.head.weight = self.token.weight
        self.position.weight.requires_grad_(False)

    def forward(self, tokens):
        x = self.token(tokens) + self.position.weight
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    def tensor_parallel(self, mesh):
        for block in self.blocks:
            parallelize_module(block, mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})


class Encoder(nn.Module):
    """``torch.nn.TransformerEncoder``, which nobody here wrote."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 3 * WIDTH, dropout=0.0, batch_first=True)
        self.token, self.head = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, tokens):
        return self.head(self.encoder(self.token(tokens)))

    def tensor_parallel(self, mesh):
        for layer in self.encoder.layers:
            parallelize_module(layer, mesh, {"linear1": ColwiseParallel(), "linear2": RowwiseParallel()})


MODELS = {"GPT": GPT, "TransformerEncoder": Encoder}
LAYERS = (Block, nn.TransformerEncoderLayer)


class Subject(L.LightningModule):
    """A model that predicts tokens; ``shard`` is applied to it where Lightning wants models to be sharded.

    Under DeepSpeed Lightning 2.6.6 divides the loss by ``accumulate_grad_batches`` and DeepSpeed does so once more;
    ``weight`` makes up for it.
    """

    def __init__(self, model, shard=lambda model, mesh: None, weight=1.0):
        super().__init__()
        torch.manual_seed(1)
        self.model, self._shard, self._sharded, self.weight = MODELS[model](), shard, False, weight

    def configure_model(self):
        if not self._sharded:
            self._shard(self.model, self.device_mesh)
            self._sharded = True

    def training_step(self, batch, batch_idx):
        logits = self.model(batch[:, :-1])
        return self.weight * nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())

    def configure_optimizers(self):
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.SGD(trained, lr=0.3, momentum=0.9)


class Probe(L.Callback):
    """Notes the norm of each parameter's gradient at every update, and all weights at the end."""

    def __init__(self):
        self.norms, self.weights = [], {}

    def setup(self, trainer, pl_module, stage):
        run_last(trainer, self)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if update_is_due(trainer):
            names = {id(parameter): plain(name) for name, parameter in pl_module.named_parameters()}
            reading = reading_for(trainer, optimizer, self)
            found = [names[id(parameter)] for parameter in dict.fromkeys(parameters_of_update(trainer, optimizer))]
            self.norms.append(dict(zip(found, reading.norms.tolist(), strict=True)))

    def on_train_end(self, trainer, pl_module):
        with ExitStack() as stack:
            gather(trainer, pl_module, stack)
            self.weights = {
                plain(name): (p.full_tensor() if isinstance(p, DTensor) else p).detach().double().numpy().copy()
                for name, p in pl_module.named_parameters()
            }


def plain(name):
    return name.replace("_fsdp_wrapped_module.", "").replace("_forward_module.", "").replace("model.", "")


def gather(trainer, pl_module, stack):
    """Enter whatever makes the strategy show whole parameters."""
    if isinstance(trainer.strategy, CPUFSDP):
        stack.enter_context(FullyShardedDataParallel.summon_full_params(trainer.strategy.model))
    if isinstance(trainer.strategy, CPUDeepSpeed) and trainer.strategy.zero_stage_3:
        import deepspeed

        stack.enter_context(deepspeed.zero.GatheredParameters(list(pl_module.parameters())))


def fsdp2(model, mesh):
    for module in [*(module for module in model.modules() if isinstance(module, LAYERS)), model]:
        fully_shard(module, mesh=mesh["data_parallel"])


def hybrid(model, mesh):
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    for module in [*(module for module in model.modules() if isinstance(module, LAYERS)), model]:
        fully_shard(module, mesh=mesh)


def tensor_parallel(model, mesh):
    model.tensor_parallel(mesh["tensor_parallel"])


def fsdp2_and_tensor_parallel(model, mesh):
    tensor_parallel(model, mesh)
    fsdp2(model, mesh)


def model_parallel(data, tensor):
    return lambda: ModelParallelStrategy(data_parallel_size=data, tensor_parallel_size=tensor)


def fsdp1(**settings):
    return lambda: CPUFSDP(auto_wrap_policy=ModuleWrapPolicy(LAYERS), **settings)


def zero(stage):
    return lambda: CPUDeepSpeed(
        stage=stage, process_group_backend="gloo", zero_allow_untested_optimizer=True, overlap_comm=False,
        logging_batch_size_per_gpu=1, allgather_bucket_size=1000, reduce_bucket_size=1000,
    )  # fmt: skip


class Place:
    """A strategy on some ranks.

    Args:
        ranks: Number of processes.
        strategy: Makes it.
        shard: What ``configure_model`` does.
        same_data: Ranks that share a batch.
        divides_twice: Whether the loss is divided by ``accumulate_grad_batches`` twice.
    """

    def __init__(self, ranks, strategy, shard=lambda model, mesh: None, same_data=1, divides_twice=False):
        self.ranks, self.strategy, self.shard, self.same_data = ranks, strategy, shard, same_data
        self.divides_twice = divides_twice


PLACES = {
    "DDP 2": Place(2, lambda: DDPStrategy(find_unused_parameters=True)),
    "FSDP1 2": Place(2, fsdp1()),
    "FSDP1 2, SHARD_GRAD_OP": Place(2, fsdp1(sharding_strategy="SHARD_GRAD_OP")),
    "FSDP1 2, NO_SHARD": Place(2, fsdp1(sharding_strategy="NO_SHARD")),
    "FSDP2 2": Place(2, model_parallel(2, 1), fsdp2),
    "FSDP2 4": Place(4, model_parallel(4, 1), fsdp2),
    "hybrid 2x2": Place(4, model_parallel(4, 1), hybrid),
    "TP 2": Place(2, model_parallel(1, 2), tensor_parallel, same_data=2),
    "FSDP2+TP 2x2": Place(4, model_parallel(2, 2), fsdp2_and_tensor_parallel, same_data=2),
    "ZeRO-1 2": Place(2, zero(1), divides_twice=True),
    "ZeRO-2 2": Place(2, zero(2), divides_twice=True),
    "ZeRO-3 2": Place(2, zero(3), divides_twice=True),
}


def batches(rank=0, ranks=1):
    """What rank ``rank`` sees: its part of each of nine batches."""
    generator = torch.Generator().manual_seed(0)
    whole = [torch.randint(VOCABULARY, (BATCH, LENGTH + 1), generator=generator) for _ in range(9)]
    return DataLoader([batch[rank::ranks] for batch in whole], batch_size=None)


def fit(folder, model, *, accumulate=1, max_norm=0.2, place=None, rank=0, even=True):
    """Three clipped updates: per-tensor norms, logged points and weights, as plain data."""
    logger, probe = MemoryLogger(), Probe()
    callbacks = [probe, GradientNormMonitor(1), *([GradientNormClip(max_norm)] if max_norm else [])]
    settings = {"logger": logger, "max_steps": UPDATES, "accumulate_grad_batches": accumulate, "max_epochs": 3}
    data, shard, weight = batches(), lambda model, mesh: None, 1.0
    if place is not None:
        weight = accumulate if place.divides_twice and even else 1.0
        settings |= {"strategy": place.strategy(), "devices": place.ranks, "use_distributed_sampler": False}
        data, shard = batches(rank // place.same_data, place.ranks // place.same_data), place.shard
    run = trainer(folder, *callbacks, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.fit(Subject(model, shard, weight), data)
    return {"norms": probe.norms, "points": logger.points, "weights": probe.weights, "updates": run.global_step}
