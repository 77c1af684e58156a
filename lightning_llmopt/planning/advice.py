"""The smallest change that makes a run fit, and the layout that a cluster's topology asks for."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from .activations import MODES, works
from .amounts import shown
from .layouts import STRATEGIES, Layout, pipeline_degrees, tensor_degrees
from .memory import Job, memory

SHARES_MORE = ("ddp", "zero1", "zero2", "hybrid", "fsdp2")
SHARES_ALL = ("zero3", "fsdp", "fsdp2", "zero3_offload", "fsdp2_offload")
MOST_GPUS = 65_536
MOST_PARTS = 4_096  # of a micro-batch; one with more is a slip of the pen, which must not take for ever


@dataclass(frozen=True)
class Change:
    """Another run.

    Args:
        words: What is changed, each in a few words.
        job: What is trained then.
        layout: Who shares what then.
        checkpointing: How blocks are computed again then.
    """

    words: tuple[str, ...]
    job: Job
    layout: Layout
    checkpointing: str | int


def advise(job: Job, wanted: Layout, checkpointing: str | int, *, available: int, gpus_per_node: int, unit: str) -> str:
    """Whether the wanted layout fits, and if not, the smallest change that makes it.

    Changes are tried one at a time, from what costs least: a fused step, checkpointing, a smaller micro-batch with more
    accumulation, sharing more, tensor and pipeline parallelism on the same devices, an optimizer with less state,
    weights in pure bf16, offloading; then two or three of them together. More devices are tried apart from these.

    Args:
        job: What is trained.
        wanted: Who shares what.
        checkpointing: How blocks are computed again.
        available: Bytes of one device.
        gpus_per_node: Devices of one node.
        unit: ``"GB"`` or ``"GiB"``.
    """
    found = memory(job, wanted, checkpointing=checkpointing)
    name = f"{wanted} with checkpointing {checkpointing!r}"
    if found.peak <= available:
        return f"{name} fits: peak {shown(found.peak, unit)} of {shown(available, unit)} {unit}."
    stays = (
        f", of which {shown(found.persistent, unit)} are parameters, gradients and optimizer state alone"
        if found.persistent > available
        else ""
    )
    lines = [f"{name} does not fit: peak {shown(found.peak, unit)} of {shown(available, unit)} {unit}{stays}."]
    start = Change((), job, wanted, checkpointing)
    for where, candidates in (
        ("Smallest change on these devices", _same_devices(start, gpus_per_node)),
        ("Smallest change with more devices", _more(start)),
    ):
        change = next((one for one in candidates if _peak(one) <= available), None)
        lines.append(f"{where}: {_in_words(change, unit) if change else 'none that fits'}.")
    return "\n".join(lines)


def cluster_layout(
    job: Job, *, gpus: int, gpus_per_node: int, available: int, checkpointing: str | int
) -> Layout | None:
    """Tensor parallelism inside a node, pipeline parallelism across nodes, data parallelism with ZeRO-1 outside.

    Of those that fit the one whose models take the fewest devices; of these the one with the fewest pipeline stages,
    since stages wait for each other and the links inside a node are fast.

    Args:
        job: What is trained.
        gpus: Devices in all.
        gpus_per_node: Devices of one node.
        available: Bytes of one device.
        checkpointing: How blocks are computed again.

    Returns:
        The layout, or ``None`` if none fits.

    Example:
        >>> from lightning_llmopt.planning import of_size
        >>> job = Job(of_size(175_000_000_000), accumulate=32)
        >>> room = {"available": 80 * 10**9, "checkpointing": "every_block"}
        >>> print(cluster_layout(job, gpus=1024, gpus_per_node=8, **room))
        ZeRO-1 64 x TP 8 x PP 2
    """
    tensors = tensor_degrees(job.network, limit=min(gpus, gpus_per_node))
    pipelines = pipeline_degrees(job.network, limit=gpus)
    pairs = [(t, p) for t in tensors for p in pipelines if gpus % (t * p) == 0]
    pairs.sort(key=lambda pair: (pair[0] * pair[1], pair[1]))
    for t, p in pairs:
        layout = Layout("zero1", data=gpus // (t * p), tensor=t, pipeline=p)
        if memory(job, layout, checkpointing=checkpointing).peak <= available:
            return layout
    return None


def _in_words(change: Change, unit: str) -> str:
    found = memory(change.job, change.layout, checkpointing=change.checkpointing)
    host = f", and {shown(found.host.total, unit)} {unit} a device in host memory" if change.layout.offloads else ""
    return f"{', and '.join(change.words)}: {shown(found.peak, unit)} {unit}{host}"


def _peak(change: Change) -> int:
    return memory(change.job, change.layout, checkpointing=change.checkpointing).peak


def _same_devices(start: Change, gpus_per_node: int) -> Iterator[Change]:
    """One change, two together, and three of which one costs little."""
    ones = list(_single(start, gpus_per_node))
    yield from ones
    twos = [two for one in ones for two in _single(one, gpus_per_node) if _different(two)]
    yield from twos
    yield from (three for two in twos for three in _cheap(two) if _different(three))


def _more(start: Change) -> Iterator[Change]:
    """More devices, alone or with one or two changes that cost little: the fewest devices, then the fewest changes."""
    ones = list(_cheap(start))
    twos = [two for one in ones for two in _cheap(one) if _different(two)]
    found = (more for change in (start, *ones, *twos) for more in _more_devices(change))
    yield from sorted(found, key=lambda change: (change.layout.gpus, len(change.words)))


def _different(change: Change) -> bool:
    """Whether its changes are of different kinds, as their first words say."""
    kinds = [words.split(" ")[0] for words in change.words]
    return len(set(kinds)) == len(kinds)


def _single(start: Change, gpus_per_node: int) -> Iterator[Change]:
    yield from _cheap(start)
    yield from _sharing(start)
    yield from _products(start, gpus_per_node)
    for optimizer in ("adamw_8bit", "lion"):
        if start.job.optimizer.startswith("adamw") and start.job.optimizer != optimizer:
            yield _changed(start, f"optimizer {optimizer!r}", job=replace(start.job, optimizer=optimizer))
    if start.job.precision != "bf16_pure":
        yield _changed(start, "precision 'bf16_pure'", job=replace(start.job, precision="bf16_pure"))
    if not start.layout.offloads and start.layout.pipeline == 1:
        other = replace(start.layout, strategy="fsdp2_offload", copies=1)
        yield _changed(start, f"layout {other}", layout=other)


def _cheap(start: Change) -> Iterator[Change]:
    """What changes nothing but time."""
    job = start.job
    if job.optimizer == "adamw":
        yield _changed(start, "optimizer 'adamw_fused'", job=replace(job, optimizer="adamw_fused"))
    if start.checkpointing in MODES:
        later = MODES[MODES.index(str(start.checkpointing)) + 1 :]
        for mode in (mode for mode in later if works(mode, strategy=start.layout.strategy)):
            yield _changed(start, f"checkpointing {mode!r}", checkpointing=mode)
    else:
        yield _changed(start, "checkpointing 'every_block'", checkpointing="every_block")
    for parts in (n for n in range(2, min(job.micro_batch, MOST_PARTS) + 1) if job.micro_batch % n == 0):
        size, more = job.micro_batch // parts, job.accumulate * parts
        words = f"micro-batch {size} with accumulate {more}"
        yield _changed(start, words, job=replace(job, micro_batch=size, accumulate=more))


def _sharing(start: Change) -> Iterator[Change]:
    layout = start.layout
    if layout.data > 1 and layout.strategy in SHARES_MORE:
        for strategy in SHARES_MORE[SHARES_MORE.index(layout.strategy) + 1 :]:
            if strategy == "hybrid":  # the same as FSDP2 where there is one node, and needs to know the nodes
                continue
            other = replace(layout, strategy=strategy, copies=1)
            words = f"layout {STRATEGIES[strategy]} instead of {STRATEGIES[layout.strategy]}"
            yield _changed(start, words, layout=other)


def _products(start: Change, gpus_per_node: int) -> Iterator[Change]:
    """The same devices in other products, tensor parallelism first."""
    layout = start.layout
    gpus = layout.gpus
    network = start.job.network
    tensors = [t for t in tensor_degrees(network, limit=min(gpus, gpus_per_node)) if t >= layout.tensor]
    pipelines = [p for p in pipeline_degrees(network, limit=gpus) if p >= layout.pipeline]
    strategy = {"single": "ddp", "hybrid": "fsdp2"}.get(layout.strategy, layout.strategy)
    pairs = sorted((p, t) for p in pipelines for t in tensors if gpus % (t * p) == 0)
    for p, t in pairs:
        if (t, p) != (layout.tensor, layout.pipeline):
            other = Layout(strategy, data=gpus // (t * p), tensor=t, pipeline=p)
            yield _changed(start, f"layout {other}", layout=other)


def _more_devices(start: Change) -> Iterator[Change]:
    """Twice, four times, ... as many data-parallel ranks that share the parameters."""
    layout = start.layout
    shares = layout.strategy if layout.strategy in SHARES_ALL else "fsdp2"
    data = layout.data
    while data * 2 * layout.model_ranks <= MOST_GPUS:
        data *= 2
        other = replace(layout, strategy=shares, data=data, copies=1)
        yield _changed(start, f"{other.gpus:,} devices ({other})", layout=other)


def _changed(
    start: Change, words: str, *, job: Job | None = None, layout: Layout | None = None, checkpointing: str | None = None
) -> Change:
    return Change((*start.words, words), job or start.job, layout or start.layout, checkpointing or start.checkpointing)
