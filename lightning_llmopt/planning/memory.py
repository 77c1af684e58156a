"""Bytes of a run on the device that needs most, component by component, and their peak."""

from dataclasses import dataclass, fields, replace

from ._shards import NOTHING, Held, held, split_unit
from .activations import ONE_BY_ONE, Kept, check_mode, kept
from .layouts import LIKE_FSDP2, Layout, check_tensor
from .network import Network, Unit, Widths, most_common_side
from .optimizers import Optimizer, optimizer_of
from .precisions import Precision, precision_of

ZERO_BUCKET = 5_000_000  # numbers: our presets let DeepSpeed reduce so many at once, or the width squared if more
ZERO3_LIVE = 1_000_000_000  # numbers: stage3_max_live_parameters and stage3_max_reuse_distance of DeepSpeed


@dataclass(frozen=True)
class Job:
    """What is trained, apart from who shares what.

    Args:
        network: The model.
        sequence: Tokens of a sequence, >= 1.
        micro_batch: Sequences of a micro-batch on a data-parallel rank, >= 1.
        accumulate: Micro-batches to an update, >= 1; the micro-batches of a pipeline too.
        optimizer: A key of ``OPTIMIZERS``.
        precision: What ``precision_of`` takes.
        activations: Bytes that the blocks of a network keep for one micro-batch, for a network whose inside is not
            known or to replace the formula; ``None`` for the formula.

    Raises:
        ValueError: If a value is out of range or unknown.
    """

    network: Network
    sequence: int = 2048
    micro_batch: int = 1
    accumulate: int = 1
    optimizer: str = "adamw"
    precision: str = "bf16"
    activations: int | None = None

    def __post_init__(self) -> None:
        for name in ("sequence", "micro_batch", "accumulate"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a whole number >= 1, got {value!r}.")
        optimizer_of(self.optimizer)
        precision_of(self.precision, "ddp")
        if self.activations is None and self.network.widths is None:
            raise ValueError(
                f"What the blocks of {self.network.name} keep for the backward pass is not known: give activations= "
                "(bytes for one micro-batch, without checkpointing), or a Transformer(...)."
            )


@dataclass(frozen=True)
class Memory:
    """Bytes on the device that needs most.

    The components are each at its own most; ``peak`` is the most at one time, so it can be less than their sum.

    Args:
        parameters: Of the parameters.
        master: Of their fp32 copies.
        gradients: Of the gradients, when all are there.
        state: Of the optimizer's state.
        activations: Kept by the blocks for the backward pass.
        logits: Of the scores and their gradient.
        communication: Of gathered parameters and of buckets.
        transient: Of what is made and dropped: cast weights, blocks computed again, a step's temporaries.
        peak: The most at one time.
        host: What stays on the host for this device, under offloading.
    """

    parameters: int
    master: int
    gradients: int
    state: int
    activations: int
    logits: int
    communication: int
    transient: int
    peak: int
    host: Held = NOTHING

    @property
    def persistent(self) -> int:
        """What stays on the device through the update: parameters, master copies, gradients, optimizer state."""
        return self.parameters + self.master + self.gradients + self.state


COMPONENTS = tuple(field.name for field in fields(Memory) if field.name not in ("peak", "host"))


def memory(job: Job, layout: Layout, *, checkpointing: str | int = "none") -> Memory:
    """Bytes of ``job`` under ``layout``, on the device that needs most.

    Args:
        job: What is trained.
        layout: Who shares what.
        checkpointing: ``"none"``, ``"selective"``, ``"sqrt"``, ``"every_block"``, or N for every N-th block.

    Raises:
        ValueError: If there are more stages than blocks, tensor parallelism does not split them evenly, or
            ``checkpointing`` is unknown or not for this strategy.

    Example:
        >>> from lightning_llmopt.planning import of_size
        >>> job = Job(of_size(70_000_000_000))
        >>> [memory(job, Layout(name, data=8)).persistent // 10**9 for name in ("ddp", "fsdp2")]
        [1120, 140]
    """
    check_mode(checkpointing, strategy=layout.strategy)
    check_tensor(job.network, layout.tensor)
    stages = job.network.stages(layout.pipeline)
    places = sorted({0, 1 if layout.pipeline > 2 else 0, layout.pipeline - 1})
    found = [_Stage(job, layout, stages[place], place).memory(checkpointing) for place in places]
    return max(found, key=lambda one: one.peak)


class _Stage:
    """One pipeline stage, or the whole network."""

    def __init__(self, job: Job, layout: Layout, blocks: tuple[Unit, ...], place: int) -> None:
        self.job, self.layout, self.count, self.place = job, layout, len(blocks), place
        self.first, self.last = place == 0, place == layout.pipeline - 1
        self.precision: Precision = precision_of(job.precision, layout.sharing)
        self.optimizer: Optimizer = optimizer_of(job.optimizer)
        self.outside = self._outside()
        self.units = [*blocks, self.outside]
        self.largest = max((split_unit(unit, layout.tensor).size for unit in blocks), default=0)
        self.root = split_unit(self.outside, layout.tensor).size
        here = [weight for unit in self.units for weight in split_unit(unit, layout.tensor).weights]
        self.numbers, self.longest = sum(one.size for one in here), max((one.size for one in here), default=0)

    def _outside(self) -> Unit:
        """What of the embedding and the head is here; a tied matrix is on both ends of a pipeline."""
        embedding, head = self.job.network.embedding.weights, self.job.network.head.weights
        copy = embedding[:1] if self.job.network.tied and self.last and not self.first else ()
        return Unit((*(embedding if self.first else ()), *copy, *(head if self.last else ())))

    def memory(self, mode: str | int) -> Memory:
        """Bytes of this stage: at the end of the forward, at the end of the backward, and in the optimizer's step."""
        job, layout = self.job, self.layout
        own, reduced, host = self._held()
        inside, activations = self._activations(mode)
        logits = inside.logits + inside.loss if self.last else 0
        casts, again = self._casts(), inside.recomputed + self._block_backward(inside)
        forward, backward, end = self._communication(own)
        step = self._step(reduced)
        early = own.gradients if job.accumulate > 1 else 0
        last_block = self._late_gradients(own, reduced) + self._one_block(inside, activations) + again + backward
        peak = own.parameters + own.master + own.state + max(
            early + activations + max(logits, again) + casts + forward,
            last_block + casts,
            reduced.gradients + self._tied() + casts + end,
            reduced.gradients + step + (end if layout.sharing == "ddp" else 0),
        )  # fmt: skip
        communication = max(forward, backward, end)
        transient = max(casts + again + self._tied(), step)
        return Memory(
            own.parameters, own.master, own.gradients, own.state, activations, logits, communication, transient, peak,
            host,
        )  # fmt: skip

    def _held(self) -> tuple[Held, Held, Held]:
        """What stays, the same once gradients are reduced, since FSDP sums them whole before, and what the host has."""
        given = (self.units, self.layout, self.precision, self.optimizer)
        leading = len(self.job.network.embedding.weights) if self.first else 0
        own, host = held(*given, accumulates=self.job.accumulate > 1, leading=leading)
        return own, held(*given, accumulates=False)[0] if self._fully_sharded else own, host

    @property
    def _fully_sharded(self) -> bool:
        return self.layout.sharing in ("fsdp", *LIKE_FSDP2)

    def _activations(self, mode: str | int) -> tuple[Kept, int]:
        """For one micro-batch, and what is kept in all: several micro-batches are under way in a pipeline.

        A network without blocks has nothing that could be computed again, and counts as one.
        """
        job, layout = self.job, self.layout
        tokens = job.sequence * job.micro_batch
        layers = len(job.network.blocks)
        mode, count = (mode, self.count) if layers else ("none", 1)
        widths = job.network.widths or Widths(0, 0, 0, 0, 0, vocabulary=0, gated=False, norm="layer")
        inside = kept(
            widths, self.precision, tokens=tokens, sequence=job.sequence, mode=mode, layers=layers, tensor=layout.tensor
        )
        if job.activations is not None:
            after = inside.after if job.network.widths else 0
            inside = replace(_given(inside, job.activations / max(1, layers), mode), after=after)
        under_way = min(job.accumulate, layout.pipeline - self.place)
        return inside, under_way * inside.blocks(count) + (inside.after if self.last else 0)

    def _one_block(self, inside: Kept, activations: int) -> int:
        """Kept for the block whose gradients come last; a pipeline's other micro-batches are done by then."""
        return min(activations, inside.blocks(1))

    def _block_backward(self, inside: Kept) -> int:
        """Gradients on their way through a block: of the stream, and of its widest part while that is still kept."""
        widths = self.job.network.widths
        if widths is None:
            return 0
        tokens = self.job.sequence * self.job.micro_batch
        wide = max((2 if widths.gated else 1) * widths.ffn, widths.attention + 2 * widths.kv)
        return 2 * inside.stream + tokens * self.precision.compute * wide // self.layout.tensor

    def _casts(self) -> int:
        """Copies of matrices, not of tables, that autocast keeps from the forward to the end of the backward."""
        if not self.precision.casts:
            return 0
        parts = [split_unit(unit, self.layout.tensor) for unit in self.units[:-1]]
        matrices = [weight for unit in parts for weight in unit.weights if len(weight.shape) > 1]
        widths = self.job.network.widths
        output = widths.vocabulary * widths.width if self.last and widths else 0
        return self.precision.compute * (sum(one.size for one in matrices) + output)

    def _tied(self) -> int:
        """A tied matrix has two gradients more for a moment: the output's, the embedding's and their sum."""
        network = self.job.network
        if not (network.tied and self.first and self.last and network.embedding.weights):
            return 0
        table = split_unit(network.embedding, self.layout.tensor).weights[0]
        return 2 * self.precision.gradient * table.size if table.trainable else 0

    def _late_gradients(self, own: Held, reduced: Held) -> int:
        """Gradients that are there while the first block is under way: under FSDP not yet its own, nor the root's."""
        if self.layout.shards == 1 or not self._fully_sharded:
            return own.gradients
        late = self.largest + self.root
        sums = self.precision.reduce * late if own.gradients > reduced.gradients else 0  # of earlier micro-batches
        return max(0, reduced.gradients - late // self.layout.shards * self.precision.gradient) + sums

    def _communication(self, own: Held) -> tuple[int, int, int]:
        """At the end of the forward, while a block's backward is under way, and at the end of the backward."""
        layout, precision = self.layout, self.precision
        tokens = self.job.sequence * self.job.micro_batch
        stream = tokens * self.job.network.widths.width * precision.residual if self.job.network.widths else 0
        between = 2 * stream * ((layout.tensor > 1) + (layout.pipeline > 1))
        if layout.sharing == "ddp" and layout.data == 1:
            return between, between, between
        if self._fully_sharded:
            block, root = precision.compute * self.largest, precision.compute * self.root
            share = 1 + precision.reduce / precision.compute  # its gradients, and the buffer that is reduced
            moments = (root + block, root + 2 * block + share * block, root + share * root)
            return tuple(between + round(one) for one in moments)  # type: ignore[return-value]  # three of three
        buckets = between + self._buckets(own)
        return buckets, buckets, buckets

    def _buckets(self, own: Held) -> int:
        """Of DDP as large as the gradients, of ZeRO as large as its configuration says."""
        sharing, precision = self.layout.sharing, self.precision
        if sharing == "ddp":
            return own.gradients
        bucket = max(self._width() ** 2, ZERO_BUCKET)
        if sharing.startswith("zero3"):  # one bucket, of what is sent, and gathered parameters
            return 4 * bucket + min(ZERO3_LIVE, self.numbers) * precision.parameter
        staged = precision.gradient if sharing == "zero1" else precision.compute
        sent = 4 * bucket if staged < 4 else 0
        own_copy = precision.compute * self.longest if self.layout.offloads else 0  # on its way to the host
        return 2 * staged * bucket + sent + own_copy  # two, since one is sent while the other is filled

    def _step(self, own: Held) -> int:
        """Copies of parameters that the step makes, and DeepSpeed's fp32 copy of the gradients it updates with."""
        if self.layout.offloads:
            return 0
        numbers = self._trained_here(own)
        zero = self.layout.sharing.startswith("zero")
        return self.optimizer.step * self.precision.state * numbers + (4 * numbers if zero else 0)

    def _width(self) -> int:
        """As the presets find it."""
        network = self.job.network
        if network.scaled and network.widths:
            return network.widths.width
        return most_common_side(weight for unit in network.units for weight in unit.weights)

    def _trained_here(self, own: Held) -> int:
        if self.precision.master:
            return own.master // self.precision.master
        return own.gradients // self.precision.gradient


def _given(inside: Kept, block: float, mode: str | int) -> Kept:
    """The same with another size of a block; what is kept of one that is computed again keeps its share.

    Of blocks whose inside is not known, computing parts again is taken to save nothing.
    """
    unknown = 1.0 if mode in ONE_BY_ONE else 0.0
    share = inside.short / inside.whole if inside.whole else unknown
    return replace(inside, whole=block, short=share * block)
