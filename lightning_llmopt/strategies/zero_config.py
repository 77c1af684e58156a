"""Complete DeepSpeed configurations: every ``"auto"`` becomes a number of this run."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

AUTO = "auto"
BUCKET, PERSISTENT_WIDTHS, PREFETCH = 5_000_000, 10, 0.9


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a configuration has to know of a run.

    Attributes:
        micro_batch: Samples a process sees at once.
        accumulate: Micro-batches to an update.
        processes: Number of data-parallel processes.
        clip: Bound of the gradient's norm; 0 for none.
        precision: As the Trainer calls it.
        width: The model's width: the most common side of its matrices.
    """

    micro_batch: int
    accumulate: int
    processes: int
    clip: float
    precision: str
    width: int


def default_config(*, stage: int, offload_optimizer: bool = False, offload_parameters: bool = False) -> dict[str, Any]:
    """A configuration with everything said that has a choice; ``"auto"`` where the run decides.

    Reductions are fp32 in every precision, and so are sums over micro-batches, except for stage 1 in bf16, where
    DeepSpeed has another optimizer for that, whose gradients no callback can reach.

    Args:
        stage: 1 shards optimizer state, 2 gradients too, 3 parameters too.
        offload_optimizer: Keep optimizer state and its update in the memory of the host.
        offload_parameters: Keep parameters there; stage 3 only.

    Raises:
        ValueError: If ``stage`` is not 1, 2 or 3, or does not shard what is to be offloaded.

    Example:
        >>> default_config(stage=2)["zero_optimization"]["stage"]
        2
    """
    if type(stage) is not int or stage not in (1, 2, 3):
        raise ValueError(f"stage must be 1, 2 or 3, got {stage!r}.")
    if offload_parameters and stage != 3:
        raise ValueError(
            f"offload_parameters needs stage 3, which alone shards them, got stage {stage}: use stage=3, or offload "
            "the optimizer only."
        )
    zero: dict[str, Any] = {
        "stage": stage,
        "overlap_comm": True,
        "contiguous_gradients": True,
        "reduce_scatter": True,
        "reduce_bucket_size": AUTO,
        "allgather_bucket_size": AUTO,
    }
    if stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": AUTO,
            "stage3_param_persistence_threshold": AUTO,
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    if offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if offload_parameters:
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    return {
        "train_batch_size": AUTO,
        "train_micro_batch_size_per_gpu": AUTO,
        "gradient_accumulation_steps": AUTO,
        "gradient_clipping": AUTO,
        "bf16": {"enabled": AUTO},
        "fp16": {"enabled": AUTO, "loss_scale": 0, "initial_scale_power": 16, "loss_scale_window": 1000},
        "communication_data_type": "fp32",
        "data_types": {"grad_accum_dtype": AUTO},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": True,
        "zero_optimization": zero,
    }


def completed(config: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """``config`` with a value of ``run`` for every ``"auto"``, as a new dict.

    Raises:
        ValueError: If there is an ``"auto"`` that nothing of a run answers.

    Example:
        >>> run = Run(micro_batch=4, accumulate=2, processes=8, clip=1.0, precision="bf16-mixed", width=512)
        >>> completed({"train_batch_size": "auto", "bf16": {"enabled": "auto"}}, run)
        {'train_batch_size': 64, 'bf16': {'enabled': True}}
    """
    stage = config.get("zero_optimization", {}).get("stage")
    brain = run.precision.startswith("bf16")
    answers = {
        "data_types.grad_accum_dtype": "bf16" if brain and stage == 1 else "fp32",
        "train_batch_size": run.micro_batch * run.accumulate * run.processes,
        "train_micro_batch_size_per_gpu": run.micro_batch,
        "gradient_accumulation_steps": run.accumulate,
        "gradient_clipping": run.clip,
        "bf16.enabled": brain,
        "fp16.enabled": run.precision.startswith("16"),
        "zero_optimization.reduce_bucket_size": max(run.width**2, BUCKET),
        "zero_optimization.allgather_bucket_size": max(run.width**2, BUCKET),
        "zero_optimization.stage3_prefetch_bucket_size": int(PREFETCH * run.width**2),
        "zero_optimization.stage3_param_persistence_threshold": PERSISTENT_WIDTHS * run.width,
    }
    return _filled(copy.deepcopy(dict(config)), answers, "")


def merged(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` with the entries of ``changes`` in their place, section by section, as a new dict."""
    result = dict(config)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def _filled(config: dict[str, Any], answers: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            config[key] = _filled(value, answers, f"{name}.")
        elif value == AUTO:
            if name not in answers:
                raise ValueError(f'Nothing of the run answers "auto" for {name} in the DeepSpeed config: give a value.')
            config[key] = answers[name]
    return config
