"""Presets are plain dicts that a real Trainer takes, and names in Lightning's registry."""

import re
import subprocess
import sys
from datetime import timedelta

import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.strategies import StrategyRegistry

from lightning_llmopt.callbacks import GradientNormClip, GradientNormMonitor, LRSchedule
from lightning_llmopt.schedules import wsd
from lightning_llmopt.strategies import DDP, FSDP1, FSDP2, PRESETS, OneDevice, ZeRO, preset, presets
from lightning_llmopt.strategies.precision import precision_plugin

from curves import UPDATES, losses
from fitting import Regression, loader, trainer
from ranks import on_ranks

ONE_DEVICE = {"fp32": torch.float32, "bf16": torch.bfloat16, "bf16_pure": torch.bfloat16, "fp16": torch.float16}


class Seen(Regression):
    """Notes the dtype of a matrix product."""

    def training_step(self, batch, batch_idx):
        product = self.body(batch[0])
        self.dtype_seen = product.dtype
        return (self.head(torch.tanh(product)) - batch[1]).float().pow(2).mean()


@pytest.mark.parametrize("name", ONE_DEVICE)
@pytest.mark.parametrize("by_name", [False, True])
def test_a_trainer_takes_it(tmp_path, name, by_name):
    module, settings = Seen(), {"strategy": f"llmopt_{name}"} if by_name else preset(name)
    run = trainer(tmp_path, GradientNormClip(1.0), max_steps=2, **settings)
    run.fit(module, loader())
    assert module.dtype_seen == ONE_DEVICE[name]
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16 if name == "bf16_pure" else torch.float32}
    assert (getattr(run.precision_plugin, "scaler", None) is not None) == (name == "fp16")


@pytest.mark.parametrize(("name", "relative"), [("fp32", 0), ("bf16", 1e-3), ("bf16_pure", 5e-2), ("fp16", 1e-3)])
def test_one_device_follows_the_course_of_fp32(tmp_path, name, relative):
    found, expected = losses(tmp_path, "Encoder", **preset(name)), losses(tmp_path, "Encoder")
    assert len(found) == UPDATES
    assert found == pytest.approx(expected, rel=relative, abs=0)


def test_it_is_yours_to_change():
    preset("ddp")["precision"] = "x"
    assert preset("ddp") == {"strategy": "llmopt_ddp", "precision": "bf16-mixed"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_ddp_trains_on_two_processes(tmp_path, precision):
    def fit(rank):
        module = Regression()
        callbacks = [LRSchedule(wsd(warmup=2)), GradientNormClip(1.0), GradientNormMonitor()]
        run = trainer(tmp_path, *callbacks, max_steps=4, **{"devices": 2, **preset("ddp", precision=precision)})
        run.fit(module, loader())
        return type(run.strategy).__name__, run.precision, [p.detach().tolist() for p in module.parameters()]

    first, second = on_ranks(2, fit)
    assert first == second
    assert first[:2] == ("DDP", {"fp32": "32-true", "bf16": "bf16-mixed"}[precision])


KINDS = {
    "ddp": DDP, "fsdp": FSDP1, "fsdp2": FSDP2, "hybrid": FSDP2, "tp": FSDP2, "fsdp2_tp": FSDP2,
    "zero1": ZeRO, "zero2": ZeRO, "zero3": ZeRO, "zero2_offload": ZeRO, "zero3_offload": ZeRO,
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "fp8"])
def test_every_preset_is_a_name_for_the_trainer(tmp_path, name):
    strategy = StrategyRegistry.get(f"llmopt_{name}")
    assert type(strategy) is KINDS.get(name, OneDevice)
    if name not in ONE_DEVICE and "zero" not in name and name != "fsdp":
        assert type(trainer(tmp_path, **preset(name, precision="fp32")).strategy) is KINDS[name]


def test_options_make_a_strategy_and_reach_it():
    assert preset("fsdp2", precision="fp32", cpu_offload=True)["strategy"].cpu_offload is True
    assert preset("hybrid", shard_size=2)["strategy"].shard_size == 2
    assert preset("zero3", config={"steps_per_print": 7})["strategy"].wanted["steps_per_print"] == 7
    assert preset("ddp", checkpointing="every_block")["strategy"].checkpointing == "every_block"
    assert preset("bf16", checkpointing="every_block")["strategy"].checkpointing == "every_block"


def test_fp16_brings_its_scaler_to_ddp():
    assert preset("ddp", precision="fp16")["plugins"][0].scaler is not None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("yaml", "expected"),
    [
        ("strategy: llmopt_fsdp2", ("FSDP2", None)),
        ("strategy: {class_path: lightning_llmopt.strategies.FSDP2, init_args: {shard_size: node}}", ("FSDP2", "node")),
    ],
)
def test_yaml_takes_names_and_classes(tmp_path, monkeypatch, yaml, expected):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "run.yaml"
    config.write_text(f"trainer:\n  {yaml}\n  accelerator: cpu\n  devices: 1\n  logger: false\n")
    cli = LightningCLI(Regression, run=False, args=["--config", str(config)], save_config_callback=None)
    strategy = cli.trainer.strategy
    assert (type(strategy).__name__, strategy.shard_size) == expected


@pytest.mark.distributed  # another interpreter imports Lightning: slow
def test_deepspeed_is_not_imported_before_it_is_used():
    code = "import sys, lightning_llmopt.strategies as s; s.preset('fsdp2'); print('deepspeed' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "fdsp"}, r"preset must be one of \['fp32', 'bf16', .*, got 'fdsp'"),
        ({"name": "ddp", "precision": "fp64"}, r"precision must be one of \['fp32', 'bf16', .*\], got 'fp64'"),
        ({"name": "fp32", "precision": "bf16"}, r"contradict each other: use preset\('bf16'\), or leave precision out"),
        ({"name": "ddp", "bucket": 1}, r"preset 'ddp' takes \['bucket_mb', .*\], got 'bucket'"),
        ({"name": "bf16", "blocks": []}, "preset 'bf16' takes no options, got 'blocks'"),
        (
            {"name": "fsdp2", "precision": "fp16"},
            r"'fsdp2' does not compute in 'fp16': use precision='bf16', or preset\('fsdp'",
        ),
        (
            {"name": "zero2", "precision": "fp8"},
            r"'zero2' does not compute in 'fp8': use precision='bf16', or preset\('ddp'",
        ),
    ],
)
def test_refuses_bad_values_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        preset(**arguments)


NO_WORDS = [["ddp"], {"a": 1}, 3, 2.5, True, object()]
WORDS = {
    "preset must be one of": preset,
    "precision must be one of": lambda value: preset("ddp", precision=value),
    "checkpointing must be one of": lambda value: preset("ddp", checkpointing=value),
    r"precision must be one of \[": lambda value: OneDevice(precision=value),
    "compression must be None, 'bf16' or 'fp16'": lambda value: DDP(compression=value),
    "start_method must be one of": lambda value: DDP(start_method=value),
    "sharding must be one of": lambda value: FSDP1(sharding=value),
    "checkpoint must be 'sharded' or 'full'": lambda value: FSDP1(checkpoint=value),
    "checkpoint must be 'sharded' or 'full'.*": lambda value: FSDP2(checkpoint=value),
    "precision must be one of .*,": precision_plugin,
}


@pytest.mark.parametrize("rule", WORDS)
@pytest.mark.parametrize("value", NO_WORDS, ids=str)
def test_where_a_word_is_asked_nothing_else_is_taken(rule, value):
    if value == 3 and rule.startswith("checkpointing"):
        pytest.skip("a number of blocks")
    with pytest.raises(ValueError, match=f"{rule}.*, got {re.escape(repr(value))}"):
        WORDS[rule](value)


@pytest.mark.parametrize("name", ["static_graph", "find_unused_parameters", "gradients_in_buckets"])
@pytest.mark.parametrize("value", [[], "no", 1, None])
def test_flags_of_ddp_are_true_or_false(name, value):
    with pytest.raises(ValueError, match=re.escape(f"{name} must be True or False, got {value!r}.")):
        preset("ddp", **{name: value})


@pytest.mark.parametrize("name", ["reshard_after_forward", "defer_sync", "find_unused_parameters", "cpu_offload"])
@pytest.mark.parametrize("value", [[], "no", 1, None])
def test_flags_of_fsdp2_are_true_or_false(name, value):
    with pytest.raises(ValueError, match=re.escape(f"{name} must be True or False, got {value!r}.")):
        preset("fsdp2", **{name: value})


@pytest.mark.parametrize("name", ["offload_optimizer", "offload_parameters", "torch_optimizer"])
def test_flags_of_zero_are_true_or_false(name):
    with pytest.raises(ValueError, match=f"{name} must be True or False, got 'no'."):
        ZeRO(stage=3, **{name: "no"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FSDP1(cpu_offload="no"), "cpu_offload must be True or False, got 'no'."),
        (lambda: FSDP1(defer_sync=1), "defer_sync must be True, False or None, got 1."),
        (lambda: FSDP1(blocks="layers.*"), "blocks must be a list of globs of module names, or None, got 'layers.*'."),
        (lambda: FSDP2(blocks=[1]), "blocks must be a list of globs of module names, or None, got [1]."),
        (
            lambda: FSDP2(tensor_parallel_plan="auto"),
            "tensor_parallel_plan must be a dict of one glob or more to names of styles, or None, got 'auto'.",
        ),
        (lambda: ZeRO(config="ds.json"), "config must be a dict or None, got 'ds.json'."),
        (
            lambda: FSDP2(tensor_parallel_plan={}),
            "of one glob or more to names of styles, or None, got {}.",
        ),
        (lambda: FSDP2(tensor_parallel_plan={1: "colwise"}), "to names of styles, or None, got {1: 'colwise'}."),
        (lambda: FSDP2(tensor_parallel_plan={"a": ["x"]}), "to names of styles, or None, got {'a': ['x']}."),
        (lambda: ZeRO(stage=torch.ones(2)), "stage must be 1, 2 or 3, got tensor([1., 1.])."),
        (lambda: ZeRO(stage=True), "stage must be 1, 2 or 3, got True."),
        (lambda: ZeRO(stage=[2]), "stage must be 1, 2 or 3, got [2]."),
        (lambda: DDP(bucket_mb="25"), "bucket_mb must be finite and > 0, got '25'."),
        (lambda: DDP(bucket_mb=True), "bucket_mb must be finite and > 0, got True."),
        (lambda: DDP(bucket_mb=float("nan")), "bucket_mb must be finite and > 0, got nan."),
    ],
)
def test_values_of_another_kind_are_refused(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


@pytest.mark.parametrize("make", [DDP, FSDP1, FSDP2, ZeRO])
@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        *[("timeout", value, "None or a datetime.timedelta > 0") for value in (1800, "0:30:00", timedelta(0), True)],
        *[
            ("process_group_backend", value, "None or a name that torch.distributed knows")
            for value in ("", "glo", "cpu:glo,cuda:nccl", 5, ["gloo"])
        ],
    ],
)
def test_what_brings_no_processes_together_is_refused(make, name, value, rule):
    with pytest.raises(ValueError, match=f"{name} must be {rule}.*, got {re.escape(repr(value))}"):
        make(**{name: value})


def test_backends_may_be_named_by_device():
    assert preset("fsdp2", process_group_backend="cpu:gloo,cuda:nccl", timeout=timedelta(minutes=1))["strategy"]


@pytest.mark.parametrize("value", [["ddp"], 3, None, "fdsp"])
def test_the_table_knows_its_names(value):
    with pytest.raises(KeyError, match=r"preset must be one of \['fp32', .*\], got"):
        presets()[value]
