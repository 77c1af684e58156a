"""FSDP1 for modules that know nothing of it, with the precision that the source texts ask for."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal
from weakref import WeakSet

import torch
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecision
from torch.distributed.fsdp.wrap import lambda_auto_wrap_policy
from typing_extensions import override

from .._lightning import FSDPPrecision, FSDPStrategy, MisconfigurationException, Precision, Trainer
from ._full_checkpoints import load_full_checkpoint
from ._leftovers import forget_flat_gradients_
from ._recompute import recompute_blocks
from ._units import (
    attention_resets,
    refuse_scalars,
    refuse_unusable_meta,
    registered_once,
    same_on_every_rank_,
    sharding_units,
)
from ._values import refuse_no_blocks, refuse_no_flags, refuse_no_group
from .checkpointing import check_mode

_WRAPPED: WeakSet[nn.Module] = WeakSet()  # by any strategy of this class, which alone knows the unit of the whole

DTYPES = {"bf16-mixed": torch.bfloat16, "bf16-true": torch.bfloat16, "16-mixed": torch.float16}


class FSDP1(FSDPStrategy):
    """``FullyShardedDataParallel`` with a unit for each block of any LightningModule, found by structure.

    For new runs prefer ``FSDP2``: this one is here for checkpoints and machines that have FSDP1. Under
    ``"bf16-mixed"`` blocks compute in bfloat16; parameters, reductions, buffers and optimizer state are fp32, where
    Lightning's own strategy reduces and keeps buffers in bfloat16.

    Args:
        blocks: Globs of module names, if the blocks are not to be found.
        sharding: ``"FULL_SHARD"``, ``"SHARD_GRAD_OP"`` (whole parameters between forward and backward) or
            ``"NO_SHARD"``.
        defer_sync: Reduce gradients once an accumulation window, on its last batch. Each process then keeps whole
            gradients until that batch, in the dtype of the computation. None: yes in fp32, and no below, where
            sums over batches would be rounded to it.
        cpu_offload: Keep parameters, gradients and optimizer state in the memory of the host.
        checkpoint: ``"sharded"``: a folder. ``"full"``: one file, gathered on rank 0.
        checkpointing: Activation checkpointing of the blocks.
        process_group_backend: As in Lightning.
        timeout: As in Lightning.

    Raises:
        ValueError: If a value is of another kind, ``sharding`` or ``checkpoint`` is unknown, or gradients are to be
            kept and offloaded.
        MisconfigurationException: At the start, on the CPU, for manual optimization, and for a module that another
            Trainer has wrapped.

    Example:
        >>> FSDP1(sharding="HALF")
        Traceback (most recent call last):
        ValueError: sharding must be one of ['FULL_SHARD', 'SHARD_GRAD_OP', 'NO_SHARD'], got 'HALF'.
    """

    SHARDINGS = ("FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD")

    def __init__(
        self,
        *,
        blocks: list[str] | None = None,
        sharding: Literal["FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD"] = "FULL_SHARD",
        defer_sync: bool | None = None,
        cpu_offload: bool = False,
        checkpoint: Literal["sharded", "full"] = "sharded",
        checkpointing: str | int = "none",
        process_group_backend: str | None = None,
        timeout: timedelta | None = timedelta(seconds=1800),
    ) -> None:
        check_mode(checkpointing)
        refuse_no_group(process_group_backend, timeout)
        refuse_no_blocks(blocks)
        refuse_no_flags(cpu_offload=cpu_offload)
        if not isinstance(defer_sync, bool | None):
            raise ValueError(f"defer_sync must be True, False or None, got {defer_sync!r}.")
        if sharding not in self.SHARDINGS:
            raise ValueError(f"sharding must be one of {list(self.SHARDINGS)}, got {sharding!r}.")
        if checkpoint not in ("sharded", "full"):
            raise ValueError(f"checkpoint must be 'sharded' or 'full', got {checkpoint!r}.")
        if cpu_offload and defer_sync:
            raise ValueError(
                "defer_sync=True and cpu_offload=True cannot work together in FSDP1: its no_sync() keeps gradients on "
                "the device. Drop one of the two, or use FSDP2."
            )
        super().__init__(
            sharding_strategy=sharding,
            state_dict_type=checkpoint,
            cpu_offload=cpu_offload,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )
        self.blocks, self.defer_sync, self.checkpointing = blocks, defer_sync, checkpointing
        self._offloads = cpu_offload
        self._whole: FullyShardedDataParallel | None = None

    @property
    def precision_plugin(self) -> FSDPPrecision:
        """Lightning's, with autocast on the device in use."""
        plugin: Any = super().precision_plugin
        return plugin

    @precision_plugin.setter
    def precision_plugin(self, plugin: Precision | None) -> None:
        if type(plugin) is FSDPPrecision:
            plugin = _DevicePrecision(plugin.precision, self)
        FSDPStrategy.precision_plugin.__set__(self, plugin)  # type: ignore[attr-defined]

    @property
    def mixed_precision_config(self) -> MixedPrecision | None:
        """Computation in the Trainer's precision; reductions and buffers in fp32. Inputs keep their dtype."""
        low = DTYPES.get(self.precision_plugin.precision)
        if low is None:
            return None
        return MixedPrecision(
            param_dtype=low,
            reduce_dtype=torch.float32,
            buffer_dtype=torch.float32,
            cast_forward_inputs=False,
            cast_root_forward_inputs=False,
        )

    @override
    def setup(self, trainer: Trainer) -> None:
        module: Any = self.lightning_module
        if not module.automatic_optimization:
            raise MisconfigurationException(
                "FSDP1 cannot run manual optimization: the backward pass would lie inside the forward pass of the "
                "wrapped module. Use preset('fsdp2'), or automatic optimization."
            )
        recompute_blocks(module, self.checkpointing, self.blocks)
        super().setup(trainer)

    @override
    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """A folder as Lightning does; one file with the optimizer's own order of parameters."""
        path, module = Path(self.broadcast(checkpoint_path)), self.model
        if path.is_file() and isinstance(module, FullyShardedDataParallel):
            strict = bool(module.module.strict_loading)
            return load_full_checkpoint(path, module, self.optimizers, strict=strict, weights_only=weights_only)
        return super().load_checkpoint(path, weights_only)

    @override
    def _setup_model(self, model: nn.Module) -> nn.Module:
        inherited: Any = super()._setup_model
        if self.root_device.type == "cpu" and inherited.__func__ is FSDPStrategy._setup_model:
            raise MisconfigurationException(
                "FSDP1 needs GPUs, and this run is on the CPU: use accelerator='cuda', or preset('fsdp2'), which runs "
                "on both."
            )
        if self._whole is not None and self._whole.module is model:
            again: nn.Module = inherited(self._whole)
            return again
        if model in _WRAPPED:
            raise MisconfigurationException(
                f"{type(model).__name__} was wrapped by FSDP1 in another Trainer, and what holds its units together is "
                "there: use the same Trainer again, or a new module and ckpt_path=... of a checkpoint."
            )
        if any(isinstance(part, FullyShardedDataParallel) for part in model.modules()):
            by_hand: nn.Module = inherited(model)
            return by_hand
        return self._wrap(model, inherited)

    def _wrap(self, model: nn.Module, inherited: Callable[[nn.Module], nn.Module]) -> nn.Module:
        refuse_scalars(model, type(self).__name__)
        units = {id(unit) for unit in registered_once(model, sharding_units(model, self.blocks))}
        of_rank_0 = self.root_device.type != "cpu"  # where FSDP can send them by itself
        if not of_rank_0:
            same_on_every_rank_(model, self.root_device, done=set())
        policy = functools.partial(lambda_auto_wrap_policy, lambda_fn=lambda part: id(part) in units)
        before = dict(self.kwargs)
        self.kwargs |= {"auto_wrap_policy": policy, "sync_module_states": of_rank_0}
        try:
            with attention_resets(model):
                refuse_unusable_meta(model)
                wrapped = inherited(model)
        finally:
            self.kwargs = before
        if isinstance(wrapped, FullyShardedDataParallel):
            self._whole = wrapped
            _WRAPPED.add(model)
        return wrapped

    @override
    def teardown(self) -> None:
        """As Lightning does, but leave shards where FSDP has them: a module that is taken to the host is torn apart."""
        module, self._lightning_module = self._lightning_module, None
        super().teardown()
        self._lightning_module = module
        if self._whole is not None:
            forget_flat_gradients_(self._whole)

    @contextmanager
    @override
    def block_backward_sync(self) -> Iterator[None]:
        """Keep gradients to this rank for a batch in the midst of an accumulation window."""
        defer = self.defer_sync
        if defer is None:
            defer = self.mixed_precision_config is None and not self._offloads
        if not (defer and isinstance(self.model, FullyShardedDataParallel)):
            yield
            return
        with self.model.no_sync():
            yield


class _DevicePrecision(FSDPPrecision):
    """Lightning's plugin, which takes every device for CUDA."""

    def __init__(self, precision: Any, strategy: FSDP1) -> None:
        super().__init__(precision)
        self._strategy = strategy

    @override
    def forward_context(self) -> Any:
        low = DTYPES.get(self.precision)
        if "mixed" not in self.precision or low is None:
            return super().forward_context()
        return torch.autocast(self._strategy.root_device.type, dtype=low)
