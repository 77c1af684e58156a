"""Bytes that a real fit keeps on rank 0, counted tensor by tensor, and what the plan says of the same fit."""

import tempfile
import warnings
from dataclasses import dataclass, field

import torch
from lightning.pytorch import Callback
from torch.distributed.fsdp import FSDPModule
from torch.optim import AdamW

from lightning_llmopt.planning import Job, Layout, Memory, memory
from lightning_llmopt.planning.reading import network_of
from lightning_llmopt.selftest._fits import Subject, loader, quiet_trainer
from lightning_llmopt.selftest._models import MODELS
from lightning_llmopt.strategies import preset

from curves import Llama, arguments, batches
from ranks import on_ranks

KINDS = ("parameters", "master", "gradients", "state")
PLANS = {
    "GPT": {"model.blocks.*.up": "colwise", "model.blocks.*.down": "rowwise"},
    "TransformerEncoder": {
        "model.encoder.layers.*.linear1": "colwise", "model.encoder.layers.*.linear2": "rowwise",
        "model.token": "colwise_gather_output",
    },
    "Llama": None,
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A preset on some ranks, and the layout that the plan has for it."""

    preset: str
    layout: Layout
    options: dict = field(default_factory=dict)

    @property
    def same_data(self):
        return self.layout.tensor


PLACES = {
    "ddp": Place("ddp", Layout("ddp", data=2)),
    "fsdp": Place("fsdp", Layout("fsdp", data=2)),
    "fsdp2": Place("fsdp2", Layout("fsdp2", data=2)),
    "fsdp2, 4 ranks": Place("fsdp2", Layout("fsdp2", data=4)),
    "fsdp2, cpu_offload": Place("fsdp2", Layout("fsdp2_offload", data=2), {"cpu_offload": True}),
    "hybrid": Place("hybrid", Layout("hybrid", data=4, copies=2)),
    "tp": Place("tp", Layout("fsdp2", tensor=2)),
    "fsdp2_tp": Place("fsdp2_tp", Layout("fsdp2", data=2, tensor=2)),
    "zero1": Place("zero1", Layout("zero1", data=2)),
    "zero2": Place("zero2", Layout("zero2", data=2)),
    "zero3": Place("zero3", Layout("zero3", data=2)),
    "zero2_offload": Place("zero2_offload", Layout("zero2_offload", data=2)),
    "zero3_offload": Place("zero3_offload", Layout("zero3_offload", data=2)),
}
SIZES = {
    name: sum(weight.size for unit in network_of(make()).units for weight in unit.weights)
    for name, make in MODELS.items()
}
PRECISIONS = ("fp32", "bf16", "bf16_pure")
ALONE = ("fp32", "bf16", "bf16_pure", "fp16")


def subject(name):
    """One of the models, without a trained parameter that never has a gradient."""
    model = MODELS[name]()
    for parameter in getattr(model, "unused", torch.nn.Identity()).parameters():
        parameter.requires_grad_(False)
    return model


class Adam(Subject):
    """A model of the self-test with AdamW."""

    def __init__(self, name):
        super().__init__(name)
        self.model = subject(name)

    def configure_optimizers(self):
        return AdamW([parameter for parameter in self.parameters() if parameter.requires_grad], lr=1e-3)


class HostAdam(Adam):
    """The same with DeepSpeed's C++ optimizer, which steps on the host."""

    def configure_optimizers(self):
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        return DeepSpeedCPUAdam([parameter for parameter in self.parameters() if parameter.requires_grad], lr=1e-3)


def module(name, *, on_host=False):
    """What is trained."""
    return Llama() if name == "Llama" else (HostAdam if on_host else Adam)(name)


class Count(Callback):
    """Bytes of each kind: gradients at their most, the rest at the last update, each storage once."""

    def __init__(self):
        self.bytes, self.buckets = {"gradients": 0}, 0

    def on_after_backward(self, trainer, pl_module):
        gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
        gradients += sums_of_fsdp2(pl_module)
        self.bytes["gradients"] = max(self.bytes["gradients"], storages(gradients))

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        states = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
        states = [value for value in states if value.ndim]
        zero = trainer.strategy.model.optimizer if hasattr(optimizer, "averaged_gradients") else None
        self.bytes |= {"parameters": storages(pl_module.parameters()), "state": elements(states), "master": 0}
        if zero is not None:
            self.bytes["gradients"] = max(self.bytes["gradients"], elements(gradients_of_zero(zero)))
            flat = getattr(zero, "single_partition_of_fp32_groups", None) or zero.fp32_partitioned_groups_flat
            self.bytes["master"] = elements(flat)
            parts = [one.ds_tensor for one in pl_module.parameters() if hasattr(one, "ds_tensor")]
            self.bytes["parameters"] += elements(parts)  # small ones are whole beside their parts
            self.note_buckets(zero)

    def on_before_backward(self, trainer, pl_module, loss):
        """ZeRO-1 and 2 make their buckets in the backward pass, and drop them at its end."""
        zero = getattr(trainer.strategy.model, "optimizer", None)
        if not hasattr(zero, "setup_buckets") or "setup_buckets" in vars(zero):
            return
        setup = zero.setup_buckets

        def noting():
            setup()
            self.note_buckets(zero)

        zero.setup_buckets = noting

    def note_buckets(self, zero):
        found = [bucket.buffer for bucket in zero.ipg_buckets.values()]
        flat = [one for buffer in found for one in (buffer if isinstance(buffer, list) else [buffer])]
        self.buckets = max(self.buckets, storages(flat))


def gradients_of_zero(zero):
    """What DeepSpeed keeps of gradients, on the device or on the host."""
    if not getattr(zero, "cpu_offload", False) and not getattr(zero, "offload_optimizer", False):
        return [part for group in zero.averaged_gradients.values() for part in group or ()]
    on_device = [group.flat_partition for group in zero.averaged_gradients.values() if hasattr(group, "flat_partition")]
    if hasattr(zero, "grad_partitions_flat_buffer"):
        return [zero.grad_partitions_flat_buffer, *(one.grad for one in zero.fp32_partitioned_groups_flat)]
    for_step = [one.grad for one in zero.single_partition_of_fp32_groups]
    return [*on_device, *for_step, *zero.accumulated_grads_in_cpu.values()]


def sums_of_fsdp2(module):
    """Gradients that are not reduced before the last micro-batch, whole."""
    states = [part._get_fsdp_state() for part in module.modules() if isinstance(part, FSDPModule)]
    kept = [one for state in states for group in state._fsdp_param_groups for one in group.fsdp_params]
    plain = [getattr(getattr(one, "_unsharded_param", None), "grad", None) for one in kept]
    return [one for one in [*plain, *(one.unsharded_accumulated_grad for one in kept)] if one is not None]


def local(tensor):
    return getattr(tensor, "_local_tensor", tensor).detach()


def elements(tensors):
    return sum(local(tensor).numel() * tensor.element_size() for tensor in tensors)


def storages(tensors):
    found = {local(tensor).untyped_storage().data_ptr(): local(tensor) for tensor in tensors}
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


def fit(model, *, rank=0, ranks=1, same_data=1, accumulate=1, on_host=False, **given):
    """What a fit of two updates keeps on this rank."""
    count, split = Count(), (rank // same_data, ranks // same_data)
    run = quiet_trainer(
        tempfile.mkdtemp(), [count], devices=ranks, accumulate_grad_batches=accumulate,
        use_distributed_sampler=False, max_steps=2, **given,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.fit(module(model, on_host=on_host), batches(*split) if model == "Llama" else loader(*split))
    return count


def alone(name, model, accumulate):
    """Counted bytes of one process."""
    return fit(model, accumulate=accumulate, **preset(name)).bytes


def shared(name, model, precisions=PRECISIONS, *, on_host=False):
    """Counted bytes of rank 0 for each precision with and without accumulation; ``on_host`` with the C++ optimizer."""
    place = PLACES[name]
    ranks = place.layout.gpus

    def on_rank(rank):
        found = {}
        for precision in precisions:
            for accumulate in (1, 2):
                curves_name = model if model == "Llama" else "GPT"
                given = arguments(place.preset, curves_name, precision=precision, **place.options)
                if place.layout.tensor > 1:
                    given["strategy"].plan = PLANS[model]
                if on_host:
                    given["strategy"].wanted["zero_force_ds_cpu_optimizer"] = True
                settings = {"rank": rank, "ranks": ranks, "same_data": place.same_data, "accumulate": accumulate}
                settings["on_host"] = on_host
                found[precision, accumulate] = fit(model, **settings, **given).bytes
        return found

    return on_ranks(ranks, on_rank)[0]


def planned(layout, model, precision, accumulate) -> Memory:
    """The plan's words on the same fit."""
    plan = PLANS[model] if layout.tensor > 1 else None
    network = network_of(module(model), tensor_parallel_plan=plan)
    job = Job(network, sequence=8, micro_batch=4, accumulate=accumulate, precision=precision)
    return memory(job, layout)


def by_kind(found: Memory, layout: Layout):
    """Bytes of each kind; of FSDP2's gradients, whole on the device first and parts on the host then, the larger."""
    both = {kind: getattr(found, kind) + getattr(found.host, kind) for kind in KINDS}
    if layout.strategy == "fsdp2_offload":
        both["gradients"] = max(found.gradients, found.host.gradients)
    return both


def row(name, found):
    """A line of the table in docs/plan.md: what was counted of the GPT in bf16, two micro-batches to an update."""
    layout = PLACES[name].layout
    planned_here = planned(layout, "GPT", "bf16", 2)
    cells = [f"{found[kind]:,}" for kind in KINDS]
    said = by_kind(planned_here, layout)
    host = sum(getattr(planned_here.host, kind) for kind in KINDS)
    counted, promised = sum(found.values()), sum(said.values())
    return f"| `{name}` | {layout.gpus} | {' | '.join(cells)} | {counted:,} | {promised:,} | {host:,} |"
