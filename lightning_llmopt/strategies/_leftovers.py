"""Whole gradients that an accumulation window leaves behind where the run is stopped in the midst of it.

They are where no ``zero_grad`` reaches, and would be added to the first update of the next fit. Torch has no public
name for them; checked against torch 2.13, in whose forerunners a unit has one group of parameters.
"""

from typing import Any

from torch import nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel


def forget_whole_gradients_(module: nn.Module) -> None:
    """Drop what FSDP2 has kept to this rank of gradients that were not reduced, in all units of ``module``."""
    for unit in module.modules():
        if isinstance(unit, FSDPModule):
            state: Any = unit._get_fsdp_state()
            groups = state._fsdp_param_groups if hasattr(state, "_fsdp_param_groups") else [state._fsdp_param_group]
            for parameter in (parameter for group in groups if group is not None for parameter in group.fsdp_params):
                parameter.unsharded_accumulated_grad = None
                if hasattr(parameter, "_unsharded_param"):  # after the first gathering
                    parameter._unsharded_param.grad = None


def forget_flat_gradients_(module: nn.Module) -> None:
    """Drop the gradients of all units of FSDP1 in ``module``: shards of them, or whole ones that were not reduced."""
    module.zero_grad(set_to_none=True)
    for unit in FullyShardedDataParallel.fsdp_modules(module):
        if unit._handle is not None:
            unit._handle.flat_param.grad = None
