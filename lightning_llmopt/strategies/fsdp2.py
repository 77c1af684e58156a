"""FSDP2, hybrid sharding and tensor parallelism for modules that know nothing of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor
from typing_extensions import override

from .._lightning import (
    MisconfigurationException,
    ModelParallelStrategy,
    Trainer,
    as_if_overridden,
    is_overridden,
)
from ..planning.cuts import refuse_no_plan
from ._full_checkpoints import load_full_checkpoint
from ._leftovers import forget_whole_gradients_
from ._recompute import recompute_blocks
from ._tensor_parallel import parallelize, plan_for, same_randomness
from ._units import (
    attention_resets,
    refuse_idle_ranks,
    refuse_scalars,
    refuse_unusable_meta,
    same_on_every_rank_,
    sharding_units,
)
from ._values import refuse_no_blocks, refuse_no_flags, refuse_no_group
from .checkpointing import check_mode

STEPS = ("training_step", "validation_step", "test_step", "predict_step")


class FSDP2(ModelParallelStrategy):
    """Shard every block of any LightningModule, without a ``configure_model`` and without a change to it.

    Blocks are found by structure (``structure.find_blocks``). Each is a unit of its own: gathered before it computes,
    freed after it, its gradients reduced together. What is left, tied embeddings included, is the unit of the whole
    module. Numbers are those of rank 0. A module that shards itself in ``configure_model`` is left as it is.

    Under ``precision="bf16-mixed"`` blocks compute with bfloat16 copies; parameters, buffers, the sums of gradients
    over micro-batches and over ranks, and the optimizer's state are fp32. Under ``"bf16-true"`` parameters are
    bfloat16, and reductions fp32.

    Args:
        blocks: Globs of module names, if the blocks are not to be found.
        shard_size: Processes that share one copy, the copies being whole on each such group (hybrid sharding): a
            number, or ``"node"`` for those of one machine. None: all processes share one.
        tensor_parallel_size: Processes over which each layer of the plan is split; ``"all"`` for all there are.
        tensor_parallel_plan: Globs of module names to ``"colwise"``, ``"rowwise"``, ``"colwise_gather_output"`` or
            ``"embedding_rowwise"``. None: the plan that a Hugging Face model brings along.
        reshard_after_forward: Free a block's parameters after its forward pass, and gather them again for the
            backward pass. False saves a third of the communication, for the memory of a whole copy.
        defer_sync: Reduce gradients once an accumulation window, on its last batch. Each process then keeps whole
            fp32 gradients until that batch; False reduces at every batch and keeps shards.
        find_unused_parameters: Reduce zeros for parameters that a batch did not use. Needed if processes differ in
            which they use, as with experts that are left out: sums would be of different parameters.
        cpu_offload: Keep parameters, gradients and optimizer state in the memory of the host.
        checkpoint: ``"sharded"``: a folder, to be opened by any number of processes. ``"full"``: one file, the same
            as DDP or one process write and open.
        checkpointing: Activation checkpointing of the blocks.
        process_group_backend: As in Lightning.
        timeout: As in Lightning.

    Raises:
        ValueError: If a value is of another kind, a number is no size, sizes clash, or ``checkpoint`` is unknown.
        MisconfigurationException: At the start, if sizes do not divide the number of processes, if there is no plan
            for tensor parallelism, or it does not fit the module.

    Example:
        >>> FSDP2(shard_size=0)
        Traceback (most recent call last):
        ValueError: shard_size must be an integer >= 1, "node" or None, got 0.
    """

    def __init__(
        self,
        *,
        blocks: list[str] | None = None,
        shard_size: int | Literal["node"] | None = None,
        tensor_parallel_size: int | Literal["all"] = 1,
        tensor_parallel_plan: dict[str, str] | None = None,
        reshard_after_forward: bool = True,
        defer_sync: bool = True,
        find_unused_parameters: bool = False,
        cpu_offload: bool = False,
        checkpoint: Literal["sharded", "full"] = "sharded",
        checkpointing: str | int = "none",
        process_group_backend: str | None = None,
        timeout: timedelta | None = timedelta(seconds=1800),
    ) -> None:
        check_mode(checkpointing)
        refuse_no_group(process_group_backend, timeout)
        refuse_no_blocks(blocks)
        refuse_no_plan(tensor_parallel_plan)
        refuse_no_flags(
            reshard_after_forward=reshard_after_forward,
            defer_sync=defer_sync,
            find_unused_parameters=find_unused_parameters,
            cpu_offload=cpu_offload,
        )
        if shard_size not in (None, "node") and not _is_size(shard_size):
            raise ValueError(f'shard_size must be an integer >= 1, "node" or None, got {shard_size!r}.')
        if tensor_parallel_size != "all" and not _is_size(tensor_parallel_size):
            raise ValueError(f'tensor_parallel_size must be an integer >= 1 or "all", got {tensor_parallel_size!r}.')
        if shard_size is not None and tensor_parallel_size != 1:
            raise ValueError(
                f"shard_size={shard_size!r} and tensor_parallel_size={tensor_parallel_size!r} together are a third "
                "dimension, which this strategy has not: drop shard_size, or tensor_parallel_size."
            )
        if checkpoint not in ("sharded", "full"):
            raise ValueError(f"checkpoint must be 'sharded' or 'full', got {checkpoint!r}.")
        super().__init__(
            tensor_parallel_size=1,  # the real one is known when processes are counted
            save_distributed_checkpoint=checkpoint == "sharded",
            process_group_backend=process_group_backend,
            timeout=timeout,
        )
        self.tensor_parallel_size = tensor_parallel_size
        self.blocks, self.shard_size, self.plan = blocks, shard_size, tensor_parallel_plan
        self.reshard_after_forward, self.defer_sync = reshard_after_forward, defer_sync
        self.cpu_offload, self.checkpointing = cpu_offload, checkpointing
        self.find_unused_parameters = find_unused_parameters

    @override
    def setup_environment(self) -> None:
        """Data-parallel processes are all that tensor parallelism leaves."""
        world = self.num_nodes * self.num_processes
        tensor = world if self.tensor_parallel_size == "all" else self.tensor_parallel_size
        if world % tensor:
            raise MisconfigurationException(
                f"tensor_parallel_size must divide the number of processes, got {tensor} and {world}: change it, or "
                "devices."
            )
        self._tensor_parallel_size, self._data_parallel_size = tensor, world // tensor
        if self.cpu_offload and self.root_device.type == "cuda" and self._process_group_backend is None:
            self._process_group_backend = "cpu:gloo,cuda:nccl"  # norms of offloaded gradients are summed on the host
        super().setup_environment()

    @override
    def setup(self, trainer: Trainer) -> None:
        """Shard, then go on as Lightning does after ``configure_model``."""
        module: Any = self.lightning_module
        with attention_resets(module), as_if_overridden(module, "configure_model"):
            if not any(isinstance(parameter, DTensor) for parameter in module.parameters()):
                recompute_blocks(module, self.checkpointing, self.blocks)
                refuse_unusable_meta(module)
                refuse_scalars(module, type(self).__name__)
                self._shard(module)
            super().setup(trainer)

    @override
    def teardown(self) -> None:
        """As Lightning does; and the next fit begins without what this one has not reduced."""
        super().teardown()
        module: Any = self.lightning_module
        if module is not None:
            forget_whole_gradients_(module)

    @override
    def model_to_device(self) -> None:
        """Nothing is to be moved where parameters stay on the host: ``fully_shard`` has moved the buffers."""
        if not self.cpu_offload:
            super().model_to_device()

    @contextmanager
    @override
    def block_backward_sync(self) -> Iterator[None]:
        """Keep gradients to this rank for a batch in the midst of an accumulation window."""
        root: Any = self.lightning_module
        if not (self.defer_sync and isinstance(root, FSDPModule)):
            yield
            return
        root.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            root.set_requires_gradient_sync(True)

    @override
    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """A folder as Lightning does; one file with the optimizer's own order of parameters."""
        path = Path(self.broadcast(checkpoint_path))
        if path.is_file():
            module: Any = self.lightning_module
            strict = module.strict_loading
            return load_full_checkpoint(path, module, self.optimizers, strict=strict, weights_only=weights_only)
        return super().load_checkpoint(path, weights_only)

    def _shard(self, module: Any) -> None:
        units, done = sharding_units(module, self.blocks), set[int]()
        if int(self._tensor_parallel_size) > 1:
            mesh = self.device_mesh["tensor_parallel"]
            for part, style in plan_for(module, self.plan, mesh.size()):
                same_on_every_rank_(part, self.root_device, done=done)
                parallelize(part, mesh, style)
            same_randomness(mesh, self.root_device)
        mesh = self._data_mesh()  # of one process too: so all parameters are DTensors, as fused optimizers want
        refuse_idle_ranks(units, mesh.size(-1), type(self).__name__)
        settings: Any = {"mesh": mesh, "mp_policy": self._mixed_precision(), "offload_policy": self._offload()}
        for unit in units:
            same_on_every_rank_(unit, self.root_device, done=done)
            fully_shard(unit, reshard_after_forward=self.reshard_after_forward, **settings)
        same_on_every_rank_(module, self.root_device, done=done)
        fully_shard(module, **settings)
        if self.find_unused_parameters:
            module.set_reduce_scatter_unused_params(True)
        _gather_in_steps(module)

    def _data_mesh(self) -> DeviceMesh:
        """One dimension; for hybrid sharding two, of copies and of shards."""
        world = self.device_mesh["data_parallel"].size()
        if self.shard_size is None:
            return self.device_mesh["data_parallel"]
        shards = self.num_processes if self.shard_size == "node" else int(self.shard_size)
        if world % shards:
            raise MisconfigurationException(
                f"shard_size must divide the number of processes, got {shards} and {world}: change it, or devices."
            )
        return init_device_mesh(self.root_device.type, (world // shards, shards), mesh_dim_names=("replicate", "shard"))

    def _mixed_precision(self) -> MixedPrecisionPolicy:
        precision = self.precision_plugin.precision
        if precision == "32-true":
            return MixedPrecisionPolicy(cast_forward_inputs=False)
        if precision in ("bf16-mixed", "bf16-true"):  # inputs keep their dtype: targets and rotary angles are not cut
            return MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        raise MisconfigurationException(
            f"{type(self).__name__} knows precision '32-true', 'bf16-mixed' and 'bf16-true', got {precision!r}: use "
            "one of those, or strategy='llmopt_fsdp' for '16-mixed'."
        )

    def _offload(self) -> OffloadPolicy:
        if not self.cpu_offload:
            return OffloadPolicy()
        return CPUOffloadPolicy(pin_memory=self.root_device.type != "cpu")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _gather_in_steps(module: Any) -> None:
    """Let the module's steps gather what they use: most call parts of the module and not the module itself."""
    for step in STEPS:
        backward_inside = step == "training_step" and not module.automatic_optimization
        if is_overridden(step, module) and not backward_inside:
            register_fsdp_forward_method(module, step)
