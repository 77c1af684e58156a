"""Which layers tensor parallelism splits, and how: a plan of the user's, or the one a Hugging Face model brings."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from .._lightning import MisconfigurationException
from ..planning.cuts import matches, own_plan

Plan = Mapping[str, str]

STYLES = {
    "colwise": lambda: ColwiseParallel(),
    "rowwise": lambda: RowwiseParallel(),
    "colwise_gather_output": lambda: ColwiseParallel(output_layouts=Replicate()),
    "embedding_rowwise": lambda: RowwiseParallel(input_layouts=Replicate()),
}
ALIASES = {"colwise_rep": "colwise_gather_output", "rowwise_rep": "embedding_rowwise"}  # of older transformers
HEADS = ("num_attention_heads", "num_key_value_heads")


def plan_for(module: nn.Module, plan: Plan | None, size: int) -> list[tuple[nn.Module, str]]:
    """The layers to split with the style of each, in the order of registration.

    Args:
        module: Any LightningModule.
        plan: Globs of module names to styles; None for the plan of the Hugging Face model inside.
        size: Processes over which each layer is split.

    Raises:
        MisconfigurationException: If there is no plan, it does not fit the module, or ``size`` does not divide it.
    """
    given = _brought_along(module) if plan is None else dict(plan)
    styles = {glob: ALIASES.get(style, style) for glob, style in given.items()}
    unknown = {glob: style for glob, style in styles.items() if style not in STYLES}
    if unknown:
        glob, style = next(iter(unknown.items()))
        raise MisconfigurationException(
            f"The tensor-parallel plan asks for {style!r} at {glob!r}, and known styles are {list(STYLES)}: give a "
            "tensor_parallel_plan of these, or use preset('fsdp2')."
        )
    _refuse_split_heads(module, size)
    named = dict(module.named_modules())
    chosen: list[tuple[nn.Module, str]] = []
    for glob, style in styles.items():
        names = [name for name in named if matches(name, glob)]
        if not names:
            raise MisconfigurationException(
                f"{glob!r} of the tensor-parallel plan matches no module of {type(module).__name__}: name modules as "
                "named_modules() does, or use preset('fsdp2')."
            )
        for name in names:
            _refuse_uneven(name, named[name], style, size)
            chosen.append((named[name], style))
    return chosen


def parallelize(part: nn.Module, mesh: DeviceMesh, style: str) -> None:
    """Split one layer over ``mesh``, in place."""
    parallelize_module(part, mesh, STYLES[style]())  # type: ignore[no-untyped-call]


def same_randomness(mesh: DeviceMesh, device: torch.device) -> None:
    """Let processes that see the same batch draw the same random numbers: their dropout is one and the same."""
    group = mesh.get_group()
    generators = [(torch.get_rng_state, torch.set_rng_state)]
    if device.type == "cuda":
        generators.append((torch.cuda.get_rng_state, torch.cuda.set_rng_state))
    for read, write in generators:
        state = read().to(device)
        dist.broadcast(state, src=dist.get_global_rank(group, 0), group=group)
        write(state.cpu())


def _brought_along(module: nn.Module) -> dict[str, str]:
    if (plan := own_plan(module)) is not None:
        return plan
    raise MisconfigurationException(
        f"There is no tensor-parallel plan: {type(module).__name__} holds no Hugging Face model with a "
        "base_model_tp_plan. Give tensor_parallel_plan={'blocks.*.up': 'colwise', 'blocks.*.down': 'rowwise', ...}, or "
        "use preset('fsdp2')."
    )


def _refuse_split_heads(module: nn.Module, size: int) -> None:
    """Raise if a Hugging Face model's attention heads cannot be dealt out evenly.

    Raises:
        MisconfigurationException: Naming both numbers and both ways out.
    """
    for part in module.modules():
        config: Any = getattr(part, "config", None)
        for entry in HEADS if getattr(config, "base_model_tp_plan", None) else ():
            heads = getattr(config, entry, None) or size
            if heads % size:
                raise MisconfigurationException(
                    f"tensor_parallel_size must divide {entry}, got {size} and {heads}: use a divisor, or "
                    "preset('fsdp2')."
                )


def _refuse_uneven(name: str, part: nn.Module, style: str, size: int) -> None:
    if not isinstance(part, nn.Linear | nn.Embedding):
        raise MisconfigurationException(
            f"The tensor-parallel plan names {name!r}, a {type(part).__name__}, and only Linear and Embedding can be "
            "split: name its layers, or leave it out."
        )
    by_columns = style in ("colwise", "colwise_gather_output")  # of the mathematical matrix: rows of a Linear's weight
    cut = part.weight.shape[0 if by_columns == isinstance(part, nn.Linear) else 1]
    if cut % size:
        raise MisconfigurationException(
            f"tensor_parallel_size must divide what it cuts, got {size} and the {cut} of {name!r}: use a divisor, or "
            "leave the layer out of the plan."
        )
