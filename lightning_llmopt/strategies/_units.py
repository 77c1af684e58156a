"""Which parts of a module are sharded each by itself, and the same numbers on every rank before that."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from .._lightning import MisconfigurationException, rank_zero_warn
from ..structure import find_blocks


def sharding_units(module: nn.Module, blocks: Sequence[str] | None = None) -> list[nn.Module]:
    """The blocks of ``module``, in order of depth; everything else is left to the unit of the whole module.

    A block that shares a parameter with anything outside it is left there too: both have to lie in one unit.

    Args:
        module: Any LightningModule.
        blocks: Globs of module names, if the blocks are not to be found (``structure.find_blocks``).
    """
    try:
        found = list(find_blocks(module, blocks=blocks).modules(module))
    except ValueError as error:
        if blocks is not None:
            raise
        rank_zero_warn(f"The whole {type(module).__name__} is one unit of sharding, gathered at once. {error}")
        return []
    owners = _owners(module, found)
    tied = {owner for several in owners.values() if len(several) > 1 for owner in several}
    return [block for number, block in enumerate(found) if number not in tied]


def _owners(module: nn.Module, blocks: list[nn.Module]) -> dict[int, set[int]]:
    """For each parameter, by identity, the numbers of the blocks that hold it; -1 for what is in none."""
    block_of = {id(part): number for number, block in enumerate(blocks) for part in block.modules()}
    owners: dict[int, set[int]] = {}
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            owners.setdefault(id(parameter), set()).add(block_of.get(id(part), -1))
    return owners


@torch.no_grad()
def same_on_every_rank_(module: nn.Module, device: torch.device, *, done: set[int]) -> None:
    """Give each parameter and buffer of ``module`` the numbers of rank 0, in place, on ``device``.

    Modules are built on every rank by itself, and without a common seed they differ: copies would drift apart, and
    shards would be pieces of different networks.

    Args:
        module: Parameters and buffers that are on the meta device, or sharded already, are left alone.
        device: Where this rank computes.
        done: Tensors that need no second time, by identity; those of ``module`` are added.
    """
    for tensor in _tensors(module):
        if id(tensor) in done or tensor.is_meta or isinstance(tensor, DTensor):
            continue
        done.add(id(tensor))
        tensor.data = tensor.data.to(device).contiguous()  # as collectives and shards have to be
        if dist.get_world_size() > 1:
            dist.broadcast(torch.view_as_real(tensor.data) if tensor.is_complex() else tensor.data, src=0)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    return chain(module.parameters(), module.buffers())


@contextmanager
def attention_resets(module: nn.Module) -> Iterator[None]:
    """Let torch's ``MultiheadAttention`` be filled as any other module while this lasts: its own method is private.

    Its output layer is filled after it and by itself, and is told to start with a bias of zero here.
    """
    given: list[nn.Module] = []
    for part in list(module.modules()):
        if isinstance(part, nn.MultiheadAttention) and not hasattr(part, "reset_parameters"):
            part.__dict__["reset_parameters"] = part._reset_parameters
            part.out_proj.__dict__["reset_parameters"] = partial(_fill_without_bias, part.out_proj)
            given += [part, part.out_proj]
    try:
        yield
    finally:
        for part in given:
            del part.__dict__["reset_parameters"]


def _fill_without_bias(layer: nn.Linear) -> None:
    type(layer).reset_parameters(layer)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


@torch.no_grad()
def make_contiguous_(module: nn.Module) -> None:
    """Lay out each parameter of ``module`` row by row, as DeepSpeed sends them; transposed and channels-last ones."""
    for parameter in module.parameters():
        parameter.data = parameter.data.contiguous()


def registered_once(module: nn.Module, units: list[nn.Module]) -> list[nn.Module]:
    """Those of ``units`` that have one place in ``module``: FSDP1 puts a wrapper in one, and misses the others."""
    places = Counter(id(child) for part in module.modules() for child in part._modules.values())
    return [unit for unit in units if places[id(unit)] == 1]


def refuse_scalars(module: nn.Module, who: str) -> None:
    """Raise for parameters without a dimension: torch cuts no such, and DeepSpeed sends none.

    Raises:
        MisconfigurationException: Naming them and both ways out.
    """
    scalars = [name for name, parameter in module.named_parameters() if not parameter.ndim]
    if scalars:
        more = f" and {len(scalars) - 3} more" if len(scalars) > 3 else ""
        raise MisconfigurationException(
            f"{who} takes parameters of one dimension or more, and {', '.join(scalars[:3])}{more} of "
            f"{type(module).__name__} have none: give them the shape (1,), or use preset('ddp')."
        )


def refuse_unusable_meta(module: nn.Module) -> None:
    """Raise where something on the meta device has no way to get its first numbers.

    Raises:
        MisconfigurationException: Naming the classes and both ways out.
    """
    lost = {
        type(part).__name__
        for part in module.modules()
        if any(tensor.is_meta for tensor in chain(part.parameters(recurse=False), part.buffers(recurse=False)))
        and not callable(getattr(part, "reset_parameters", None))
    }
    if lost:
        raise MisconfigurationException(
            f"Parameters or buffers of {', '.join(sorted(lost))} are on the meta device and the class has no "
            "reset_parameters() to fill them: add that method, or build the module on the CPU."
        )


def refuse_idle_ranks(units: list[nn.Module], shards: int, who: str) -> None:
    """Raise if a rank would hold nothing of any block: parameters are cut along their first dimension.

    Raises:
        MisconfigurationException: Naming both numbers and both ways out.
    """
    rows = max(
        (len(p) for unit in units for p in unit.parameters() if p.ndim and not isinstance(p, DTensor)), default=0
    )
    if units and rows and shards > rows:
        raise MisconfigurationException(
            f"{who} would cut blocks whose longest first dimension is {rows} into {shards} shards, and some processes "
            f"would hold nothing: use at most {rows} devices, or preset('hybrid', shard_size={rows})."
        )
