"""Does it fit: the memory of every layout, and what to change if the wanted one does not."""

from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import fill
from typing import Any

from .activations import MODES, check_mode
from .advice import advise, cluster_layout
from .amounts import parse_bytes, shown, shown_count, unit_of
from .layouts import Layout, check_strategy, check_tensor, hybrid, layouts
from .memory import Job, Memory, memory
from .reading import network_of
from .tables import Grid, as_text, by_component, by_mode

HOST = "host: what is shared, and its update, in host memory."
TENSOR = "TP splits the blocks; tables are whole on each rank, as under the presets."


@dataclass(frozen=True)
class Plan:
    """What a run takes on each device, under every layout.

    Args:
        job: What is trained.
        gpus: Devices in all.
        gpus_per_node: Devices of one node.
        available: Bytes of one device.
        unit: What tables are shown in, ``"GB"`` or ``"GiB"``.
        wanted: The layout that is asked about.
        checkpointing: How its blocks are computed again.

    Example:
        >>> found = plan("70B", gpus=8, memory="80 GB")
        >>> found.fits, found.wanted_memory.persistent // 10**9
        (False, 140)
    """

    job: Job
    gpus: int
    gpus_per_node: int
    available: int
    unit: str
    wanted: Layout
    checkpointing: str | int

    @property
    def modes(self) -> tuple[str | int, ...]:
        """Ways of checkpointing that are shown."""
        return MODES if self.checkpointing in MODES else (*MODES, self.checkpointing)

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """What is shown, the wanted one among them."""
        found = layouts(self.job.network, gpus=self.gpus, gpus_per_node=self.gpus_per_node)
        return tuple(dict.fromkeys([*found, self.wanted]))

    def memory(self, layout: Layout, checkpointing: str | int | None = None) -> Memory:
        """Bytes under any layout.

        Args:
            layout: Who shares what.
            checkpointing: By default the plan's own.
        """
        return memory(self.job, layout, checkpointing=self.checkpointing if checkpointing is None else checkpointing)

    @property
    def wanted_memory(self) -> Memory:
        """Bytes of the wanted layout."""
        return self.memory(self.wanted)

    @property
    def fits(self) -> bool:
        """Whether the wanted layout's peak is at most one device's memory."""
        return self.wanted_memory.peak <= self.available

    @property
    def cluster(self) -> Layout | None:
        """The layout by topology: tensor parallelism inside a node, pipeline across nodes, data parallelism outside."""
        return cluster_layout(
            self.job,
            gpus=self.gpus,
            gpus_per_node=self.gpus_per_node,
            available=self.available,
            checkpointing=self.checkpointing,
        )

    @property
    def advice(self) -> str:
        """The smallest change that makes the wanted layout fit, or that it does."""
        return advise(
            self.job,
            self.wanted,
            self.checkpointing,
            available=self.available,
            gpus_per_node=self.gpus_per_node,
            unit=self.unit,
        )

    @property
    def tables(self) -> tuple[Grid, Grid]:
        """Bytes by component, and peaks by checkpointing."""
        return (
            by_component(self.layouts, self.memory, self.available, self.unit, self.checkpointing),
            by_mode(self.layouts, self.memory, self.available, self.unit, self.modes, self.job.accumulate),
        )

    @property
    def title(self) -> str:
        """What is planned, in one line."""
        job, network = self.job, self.job.network
        devices = f"{self.gpus:,} x {shown(self.available, self.unit)} {self.unit}"
        return (
            f"{network.name}, {shown_count(network.size)} parameters, on {devices}\n"
            f"sequence {job.sequence:,}, micro-batch {job.micro_batch}, accumulate {job.accumulate}, {job.optimizer}, "
            f"{job.precision}"
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """How to read the tables."""
        assumed = self.job.network.assumed
        return (
            "1 GiB = 2**30 bytes." if self.unit == "GiB" else "1 GB = 10**9 bytes; 1 GiB would be 1.074 GB.",
            "Each component at its own most; the peak is the most at one time.",
            *([f"Assumed: {assumed}."] if assumed else []),
            *([TENSOR] if any(layout.tensor > 1 for layout in self.layouts) else []),
            *([HOST] if any(layout.offloads for layout in self.layouts) else []),
            *self._host,
        )

    @property
    def _host(self) -> tuple[str, ...]:
        """What offloading puts on the host, where it is wanted."""
        total = self.wanted_memory.host.total
        if not total:
            return ()
        node = min(self.gpus, self.gpus_per_node)
        return (
            f"On the host: {shown(total, self.unit)} {self.unit} for each device, {shown(node * total, self.unit)} "
            f"{self.unit} in a node.",
        )

    def __str__(self) -> str:
        grids = "\n\n".join(as_text(grid) for grid in self.tables)
        words = [*self.advice.splitlines(), *self.topology]
        return "\n".join([self.title, "", grids, "", *self.notes, "", *(fill(line, 80) for line in words)])

    @property
    def topology(self) -> tuple[str, ...]:
        """The cluster's layout in words, if there is more than one device."""
        if self.gpus == 1:
            return ()
        found = self.cluster
        if found is None:
            return ("By topology: no product of TP in a node, PP across and ZeRO-1 outside fits.",)
        peak = self.memory(found).peak
        words = [
            *([f"TP {found.tensor} inside a node"] if found.tensor > 1 else []),
            *([f"PP {found.pipeline} across"] if found.pipeline > 1 else []),
            *([f"ZeRO-1 over {found.data:,} outside"] if found.data > 1 else []),
        ]
        return (f"By topology: {', '.join(words)}: {shown(peak, self.unit)} {self.unit}.",)


def plan(
    model: Any,
    *,
    gpus: int = 8,
    memory: int | str = "80 GB",
    strategy: str | None = None,
    tensor: int = 1,
    pipeline: int = 1,
    checkpointing: str | int = "none",
    sequence: int = 2048,
    micro_batch: int = 1,
    accumulate: int = 1,
    optimizer: str = "adamw",
    precision: str = "bf16",
    gpus_per_node: int = 8,
    activations: int | str | None = None,
    tensor_parallel_plan: Mapping[str, str] | None = None,
) -> Plan:
    """Say before the run whether it fits, and if not, what to change.

    Args:
        model: A size (``"70B"``), a published model (``"llama-2-7b"``), a ``Transformer``, a Hugging Face
            configuration, or a module (read by shapes; the meta device will do).
        gpus: Devices in all, >= 1.
        memory: What one device has to give: bytes, or a text as ``"80 GB"`` (10**9) or ``"79.1 GiB"`` (2**30). What the
            driver and the context take is not subtracted.
        strategy: The one wanted: ``"single"``, ``"ddp"``, ``"zero1"``, ``"zero2"``, ``"zero3"``, ``"fsdp"`` (FSDP1) or
            ``"fsdp2"``, ``"hybrid"`` (FSDP2 inside each node), ``"zero2_offload"``, ``"zero3_offload"`` or
            ``"fsdp2_offload"`` (``cpu_offload=True``); by default ``"fsdp2"`` on several devices.
        tensor: Wanted tensor-parallel ranks, a divisor of ``gpus``; with ``"fsdp2"`` the presets ``tp`` (all devices)
            and ``fsdp2_tp``.
        pipeline: Wanted pipeline stages; ``tensor * pipeline`` divides ``gpus``.
        checkpointing: Wanted: ``"none"``, ``"selective"``, ``"attention"``, ``"sqrt"``, ``"every_block"``, or N for
            every N-th block.
        sequence: Tokens of a sequence, >= 1.
        micro_batch: Sequences of a micro-batch on a data-parallel rank, >= 1.
        accumulate: Micro-batches to an update, >= 1.
        optimizer: ``"sgd"``, ``"momentum"``, ``"lion"``, ``"adamw"``, ``"adamw_fused"``, ``"adamw_8bit"``,
            ``"adafactor"`` or ``"adafactor_momentum"``.
        precision: ``"fp32"``, ``"bf16"``, ``"fp16"``, ``"bf16_master"`` or ``"bf16_pure"``.
        gpus_per_node: Devices of one node, >= 1: tensor parallelism stays inside.
        activations: What the blocks keep for one micro-batch, for modules whose blocks are no transformer blocks.
        tensor_parallel_plan: What tensor parallelism splits of a module, as the preset takes it.

    Raises:
        ValueError: If a value is out of range or unknown, or degrees do not divide the devices or the model.
        TypeError: If ``model`` is nothing that can be read.

    Example:
        >>> print(plan("llama-2-7b", gpus=8, checkpointing="selective").advice)
        FSDP2 with checkpointing 'selective' fits: peak 18.5 of 80.0 GB.
    """
    for name, value in (("gpus", gpus), ("gpus_per_node", gpus_per_node), ("tensor", tensor), ("pipeline", pipeline)):
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} must be a whole number >= 1, got {value!r}.")
    check_mode(checkpointing, strategy=strategy if isinstance(strategy, str) else "")
    network = network_of(model, tensor_parallel_plan=tensor_parallel_plan)
    given = None if activations is None else parse_bytes(activations, name="activations")
    job = Job(network, sequence, micro_batch, accumulate, optimizer, precision, activations=given)
    wanted = _wanted(strategy, gpus, tensor, pipeline, gpus_per_node)
    check_tensor(network, tensor)
    network.stages(pipeline)
    return Plan(job, gpus, gpus_per_node, parse_bytes(memory), unit_of(memory), wanted, checkpointing)


def _wanted(strategy: str | None, gpus: int, tensor: int, pipeline: int, gpus_per_node: int) -> Layout:
    """The layout that takes all devices."""
    if strategy is not None:
        check_strategy(strategy)
    data, rest = divmod(gpus, tensor * pipeline)
    if rest or not data:
        raise ValueError(f"tensor * pipeline must divide gpus ({gpus}), got {tensor} * {pipeline}.")
    if strategy == "hybrid" and gpus > 1:
        if tensor * pipeline > 1:
            raise ValueError(
                f"strategy 'hybrid' takes no tensor or pipeline parallelism, got tensor={tensor}, pipeline={pipeline}: "
                "drop them, or use strategy='fsdp2'."
            )
        return hybrid(gpus, gpus_per_node=gpus_per_node)
    if strategy == "single" or (gpus == 1 and not (strategy or "").endswith("_offload")):
        if tensor * pipeline > 1:
            raise ValueError(f"strategy 'single' is one device, got tensor={tensor}, pipeline={pipeline}.")
        return Layout("single")
    return Layout(strategy or "fsdp2", data=data, tensor=tensor, pipeline=pipeline)
