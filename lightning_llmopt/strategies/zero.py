"""DeepSpeed ZeRO with a complete configuration, and in sentences what it cannot do. DeepSpeed is imported only here.

The private hooks of Lightning that are overridden were checked against lightning 2.6.6 and deepspeed 0.19.8.
"""

import json
import logging
import re
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from .._lightning import DeepSpeedStrategy, MisconfigurationException, Trainer
from ._recompute import recompute_blocks
from ._units import make_contiguous_, refuse_scalars
from ._values import refuse_no_flags, refuse_no_group, refuse_no_mapping
from .checkpointing import check_mode
from .zero_config import AUTO, Run, completed, default_config, merged

CPU_OPTIMIZERS = ("DeepSpeedCPUAdam", "DeepSpeedCPULion", "DeepSpeedCPUAdagrad")


class ZeRO(DeepSpeedStrategy):
    """DeepSpeed's ZeRO, configured from the Trainer and the module.

    Unlike Lightning's own strategy it fills in everything, reduces and accumulates in fp32, and divides the loss by
    the accumulation window once and not twice.

    Args:
        stage: 1 shards the optimizer's state, 2 gradients too, 3 parameters too.
        offload_optimizer: Keep the optimizer's state on the host and step there, with DeepSpeed's C++ optimizer.
        offload_parameters: Keep parameters on the host; stage 3 only.
        torch_optimizer: Let a plain torch optimizer step on the host. It is several times slower.
        config: Entries of a DeepSpeed configuration that replace ours, section by section; ``"auto"`` is filled in.
        checkpointing: Activation checkpointing of the blocks.
        process_group_backend: As in Lightning.
        timeout: As in Lightning.

    Raises:
        ValueError: If a value is of another kind, or ``stage`` does not shard what is to be offloaded.
        MisconfigurationException: Without DeepSpeed; at the start for what ZeRO cannot do; on resume with another
            number of processes.

    Example:
        >>> ZeRO(stage=2, offload_parameters=True)
        Traceback (most recent call last):
        ValueError: offload_parameters needs stage 3, which alone shards them, got stage 2: use stage=3, or offload ...
    """

    def __init__(
        self,
        *,
        stage: int = 2,
        offload_optimizer: bool = False,
        offload_parameters: bool = False,
        torch_optimizer: bool = False,
        config: dict[str, Any] | None = None,
        checkpointing: str | int = "none",
        process_group_backend: str | None = None,
        timeout: timedelta | None = timedelta(seconds=1800),
    ) -> None:
        check_mode(checkpointing)
        refuse_no_group(process_group_backend, timeout)
        refuse_no_flags(
            offload_optimizer=offload_optimizer, offload_parameters=offload_parameters, torch_optimizer=torch_optimizer
        )
        refuse_no_mapping("config", config)
        ours = default_config(stage=stage, offload_optimizer=offload_optimizer, offload_parameters=offload_parameters)
        if stage == 3 and checkpointing == "selective":
            raise ValueError(
                'checkpointing="selective" keeps the results of single operations, and under ZeRO stage 3 gathering '
                'parameters is one of them: use checkpointing="every_block" or "attention", or stage 2.'
            )
        ours["zero_force_ds_cpu_optimizer"] = not torch_optimizer
        self.wanted = merged(ours, config or {})
        super().__init__(
            config=dict(self.wanted),
            process_group_backend=process_group_backend,
            timeout=timeout,
            logging_level=logging.WARNING,
        )
        self.checkpointing = checkpointing

    def config_json(self) -> str:
        """The configuration as JSON: complete once the fit has begun, with ``"auto"`` in it before."""
        return json.dumps(self.config, indent=2, sort_keys=True)

    @override
    def setup(self, trainer: Trainer) -> None:
        module: Any = self.lightning_module
        self._refuse_value_clipping(trainer)
        recompute_blocks(module, self.checkpointing)
        if not any(hasattr(parameter, "ds_shape") for parameter in module.parameters()):  # not yet cut by stage 3
            refuse_scalars(module, type(self).__name__)
            make_contiguous_(module)
        self._config_initialized = False  # this run may have another loader and window than the last one
        super().setup(trainer)

    @override
    def teardown(self) -> None:
        """Take DeepSpeed's hooks off the module, with which a second engine would reduce for this one too."""
        engine: Any = self.model
        if hasattr(engine, "destroy"):
            engine.destroy()
        super().teardown()

    @override
    def backward(self, closure_loss: Tensor, optimizer: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Lightning has divided the loss by the window already, in automatic optimization."""
        module: Any = self.lightning_module
        if module.automatic_optimization:
            kwargs.setdefault("scale_wrt_gas", False)
        return super().backward(closure_loss, optimizer, *args, **kwargs)

    @override
    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        path = Path(self.broadcast(checkpoint_path))
        universal = (self.config or {}).get("checkpoint", {}).get("load_universal", False)
        before = _processes_of(path)
        if before not in (0, self.world_size) and not universal:
            inject = "" if self.zero_stage_3 else " --inject_missing_state"  # which Lightning does not write
            raise MisconfigurationException(
                f"{path} was written by {before} processes and this run has {self.world_size}, which ZeRO cannot "
                f"resume: start {before} processes, or convert it to a universal checkpoint (python -m deepspeed."
                f"checkpoint.ds_to_universal --input_folder {path}/checkpoint --output_folder NEW/checkpoint{inject}) "
                "and resume from NEW with config={'checkpoint': {'load_universal': True}}."
            )
        return super().load_checkpoint(checkpoint_path, weights_only)

    @override
    def _format_config(self) -> None:
        """Everything that Lightning fills in, and everything that it leaves to DeepSpeed's defaults."""
        module: Any = self.lightning_module
        trainer = module.trainer
        window = self.wanted["gradient_accumulation_steps"]
        if window not in (AUTO, trainer.accumulate_grad_batches):
            raise MisconfigurationException(
                f"config has gradient_accumulation_steps={window!r}, and the Trainer accumulate_grad_batches="
                f"{trainer.accumulate_grad_batches}: set the Trainer's, which schedules count by, or drop the entry."
            )
        self.config = completed(
            self.wanted,
            Run(
                micro_batch=self._auto_select_batch_size(),
                accumulate=trainer.accumulate_grad_batches,
                processes=self.world_size,
                clip=float(trainer.gradient_clip_val or 0.0),
                precision=self.precision_plugin.precision,
                width=_width(module),
            ),
        )

    @override
    def _auto_select_batch_size(self) -> int:
        """The loader's; 1 where it does not say, which changes nothing but DeepSpeed's own throughput messages."""
        module: Any = self.lightning_module
        source = module.trainer.fit_loop._data_source
        loader = source.dataloader() if source.is_defined() else None
        sampler = getattr(loader, "batch_sampler", None)
        return int(getattr(sampler, "batch_size", None) or getattr(loader, "batch_size", None) or 1)

    @override
    def _init_optimizers(self) -> tuple[Any, Any]:
        optimizer, scheduler = super()._init_optimizers()
        config: dict[str, Any] = self.config or {}
        offloads = "offload_optimizer" in config.get("zero_optimization", {})
        if offloads and config["zero_force_ds_cpu_optimizer"] and type(optimizer).__name__ not in CPU_OPTIMIZERS:
            raise MisconfigurationException(
                f"offload_optimizer steps on the host, and {type(optimizer).__name__} is not made for that: return "
                "deepspeed.ops.adam.DeepSpeedCPUAdam from configure_optimizers, or pass torch_optimizer=True and "
                "accept an update that is several times slower."
            )
        return optimizer, scheduler

    def _refuse_value_clipping(self, trainer: Trainer) -> None:
        if trainer.gradient_clip_val and str(trainer.gradient_clip_algorithm).lower().endswith("value"):
            raise MisconfigurationException(
                "ZeRO clips by norm only, and Trainer(gradient_clip_algorithm='value') was set: use "
                "gradient_clip_algorithm='norm', or drop gradient_clip_val for callbacks.GradientValueClip(...)."
            )


def _processes_of(path: Path) -> int:
    """How many processes wrote a checkpoint of ZeRO; 0 if that cannot be told."""
    ranks = {
        match[1]
        for file in (path / "checkpoint").glob("*_optim_states.pt")
        if (match := re.search(r"zero_pp_rank_(\d+)_", file.name))
    }
    return len(ranks)


def _width(module: nn.Module) -> int:
    """The most common side of the module's matrices; the larger of two that are equally common."""
    shapes = [getattr(parameter, "ds_shape", parameter.shape) for parameter in module.parameters()]
    sides = Counter(side for shape in shapes if len(shape) == 2 for side in shape)
    return max(sides, key=lambda side: (sides[side], side), default=1)
