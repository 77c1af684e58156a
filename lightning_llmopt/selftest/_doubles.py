"""FSDP1 and DeepSpeed on CPU: small subclasses of Lightning's own strategies, for tests.

Lightning offers both for CUDA only, but what stops them on CPU are a few guards and device indices. Each subclass
replaces exactly the blocked lines; sharding, communication (gloo) and optimizer steps are the real ones. Not for
training. Checked against lightning 2.6.6 and deepspeed 0.19.8.
"""

import argparse
import importlib
import os
import sys
import warnings
from importlib.util import find_spec
from typing import Any

import torch
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn import Module
from typing_extensions import override

from .._lightning import DDPStrategy, DeepSpeedStrategy, FSDPStrategy, reset_seed


class CPUFSDP(FSDPStrategy):
    """FSDPStrategy as it is, but for ``device_id``: Lightning passes a device index, and the CPU has none."""

    @override
    def _setup_model(self, model: Module) -> Module:
        if any(isinstance(part, FullyShardedDataParallel) for part in model.modules()):
            return super()._setup_model(model)
        return FullyShardedDataParallel(
            module=model,
            cpu_offload=self.cpu_offload,
            mixed_precision=self.mixed_precision_config,
            sharding_strategy=self.sharding_strategy,
            device_id=torch.device("cpu"),
            **self.kwargs,
        )


class CPUDeepSpeed(DeepSpeedStrategy):
    """DeepSpeedStrategy as it is, but for the guard that wants a CUDA accelerator and three uses of device indices."""

    @override
    def setup_environment(self) -> None:
        DDPStrategy.setup_environment(self)

    @override
    def setup_distributed(self) -> None:
        reset_seed()
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    @override
    def _setup_model_and_optimizer(self, model: Module, optimizer: Any, lr_scheduler: Any = None) -> tuple[Any, Any]:
        import deepspeed

        engine, zero, _, _ = deepspeed.initialize(
            args=argparse.Namespace(device_rank=self.local_rank),
            config=self.config,
            model=model,
            model_parameters=[parameter for parameter in model.parameters() if parameter.requires_grad],
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            dist_init_required=False,
        )
        return engine, zero

    @override
    def _initialize_deepspeed_inference(self, model: Module) -> None:
        import deepspeed

        here = {"args": argparse.Namespace(device_rank=self.local_rank)}
        initialize = deepspeed.initialize
        deepspeed.initialize = lambda **settings: initialize(**settings | here)
        try:
            super()._initialize_deepspeed_inference(model)
        finally:
            deepspeed.initialize = initialize


def deepspeed_is_here() -> bool:
    """Whether DeepSpeed is installed; if so it is imported, once, without the kernels it would compile (170 s)."""
    if find_spec("deepspeed") is None:
        return False
    if "deepspeed" not in sys.modules:
        os.environ["DS_ACCELERATOR"] = "cpu"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("deepspeed")
            importlib.import_module("deepspeed.runtime.zero.muon.muon_optimizer")  # each process would import it
        communication: Any = sys.modules["deepspeed.comm.torch"]
        communication.build_shm_op = lambda: None
    return True
