"""The strategies of the matrix: how many ranks, which strategy, and how the model is sharded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from .._lightning import DDPStrategy, ModelParallelStrategy
from ._doubles import CPUFSDP, CPUDeepSpeed
from ._models import LAYERS, layers_of, split_linear_layers


def leave(model: nn.Module, mesh: DeviceMesh | None) -> None:
    """Do not shard anything."""


@dataclass(frozen=True)
class Place:
    """A strategy on some ranks.

    Args:
        ranks: Number of processes.
        strategy: Makes the strategy.
        shard: Called in ``configure_model`` with the model and the strategy's mesh.
        same_data: Ranks that share a batch.
        divides_twice: Whether the loss is divided by ``accumulate_grad_batches`` twice, as under DeepSpeed.
    """

    ranks: int
    strategy: Callable[[], Any]
    shard: Callable[[nn.Module, Any], None] = leave
    same_data: int = 1
    divides_twice: bool = False


def fsdp2(model: nn.Module, mesh: DeviceMesh) -> None:
    """``fully_shard`` over the data-parallel dimension."""
    for module in [*layers_of(model), model]:
        fully_shard(module, mesh=mesh["data_parallel"])


def hybrid(model: nn.Module, mesh: DeviceMesh) -> None:
    """``fully_shard`` within pairs of ranks, whole copies between pairs."""
    pairs = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    for module in [*layers_of(model), model]:
        fully_shard(module, mesh=pairs)


def tensor_parallel(model: nn.Module, mesh: DeviceMesh) -> None:
    """Linear layers split over ranks, everything else a plain tensor on each."""
    split_linear_layers(model, mesh["tensor_parallel"])


def fsdp2_and_tensor_parallel(model: nn.Module, mesh: DeviceMesh) -> None:
    """Both, each over its own dimension of a 2x2 mesh."""
    tensor_parallel(model, mesh)
    fsdp2(model, mesh)


def ddp() -> DDPStrategy:
    """Whole copies; one of the models has an unused layer."""
    return DDPStrategy(find_unused_parameters=True)


def model_parallel(data: int, tensor: int) -> Callable[[], ModelParallelStrategy]:
    """ModelParallelStrategy on a mesh of this size."""
    return lambda: ModelParallelStrategy(data_parallel_size=data, tensor_parallel_size=tensor)


def fsdp1(**settings: Any) -> Callable[[], CPUFSDP]:
    """FSDPStrategy with a unit for each layer."""
    return lambda: CPUFSDP(auto_wrap_policy=ModuleWrapPolicy(LAYERS), **settings)


def zero(stage: int) -> Callable[[], CPUDeepSpeed]:
    """DeepSpeedStrategy with buckets so small that there are several."""
    return lambda: CPUDeepSpeed(
        stage=stage,
        process_group_backend="gloo",
        zero_allow_untested_optimizer=True,
        overlap_comm=False,
        logging_batch_size_per_gpu=1,
        allgather_bucket_size=1000,
        reduce_bucket_size=1000,
    )


PLACES = {
    "DDP 2": Place(2, ddp),
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
