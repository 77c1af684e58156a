"""How many numbers of a model rank 0 holds: no rank holds more."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from .layouts import LIKE_FSDP2, Layout
from .network import Shape, Unit, Weight, most_common_side
from .optimizers import Optimizer
from .precisions import Precision

ZERO3_KEEPS_WIDTHS = 10  # our presets let DeepSpeed leave parameters up to ten times the width gathered
FSDP1_ALIGNS = 16  # bytes: where parameters start in a flat parameter with use_orig_params


@dataclass(frozen=True)
class Held:
    """Bytes that stay on a rank through the whole update, on its device or on its host.

    Args:
        parameters: Of the parameters.
        master: Of their fp32 copies.
        gradients: Of the gradients, when all are there.
        state: Of the optimizer's state, from the second update on.
    """

    parameters: int
    master: int
    gradients: int
    state: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.parameters + self.master + self.gradients + self.state


NOTHING = Held(0, 0, 0, 0)


def held(
    units: Sequence[Unit],
    layout: Layout,
    precision: Precision,
    optimizer: Optimizer,
    *,
    accumulates: bool,
    leading: int = 0,
) -> tuple[Held, Held]:
    """Bytes that rank 0 of a stage keeps on its device, and on the host.

    Args:
        units: What the stage holds; those outside the blocks are one unit of FSDP, as ``fully_shard(model)`` makes.
        layout: Who shares what.
        precision: Bytes of a number.
        optimizer: What is kept for each.
        accumulates: Whether several micro-batches make an update: ZeRO-1 and FSDP then keep whole gradients.
        leading: How many parameters of the last unit come before the blocks.
    """
    split = [split_unit(unit, layout.tensor) for unit in units]
    ranks, sharing = layout.shards, layout.sharing
    *blocks, outside = split
    inside = [weight for unit in blocks for weight in unit.weights]
    weights = [*outside.weights[:leading], *inside, *outside.weights[leading:]]
    if sharing == "zero2_offload":
        return _zero2_offload(weights, ranks, precision, optimizer, accumulates=accumulates)
    if sharing == "zero3_offload":
        return _zero3_offload(weights, ranks, precision, optimizer)
    if sharing in ("zero1", "zero2"):
        return _zero(weights, ranks, precision, optimizer, whole=accumulates and sharing == "zero1"), NOTHING
    if sharing == "zero3":
        return _zero3(weights, ranks, precision, optimizer), NOTHING
    if sharing == "fsdp":
        return _fsdp1(split, ranks, precision, optimizer, whole=accumulates and precision.compute == 4), NOTHING
    if sharing in LIKE_FSDP2:
        return _fsdp2(weights, layout, precision, optimizer, whole=accumulates)
    return _plain(weights, precision, optimizer), NOTHING


def split_unit(unit: Unit, tensor: int) -> Unit:
    """What one of ``tensor`` ranks has of a unit: a part of what is cut, and the rest whole."""
    if tensor == 1:
        return unit
    return Unit(
        tuple(
            weight if weight.cut is None else replace(weight, shape=_part(weight.shape, tensor, weight.cut))
            for weight in unit.weights
        )
    )


def _part(shape: Shape, ranks: int, dimension: int = 0) -> Shape:
    """Rank 0's part of a dimension: it is shared evenly, rounded up; scalars are whole."""
    return (*shape[:dimension], math.ceil(shape[dimension] / ranks), *shape[dimension + 1 :]) if shape else shape


def _plain(weights: Iterable[Weight], precision: Precision, optimizer: Optimizer) -> Held:
    every = list(weights)
    trained = [weight for weight in every if weight.trainable]
    numbers = sum(weight.size for weight in trained)
    return Held(
        precision.parameter * sum(weight.size for weight in every),
        precision.master * numbers,
        precision.gradient * numbers,
        sum(optimizer.state_bytes(weight.shape, precision.state) for weight in trained),
    )


def _fsdp2(
    weights: list[Weight], layout: Layout, precision: Precision, optimizer: Optimizer, *, whole: bool
) -> tuple[Held, Held]:
    """Rows of each parameter. The strategy sums gradients whole, as they are reduced, until the last micro-batch."""
    own = [replace(weight, shape=_part(weight.shape, layout.shards)) for weight in weights]
    shards = _plain(own, precision, optimizer)
    sums = precision.reduce * sum(weight.size for weight in weights if weight.trainable) if whole else 0
    if layout.offloads:
        return replace(NOTHING, gradients=sums), shards
    return replace(shards, gradients=max(shards.gradients, sums)), NOTHING


def _zero(weights: list[Weight], ranks: int, precision: Precision, optimizer: Optimizer, *, whole: bool) -> Held:
    """All trained parameters in one flat tensor, padded to two numbers a rank."""
    trained = sum(weight.size for weight in weights if weight.trainable)
    padded = math.ceil(trained / (2 * ranks)) * 2 * ranks
    own = padded // ranks
    frozen = sum(weight.size for weight in weights if not weight.trainable)
    return Held(
        precision.parameter * (padded + frozen),
        precision.master * own,
        precision.gradient * (trained if whole else own),
        optimizer.state_bytes((own,), precision.state),
    )


def _zero3(weights: list[Weight], ranks: int, precision: Precision, optimizer: Optimizer) -> Held:
    """A part of each parameter, rounded up; small parameters stay whole beside it."""
    own = sum(math.ceil(weight.size / ranks) for weight in weights if weight.trainable)
    parts = sum(math.ceil(weight.size / ranks) for weight in weights)
    return Held(
        precision.parameter * (parts + _small(weights, ranks)),
        precision.master * own,
        precision.gradient * own,
        optimizer.state_bytes((own,), precision.state),
    )


def _small(weights: list[Weight], ranks: int) -> int:
    """Numbers of the parameters that stay whole."""
    most = ZERO3_KEEPS_WIDTHS * most_common_side(weights)
    return sum(ranks * math.ceil(weight.size / ranks) for weight in weights if weight.size <= most)


def _zero2_offload(
    weights: list[Weight], ranks: int, precision: Precision, optimizer: Optimizer, *, accumulates: bool
) -> tuple[Held, Held]:
    """On the host an fp32 gradient for the step; 16-bit gradients are summed on the device, fp32 ones on the host."""
    own = _zero(weights, ranks, precision, optimizer, whole=False)
    if precision.compute < 4:
        return Held(own.parameters, 0, own.master, 0), Held(0, own.master, own.master, own.state)
    sums = precision.gradient * _touched(weights, own.master // precision.master) if accumulates else 0
    return Held(own.parameters, 0, 0, 0), Held(0, own.master, own.master + sums, own.state)


def _touched(weights: Iterable[Weight], numbers: int) -> int:
    """Numbers of the trained parameters, whole, of which the first ``numbers`` are a rank's."""
    total = 0
    for weight in weights:
        if weight.trainable and total < numbers:
            total += weight.size
    return total


def _zero3_offload(weights: list[Weight], ranks: int, precision: Precision, optimizer: Optimizer) -> tuple[Held, Held]:
    """Parts lie on the host, gradients there twice: one is summed into, the other is read by the step."""
    own = _zero3(weights, ranks, precision, optimizer)
    small = precision.parameter * _small(weights, ranks)
    return Held(small, 0, 0, 0), replace(own, parameters=own.parameters - small, gradients=own.gradients + own.master)


def _fsdp1(units: Sequence[Unit], ranks: int, precision: Precision, optimizer: Optimizer, *, whole: bool) -> Held:
    """One flat parameter for each unit. Lightning leaves gradients whole until the last micro-batch of an update."""
    parts = [_fsdp1_unit(unit, ranks, precision, optimizer) for unit in units if unit.weights]
    parameters, master, gradients, unsharded, state = (sum(column) for column in zip(*parts, strict=True))
    return Held(parameters, master, max(gradients, unsharded) if whole else gradients, state)


def _fsdp1_unit(unit: Unit, ranks: int, precision: Precision, optimizer: Optimizer) -> tuple[int, int, int, int, int]:
    places = list(_places(unit.weights, every=FSDP1_ALIGNS // precision.compute))
    end = places[-1] + unit.weights[-1].size
    own = math.ceil(end / ranks)
    trained = [
        (min(start + weight.size, own) - start,)
        for start, weight in zip(places, unit.weights, strict=True)
        if start < own and weight.trainable
    ]
    state = sum(optimizer.state_bytes(shape, precision.state) for shape in trained)
    learns = any(weight.trainable for weight in unit.weights)
    gradients, unsharded = precision.gradient * own * learns, precision.compute * own * ranks * learns
    return precision.parameter * own, precision.master * own, gradients, unsharded, state


def _places(weights: Sequence[Weight], *, every: int) -> Iterator[int]:
    """Where each parameter starts in the flat one [numbers]."""
    start = 0
    for weight in weights:
        start = math.ceil(start / every) * every
        yield start
        start += weight.size
