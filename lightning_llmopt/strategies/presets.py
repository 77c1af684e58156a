"""Trainer arguments by name."""

import inspect
from typing import Any

from .._lightning import StrategyRegistry
from ..schedules.nearest import did_you_mean
from .ddp import DDP
from .fsdp import FSDP1
from .fsdp2 import FSDP2
from .one_device import OneDevice
from .precision import FP8, FP16, PRECISIONS, refuse_fp8_without_hardware
from .table import Preset, Presets
from .zero import ZeRO

PREFIX = "llmopt_"
_CARDS = "as many GPUs as you have"
_BIG = "several GPUs; blocks that `find_blocks` finds, or their names"
_ALL = "parameters, gradients, optimizer state"
_TP = {"tensor_parallel_size": "all"}

PRESETS = {
    row.name: row
    for row in (
        Preset("fp32", "nothing", "where bf16 is slow, and to compare with", "one device", OneDevice, {}),
        Preset("bf16", "nothing", "the default", "a GPU since Ampere, or a CPU with bf16", OneDevice, {}),
        Preset("bf16_pure", "nothing", "weights in bf16 too: half the memory, rounded", "as bf16", OneDevice, {}),
        Preset("fp16", "nothing", "GPUs before Ampere; the loss is scaled", "one device", OneDevice, {}),
        Preset("fp8", "nothing", "wide layers on new GPUs", "compute capability 8.9, torchao", OneDevice, {}),
        Preset("ddp", "nothing", "the model and its optimizer fit on one GPU", _CARDS, DDP, {}),
        Preset("fsdp", _ALL, "checkpoints and machines that have FSDP1", _BIG, FSDP1, {}),
        Preset("fsdp2", _ALL, "the model does not fit on one GPU", _BIG, FSDP2, {}),
        Preset("hybrid", f"{_ALL}, in each node", "slow links between nodes", _BIG, FSDP2, {"shard_size": "node"}),
        Preset("tp", "layers", "layers too wide for one GPU, fast links", "a plan", FSDP2, _TP),
        Preset("fsdp2_tp", f"layers; then {_ALL}", "both", "a plan, 4 GPUs", FSDP2, {"tensor_parallel_size": 2}),
        Preset("zero1", "optimizer state", "the optimizer is what does not fit", "deepspeed", ZeRO, {"stage": 1}),
        Preset("zero2", "gradients, optimizer state", "so do gradients", "deepspeed", ZeRO, {"stage": 2}),
        Preset("zero3", _ALL, "as fsdp2, where DeepSpeed is at home", "deepspeed", ZeRO, {"stage": 3}),
        Preset(
            "zero2_offload", "gradients, optimizer state", "few GPUs, much host memory",
            "deepspeed and a C++ compiler", ZeRO, {"stage": 2, "offload_optimizer": True},
        ),
        Preset(
            "zero3_offload", _ALL, "the largest model on few GPUs", "deepspeed and a C++ compiler", ZeRO,
            {"stage": 3, "offload_optimizer": True, "offload_parameters": True},
        ),
    )
}  # fmt: skip


def presets() -> Presets:
    """All presets as a table: what is sharded, when to use which, what it needs.

    Example:
        >>> presets()["zero2"].shards
        'gradients, optimizer state'
        >>> print(presets())
        name           sharded ...
    """
    return Presets(tuple(PRESETS.values()))


def preset(
    name: str, *, precision: str | None = None, checkpointing: str | int = "none", **options: Any
) -> dict[str, Any]:
    """Arguments for ``Trainer(...)`` that say on what to run; ``presets()`` lists the names.

    The number of devices and of nodes is left to the Trainer. Without options the strategy is a name, which
    ``Trainer(strategy="llmopt_fsdp2")`` and YAML take too; there the Trainer's own ``precision`` counts.

    Args:
        name: A preset.
        precision: ``"fp32"``, ``"bf16"``, ``"bf16_pure"``, ``"fp16"`` or ``"fp8"``; where the name does not say it.
            None is bf16.
        checkpointing: Activation checkpointing of the blocks, as ``strategies.checkpointing`` takes it.
        **options: Arguments of the preset's strategy: ``DDP``, ``FSDP1``, ``FSDP2`` or ``ZeRO``.

    Returns:
        A plain dict of Trainer arguments, yours to change. A strategy in it is for one Trainer.

    Raises:
        ValueError: If a name or value is unknown, an option is none of the strategy's, or ``precision`` contradicts
            ``name``.
        MisconfigurationException: For fp8 where the hardware or torchao is missing, and ZeRO without DeepSpeed.

    Example:
        >>> preset("bf16")
        {'precision': 'bf16-mixed'}
        >>> preset("fsdp2")
        {'strategy': 'llmopt_fsdp2', 'precision': 'bf16-mixed'}
        >>> type(preset("fsdp2", cpu_offload=True)["strategy"]).__name__
        'FSDP2'
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(f"preset must be one of {list(PRESETS)}, got {name!r}.{did_you_mean(name, PRESETS)}")
    if precision is not None and (not isinstance(precision, str) or precision not in PRECISIONS):
        raise ValueError(
            f"precision must be one of {list(PRECISIONS)}, got {precision!r}.{did_you_mean(precision, PRECISIONS)}"
        )
    _refuse_unknown_options(name, options)
    if name in PRECISIONS:
        return _one_device(name, precision, checkpointing)
    row = PRESETS[name]
    numbers = _numbers(name, precision or "bf16")
    if not options and checkpointing == "none":
        return {"strategy": f"{PREFIX}{name}", **numbers}
    return {"strategy": row.strategy(**{**row.settings, **options}, checkpointing=checkpointing), **numbers}


def register() -> None:
    """Enter every preset as ``llmopt_<name>`` in Lightning's registry of strategies; once, at import."""
    for name, row in PRESETS.items():
        settings = {"precision": name} if name in PRECISIONS else row.settings
        StrategyRegistry.register(f"{PREFIX}{name}", row.strategy, row.when, override=True, **settings)


def _one_device(name: str, precision: str | None, checkpointing: str | int) -> dict[str, Any]:
    if precision not in (None, name):
        raise ValueError(
            f"preset {name!r} and precision={precision!r} contradict each other: "
            f"use preset({precision!r}), or leave precision out."
        )
    strategy = {} if checkpointing == "none" else {"strategy": OneDevice(checkpointing=checkpointing)}
    return {**strategy, **_plugin_or_flag(name)}


def _numbers(name: str, precision: str) -> dict[str, Any]:
    """The Trainer argument for ``precision`` under a strategy of several processes."""
    if name == "ddp":
        return _plugin_or_flag(precision)
    never = {"fp8"} | ({"fp16"} if PRESETS[name].strategy is FSDP2 else set())
    if precision in never:
        raise ValueError(
            f"preset {name!r} does not compute in {precision!r}: use precision='bf16', or preset("
            f"{'fsdp' if precision == 'fp16' else 'ddp'!r}, precision={precision!r})."
        )
    return {"precision": PRECISIONS[precision]}


def _plugin_or_flag(precision: str) -> dict[str, Any]:
    if precision == "fp16":
        return {"plugins": [FP16()]}
    if precision == "fp8":
        refuse_fp8_without_hardware()
        return {"plugins": [FP8()]}
    return {"precision": PRECISIONS[precision]}


def _refuse_unknown_options(name: str, options: dict[str, Any]) -> None:
    taken = [] if name in PRECISIONS else [*inspect.signature(PRESETS[name].strategy).parameters]
    known = [option for option in taken if option != "checkpointing"]
    for option in options:
        if option not in known:
            rule = f"takes {known}" if known else "takes no options"
            raise ValueError(f"preset {name!r} {rule}, got {option!r}.{did_you_mean(option, known)}")
