"""How the ranks share the work: who holds which part of the model, and who sees which batch."""

import math
from dataclasses import dataclass

from .network import Network

STRATEGIES = {
    "single": "one device",
    "ddp": "DDP",
    "zero1": "ZeRO-1",
    "zero2": "ZeRO-2",
    "zero3": "ZeRO-3",
    "fsdp": "FSDP1",
    "fsdp2": "FSDP2",
    "hybrid": "hybrid",
    "zero2_offload": "ZeRO-2 host",
    "zero3_offload": "ZeRO-3 host",
    "fsdp2_offload": "FSDP2 host",
}
LIKE_FSDP2 = ("fsdp2", "hybrid", "fsdp2_offload")


@dataclass(frozen=True)
class Layout:
    """A product of data, tensor and pipeline parallelism.

    Args:
        strategy: What data-parallel ranks share: ``"single"`` and ``"ddp"`` nothing, ``"zero1"`` the optimizer's
            state, ``"zero2"`` the gradients too, ``"zero3"``, ``"fsdp"`` (FSDP1) and ``"fsdp2"`` the parameters too,
            ``"hybrid"`` the same among some of them. With ``"_offload"`` what is shared lies on the host.
        data: Data-parallel ranks, >= 1.
        tensor: Ranks that split each matrix of a block, >= 1.
        pipeline: Stages that split the blocks, >= 1.
        copies: Whole copies among the data-parallel ranks, a divisor of ``data``; more than 1 for ``"hybrid"`` only.

    Raises:
        ValueError: If ``strategy`` is unknown, a degree is below 1, ``copies`` does not divide ``data``, or the
            strategy does not take several of them.

    Example:
        >>> print(Layout("fsdp2", data=4, tensor=2), Layout("ddp", pipeline=8), Layout("ddp", data=8), sep=", ")
        FSDP2 4 x TP 2, PP 8, DDP
        >>> print(Layout("hybrid", data=16, copies=2))
        hybrid 8
    """

    strategy: str
    data: int = 1
    tensor: int = 1
    pipeline: int = 1
    copies: int = 1

    def __post_init__(self) -> None:
        check_strategy(self.strategy)
        for name in ("data", "tensor", "pipeline", "copies"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"Layout.{name} must be a whole number >= 1, got {value!r}.")
        if self.strategy == "single" and self.data > 1:
            raise ValueError(f"Layout.data must be 1 for 'single', got {self.data}; 'ddp' copies the model to each.")
        if self.data % self.copies:
            raise ValueError(f"Layout.copies must divide data ({self.data}), got {self.copies}.")
        if self.copies > 1 and (self.strategy != "hybrid" or self.model_ranks > 1):
            raise ValueError(
                "Layout.copies must be 1 unless the strategy is 'hybrid' without tensor and pipeline, got "
                f"{self.copies}."
            )

    @property
    def gpus(self) -> int:
        """Devices in all."""
        return self.data * self.tensor * self.pipeline

    @property
    def model_ranks(self) -> int:
        """Devices that hold one model together, data parallelism aside."""
        return self.tensor * self.pipeline

    @property
    def shards(self) -> int:
        """Data-parallel ranks that share one copy."""
        return self.data // self.copies

    @property
    def sharing(self) -> str:
        """The strategy, or ``"ddp"`` where a single data-parallel rank has nothing to share.

        FSDP2 and offloading are what they are on a single rank too.
        """
        alone = self.data == 1 and self.strategy not in LIKE_FSDP2 and not self.offloads
        return "ddp" if alone else self.strategy

    @property
    def offloads(self) -> bool:
        """Whether what is shared lies on the host."""
        return self.strategy.endswith("_offload")

    def __str__(self) -> str:
        model = [f"{name} {degree}" for name, degree in (("TP", self.tensor), ("PP", self.pipeline)) if degree > 1]
        if not model:
            return STRATEGIES[self.strategy] + (f" {self.shards}" if self.strategy == "hybrid" else "")
        return " x ".join([*([f"{STRATEGIES[self.strategy]} {self.data}"] if self.data > 1 else []), *model])


def check_strategy(name: str) -> None:
    """Refuse what is no strategy.

    Raises:
        ValueError: If ``name`` is unknown.
    """
    if not isinstance(name, str) or name not in STRATEGIES:
        raise ValueError(f"strategy must be one of {list(STRATEGIES)}, got {name!r}.")


def bubble(pipeline: int, *, micro_batches: int) -> float:
    """Part of the time in which a pipeline stage waits: ``(p - 1) / (m + p - 1)``.

    Args:
        pipeline: Stages ``p``, >= 1.
        micro_batches: Micro-batches ``m`` to an update, >= 1.

    Returns:
        A part of the whole time, in [0, 1).

    Raises:
        ValueError: If a number is below 1.

    Source:
        Huang et al. 2019 (GPipe), https://arxiv.org/abs/1811.06965; Narayanan et al. 2021 give ``(p - 1) / m``, the
        waiting over the time of work.

    Example:
        >>> bubble(4, micro_batches=1), bubble(4, micro_batches=9)
        (0.75, 0.25)
    """
    for name, value in (("pipeline", pipeline), ("micro_batches", micro_batches)):
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} must be a whole number >= 1, got {value!r}.")
    return (pipeline - 1) / (micro_batches + pipeline - 1)


def check_tensor(network: Network, tensor: int) -> None:
    """Refuse tensor parallelism that does not split every block evenly.

    Args:
        network: The model.
        tensor: Ranks that split each matrix of a block.

    Raises:
        ValueError: If ``tensor`` does not divide the heads, the key-value heads, or a side that is cut.
    """
    for name, size in _cut_sides(network):
        if size % tensor:
            most = math.gcd(*(size for _, size in _cut_sides(network)))
            ways = [str(way) for way in range(1, min(most, 128) + 1) if most % way == 0]
            raise ValueError(
                f"tensor must divide the {name} ({size}), got {tensor}: use one of {', '.join(ways)}, or share the "
                "parameters instead with strategy='fsdp2' and tensor=1."
            )


def tensor_degrees(network: Network, *, limit: int) -> list[int]:
    """Ways to split each block evenly: powers of 2 up to ``limit`` that divide heads, key-value heads and widths."""
    if network.widths is None:
        return [1]
    even = math.gcd(*(size for _, size in _cut_sides(network)))
    return [degree for degree in _powers(limit) if even % degree == 0]


def _cut_sides(network: Network) -> list[tuple[str, int]]:
    """What tensor parallelism has to divide, by name; sizes of blocks that are nothing but a number do not count."""
    inside, sides = network.widths, []
    if inside is not None and not inside.guessed_heads:
        kv_heads = max(1, inside.kv * inside.heads // inside.attention)
        sides += [("attention heads", inside.heads), ("key-value heads", kv_heads)]
    if inside is not None:
        sides += [("feed-forward size", inside.ffn), ("attention size", inside.attention), ("size of keys", inside.kv)]
    known = {weight for block in network.blocks for weight in block.weights if not network.scaled}
    cut = sorted({weight.shape[weight.cut] for weight in known if weight.cut is not None})
    return [*sides, *(("side of a matrix of a block", size) for size in cut)]


def pipeline_degrees(network: Network, *, limit: int) -> list[int]:
    """Numbers of stages: powers of 2 up to ``limit`` and to the number of blocks."""
    return _powers(min(limit, max(1, len(network.blocks))))


def layouts(network: Network, *, gpus: int, gpus_per_node: int) -> list[Layout]:
    """What a plan shows: one device, each way to share data-parallel ranks, tensor and pipeline parallelism, products.

    Tensor parallelism stays inside a node. Beside tensor parallelism the parameters are sharded (FSDP2), beside
    pipeline parallelism the optimizer's state (ZeRO-1), for stages would gather their parameters for each micro-batch.

    Args:
        network: The model.
        gpus: Devices in all.
        gpus_per_node: Devices of one node.
    """
    shown = [Layout("single")]
    if gpus > 1:
        shown += [Layout(name, data=gpus) for name in ("ddp", "zero1", "zero2", "zero3", "fsdp2")]
    if gpus > gpus_per_node > 1 and gpus % gpus_per_node == 0:
        shown.append(hybrid(gpus, gpus_per_node=gpus_per_node))
    shown += [Layout(name, data=gpus) for name in ("zero2_offload", "zero3_offload", "fsdp2_offload")]
    tensors = [t for t in tensor_degrees(network, limit=min(gpus, gpus_per_node)) if gpus % t == 0]
    pipelines = [p for p in pipeline_degrees(network, limit=min(gpus, 16)) if gpus % p == 0]
    pairs = [(t, 1) for t in _ends(tensors)] + [(1, p) for p in _ends(pipelines)]
    pairs += [(t, p) for t in _ends(tensors) for p in _ends(pipelines) if gpus % (t * p) == 0]
    for t, p in pairs:
        data = gpus // (t * p)
        shown.append(Layout("fsdp2" if p == 1 else "ddp" if data == 1 else "zero1", data=data, tensor=t, pipeline=p))
    return shown


def hybrid(gpus: int, *, gpus_per_node: int) -> Layout:
    """Sharded in each node, copied across nodes.

    Raises:
        ValueError: If the nodes are not full.
    """
    if gpus % gpus_per_node:
        raise ValueError(
            f"gpus must be a multiple of gpus_per_node ({gpus_per_node}) for strategy 'hybrid', got {gpus}: change one "
            "of the two, or use strategy='fsdp2'."
        )
    return Layout("hybrid", data=gpus, copies=gpus // gpus_per_node)


def _ends(degrees: list[int]) -> list[int]:
    """The smallest, the middle and the largest degree above 1."""
    some = [degree for degree in degrees if degree > 1]
    return sorted({some[0], some[len(some) // 2], some[-1]}) if some else []


def _powers(limit: int) -> list[int]:
    return [2**power for power in range(limit.bit_length()) if 2**power <= limit]
