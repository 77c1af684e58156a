"""DDP with buckets, a static graph and compression as named options."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal

from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook, fp16_compress_hook
from torch.nn.parallel import DistributedDataParallel
from typing_extensions import override

from .._lightning import DDPStrategy, MisconfigurationException, Trainer
from ._recompute import recompute_blocks
from ._values import is_positive, is_word, refuse_no_flags, refuse_no_group
from .checkpointing import check_mode

STARTS = ("popen", "spawn", "fork", "forkserver")
HOOKS: dict[str, Callable[..., Any]] = {"bf16": bf16_compress_hook, "fp16": fp16_compress_hook}


class DDP(DDPStrategy):
    """A whole model on every process, gradients averaged in buckets while the backward pass still runs.

    Lightning reduces once an accumulation window by itself.

    Args:
        bucket_mb: Size of a bucket of gradients [MB], > 0. Larger ones wait longer and are sent faster.
        static_graph: Say that every batch uses the same parameters, which lets DDP skip its search for unused ones
            and allows activation checkpointing of any kind. Wrong where a branch depends on the batch.
        find_unused_parameters: Look for parameters that a batch did not use. Costs a walk through the graph a batch;
            needed if there are any, unless ``static_graph`` holds.
        compression: Send gradients as ``"bf16"`` or ``"fp16"``: half the traffic, rounded sums.
        gradients_in_buckets: Let gradients be views of the buckets, which saves one copy of them all.
        checkpointing: Activation checkpointing of the blocks.
        process_group_backend: As in Lightning.
        timeout: As in Lightning.
        start_method: As in Lightning.

    Raises:
        ValueError: If a value is of another kind, ``bucket_mb`` is not positive, a word is unknown, or both
            ways to treat unused parameters are asked for.
        MisconfigurationException: At the start, for ``"bf16"`` on the CPU, and a static graph with accumulation.

    Example:
        >>> DDP(compression="int8")
        Traceback (most recent call last):
        ValueError: compression must be None, 'bf16' or 'fp16', got 'int8'.
    """

    def __init__(
        self,
        *,
        bucket_mb: float = 25.0,
        static_graph: bool = False,
        find_unused_parameters: bool = False,
        compression: Literal["bf16", "fp16"] | None = None,
        gradients_in_buckets: bool = True,
        checkpointing: str | int = "none",
        process_group_backend: str | None = None,
        timeout: timedelta | None = timedelta(seconds=1800),
        start_method: Literal["popen", "spawn", "fork", "forkserver"] = "popen",
    ) -> None:
        check_mode(checkpointing)
        refuse_no_group(process_group_backend, timeout)
        refuse_no_flags(
            static_graph=static_graph,
            find_unused_parameters=find_unused_parameters,
            gradients_in_buckets=gradients_in_buckets,
        )
        if not is_positive(bucket_mb):
            raise ValueError(f"bucket_mb must be finite and > 0, got {bucket_mb!r}.")
        if not is_word(start_method, STARTS):
            raise ValueError(f"start_method must be one of {list(STARTS)}, got {start_method!r}.")
        if compression is not None and not is_word(compression, HOOKS):
            raise ValueError(f"compression must be None, 'bf16' or 'fp16', got {compression!r}.")
        if static_graph and find_unused_parameters:
            raise ValueError(
                "static_graph and find_unused_parameters contradict each other: a static graph uses the same "
                "parameters every time. Drop one of the two."
            )
        super().__init__(
            process_group_backend=process_group_backend,
            timeout=timeout,
            start_method=start_method,
            bucket_cap_mb=bucket_mb,
            static_graph=static_graph,
            find_unused_parameters=find_unused_parameters,
            gradient_as_bucket_view=gradients_in_buckets,
        )
        self.compression, self.checkpointing = compression, checkpointing

    @override
    def setup(self, trainer: Trainer) -> None:
        module: Any = self.lightning_module
        if self._ddp_kwargs["static_graph"] and trainer.accumulate_grad_batches > 1:
            raise MisconfigurationException(
                "static_graph=True and accumulate_grad_batches="
                f"{trainer.accumulate_grad_batches} cannot work together: DDP learns the graph from a batch that it "
                "reduces, and waits for the last of a window. Drop static_graph, or accumulate_grad_batches."
            )
        recompute_blocks(module, self.checkpointing)
        super().setup(trainer)

    @override
    def _register_ddp_hooks(self) -> None:
        if self.compression is not None and isinstance(self.model, DistributedDataParallel):
            if self.compression == "bf16" and self.root_device.type == "cpu":
                raise MisconfigurationException(
                    "compression='bf16' needs NCCL, and this run is on the CPU: use compression='fp16', or None."
                )
            self.model.register_comm_hook(None, HOOKS[self.compression])
