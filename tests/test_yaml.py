"""Everything public can be written in LightningCLI's YAML, is printed as what it is, and trains.

The registries say what there is: whatever is new has to be writable, field by field, or it fails here.
"""

import inspect
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.strategies import StrategyRegistry

from lightning_llmopt import callbacks
from lightning_llmopt.configs import LLMOptCLI
from lightning_llmopt.schedules import RECIPES, SHAPES, by_name, from_plain
from lightning_llmopt.strategies import PRESETS

from fitting import Regression, loader
from ranks import on_ranks

pytestmark = [
    pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"),  # Lightning's use
    pytest.mark.filterwarnings("ignore:HyperparameterSchedule.'momentum'.. it is 0 in every group"),
    pytest.mark.filterwarnings("ignore:LRSchedule. .* ended before its schedule did"),
]
QUIET = {
    "accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
    "enable_model_summary": False, "max_steps": 3,
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_command_line(monkeypatch):
    """Lightning warns if there is one beside ``args``."""
    monkeypatch.setattr("sys.argv", ["train.py"])


class AdamW(Regression):
    """Its weight decay is apart from its gradients, and it is fused."""

    def __init__(self):
        super().__init__(torch.optim.AdamW, fused=True)


def count(batch):
    """As a user's own function, for arguments that take one."""
    return len(batch[0])


def is_block(name, module):
    return name in ("body", "head")


def index(name):
    return int(name.startswith("head"))


# every field of every callback, at other values than its own where one run can bear them
CALLBACKS = {
    "LRSchedule": """
        - {schedule: {recipe: wsd, warmup: 2}, total: 10k steps, during: {decay: {beta2: 0.9}}, on_change: adopt,
           anneal: {class_path: lightning_llmopt.schedules.Anneal, init_args: {duration: 5%}}, preview: false,
           replace_schedulers: true, tokens: test_yaml.count, samples: test_yaml.count, optimizer: AdamW, group: head}
        - {schedule: cosine}
        - {schedule: linear, optimizer: 0, group: 1, total: 3, preview: here.png}
        """,
    "HyperparameterSchedule": """
        - {entry: beta1, schedule: one_cycle, between: [0.95, 0.85], total: 20, on_change: keep, optimizer: 0, group: 1,
           tokens: test_yaml.count, samples: test_yaml.count}
        """,
    "GradientNormClip": """
        - {max_norm: 0.5, folded: true}
        - {max_norm: 1, per_group: true}
        - {max_norm: 1.0, per_group: {head: 0.1, 0: 2}}
        """,
    "GradientValueClip": "- {limit: 0.5}",
    "AdaptiveGradientClip": "- {clip_factor: 0.1, min_norm: 0.01, exclude: ['head.*']}",
    "ZClip": "- {z_max: 2, alpha: 0.9, warmup_steps: 3, max_norm: null, mode: mean, factor: 0.5}",
    "AdaGC": "- {relative: 1.1, beta: 0.9, warmup_steps: 3, max_norm: 2}",
    "GradientNormMonitor": """
        - {every_n_steps: 2, per_layer: true, per_group: true, per_parameter: true, updates: true, parameters: true,
           moments: true, blocks: [body, head], histogram: true, heatmap: true}
        - {per_layer: true, blocks: test_yaml.is_block}
        """,
    "SkipBadSteps": """
        - {nonfinite: true, sigma: 4, window: 16, max_consecutive: 10, on_device: true}
        - {nonfinite: false, sigma: 3.5}
        """,
    "ClipAdvisor": "- {after: 30, skip_first: 2, quantiles: [50, 99.5]}",
    "LayerwiseLRDecay": """
        - {decay: 0.5, blocks: [body, head], on_change: adopt, show: false}
        - {blocks: test_yaml.is_block}
        - {index: test_yaml.index}
        """,
    "WeightDecaySplit": "- {embeddings: true, on_change: adopt, show: false}",
    "ParamGroups": """
        - {on_change: adopt, show: false, rules: {
             "body.bias": {frozen: true}, "type:Linear": {lr_scale: 0.5, betas: [0.8, 0.9], name: linear}}}
        - {rules: {"ndim>=2": {optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.5}}}}}
        """,
    "MuTransfer": """
        - {base: {body.weight: [4, 4], body.bias: [4], head.weight: [1, 4], head.bias: [1]}, weight_decay_mode: none,
           extra_warmup: exponential, extra_warmup_steps: 2, init: fan_in, table: adam, readouts: [head],
           on_change: adopt, show: false}
        - {base: {class_path: test_yaml.AdamW}}
        """,
    "IndependentWeightDecay": "- {reference_lr: 0.1, assume_decoupled: true, on_change: adopt, show: false}",
    "LRFinder": """
        - {min_multiplier: 0.01, max_multiplier: 10, steps: 10, smoothing: 0.5, stop_factor: null, apply: none,
           plot: finder.png}
        """,
    "RunSummary": "- {save: false}",
    "UseOptimizer": """
        - {optimizer: torch.optim.SGD, settings: {lr: 0.1, momentum: 0.9}, replaces: 0, show: false, on_change: adopt}
        - {optimizer: torch.optim.Muon, settings: {lr: 0.01}, others: torch.optim.AdamW}
        """,
}
NEED = {  # recipes that cannot do without a setting
    "rewarm": {"first_warmup": 10},
    "cosine_restarts": {"first_cycle": 2},
    "multi_step": {"milestones": {2: 0.5, "60%": 0.25}},
    "piecewise": {"points": {0: 0.5, "50%": 1.0, 1.0: 0.0}},
    "sequence": {"parts": [[{"recipe": "linear", "floor": 0.5}, 2], ["constant", None]]},
}
SETTINGS_OF_SHAPES = {"power_law": "(4)", "halving": "(2)", "piecewise": "(0.5)"}


def cli(trainer, *, folder, model=AdamW):
    """LightningCLI of a YAML file with this section, as a user's script has it."""
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump({"trainer": {**QUIET, "default_root_dir": str(folder), **trainer}}))
    return read(file, model=model)


def read(file, *, model=AdamW, how=LightningCLI):
    return how(model, run=False, args=["--config", str(file)], save_config_callback=None, seed_everything_default=0)


def printed(made, *, folder):
    """The same read again from what ``--print_config`` writes."""
    file = folder / "again.yaml"
    file.write_text(made.parser.dump(made.config, skip_none=False))
    return read(file)


def ours(made, kind=Callback):
    return next(one for one in made.trainer.callbacks if isinstance(one, kind) and "llmopt" in type(one).__module__)


def content(value):
    """What an object is made of, for comparison of those that have no equality of their own."""
    if inspect.isroutine(value):
        return value.__qualname__
    if isinstance(value, torch.nn.Module):
        return {name: weight.shape for name, weight in value.named_parameters()}
    if "lightning" in type(value).__module__ and type(value).__eq__ is object.__eq__:
        return type(value), content({**getattr(value, "__dict__", {})})
    if isinstance(value, Mapping):
        return {key: content(entry) for key, entry in value.items()}
    return [content(entry) for entry in value] if isinstance(value, list | tuple) else value


def public(room, kind):
    return {name: one for name, one in vars(room).items() if isinstance(one, type) and issubclass(one, kind)}


WRITTEN = [(name, settings) for name, text in CALLBACKS.items() for settings in yaml.safe_load(text)]
every_way = pytest.mark.parametrize(("name", "settings"), WRITTEN, ids=[name for name, _ in WRITTEN])


@pytest.mark.parametrize("name", public(callbacks, Callback))
def test_every_field_of_every_callback_is_written_here(name):
    parameters = inspect.signature(getattr(callbacks, name)).parameters.values()
    known = {each.name for each in parameters if each.kind is not each.VAR_KEYWORD}  # those are under dict_kwargs
    assert name in CALLBACKS, f"write {name} in YAML, with its fields {sorted(known)}"
    assert {field for settings in yaml.safe_load(CALLBACKS[name]) for field in settings} == known


@every_way
def test_every_callback_is_read_printed_and_trains(tmp_path, monkeypatch, name, settings):
    monkeypatch.chdir(tmp_path)
    entry = {"class_path": f"lightning_llmopt.callbacks.{name}", "init_args": settings}
    made = cli({"callbacks": [entry]}, folder=tmp_path)
    again = printed(made, folder=tmp_path)
    assert content(ours(made)) == content(ours(again))
    made.trainer.fit(made.model, loader())
    assert made.trainer.global_step == 3


def ways(name):
    """The ways in which a file names a recipe."""
    settings = NEED.get(name, {})
    path = {"class_path": f"lightning_llmopt.schedules.{name}", "init_args": settings}
    return [*([] if settings else [name]), {"recipe": name, **settings}, path]


@pytest.mark.parametrize("name", RECIPES)
def test_every_schedule_is_read_printed_and_trains(tmp_path, name):
    for way in ways(name):
        entry = {"class_path": "lightning_llmopt.callbacks.LRSchedule", "init_args": {"schedule": way, "total": 300}}
        made = cli({"callbacks": [entry]}, folder=tmp_path)
        again = printed(made, folder=tmp_path)
        assert ours(made).schedule == ours(again).schedule == by_name(name, **NEED.get(name, {}))
    made.trainer.fit(made.model, loader())
    assert made.trainer.global_step == 3


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_read_printed_and_trains(tmp_path, shape):
    named = f"{shape}{SETTINGS_OF_SHAPES.get(shape, '')}"
    phases = [{"name": "fall", "steps": 10, "start": 1.0, "end": 0.5, "shape": named}]
    way = {"class_path": "lightning_llmopt.schedules.from_plain", "init_args": {"phases": phases}}
    entry = {"class_path": "lightning_llmopt.callbacks.LRSchedule", "init_args": {"schedule": way}}
    made = cli({"callbacks": [entry]}, folder=tmp_path)
    again = printed(made, folder=tmp_path)
    assert ours(made).schedule == ours(again).schedule == from_plain(phases)
    made.trainer.fit(made.model, loader())
    assert made.trainer.global_step == 3


def trains(rank, folder, trainer):
    warnings.simplefilter("ignore")
    made = cli(trainer, folder=folder)
    made.trainer.fit(made.model, loader())
    return type(made.trainer.strategy).__name__, made.trainer.global_step


NOT_HERE = {  # why a preset cannot train on a CPU of one process
    "fp8": "compute capability 8.9", "fsdp": "GPUs", "zero1": "GPUs", "zero2": "GPUs", "zero3": "GPUs",
    "zero2_offload": "GPUs", "zero3_offload": "GPUs", "fsdp2_tp": "4 GPUs", "tp": "a plan",
}  # fmt: skip


class Parsed(LightningCLI):
    """Makes everything but the Trainer, which asks for the hardware of its strategy."""

    def instantiate_trainer(self):
        return None


STRATEGIES = {  # every field, as above
    "OneDevice": "{precision: bf16, checkpointing: every_block}",
    "DDP": """
        {bucket_mb: 10, static_graph: false, find_unused_parameters: true, compression: bf16, checkpointing: 2,
         gradients_in_buckets: false, process_group_backend: gloo, timeout: 0:30:00, start_method: fork}
        """,
    "FSDP1": """
        {blocks: [body, head], sharding: SHARD_GRAD_OP, defer_sync: false, cpu_offload: true, checkpoint: full,
         checkpointing: sqrt, process_group_backend: gloo, timeout: 0:30:00}
        """,
    "FSDP2": """
        {blocks: ["b*"], shard_size: node, tensor_parallel_size: 1, tensor_parallel_plan: {body: colwise},
         reshard_after_forward: false, defer_sync: false, find_unused_parameters: true, cpu_offload: true,
         checkpoint: full, checkpointing: selective, process_group_backend: gloo, timeout: 0:30:00}
        """,
    "ZeRO": """
        {stage: 3, offload_optimizer: true, offload_parameters: true, torch_optimizer: true, checkpointing: attention,
         config: {steps_per_print: 7, zero_optimization: {overlap_comm: true}}, process_group_backend: gloo,
         timeout: 0:30:00}
        """,
}


@pytest.mark.parametrize("kind", sorted({row.strategy for row in PRESETS.values()}, key=lambda kind: kind.__name__))
def test_every_field_of_every_strategy_is_read_and_printed(tmp_path, kind):
    settings = yaml.load(STRATEGIES[kind.__name__], yaml.BaseLoader)
    assert settings.keys() == inspect.signature(kind).parameters.keys()
    file, again = tmp_path / "run.yaml", tmp_path / "again.yaml"
    text = STRATEGIES[kind.__name__]
    file.write_text(
        f"trainer: {{strategy: {{class_path: lightning_llmopt.strategies.{kind.__name__}, init_args: {text}}}}}"
    )
    made = read(file, how=Parsed)
    again.write_text(made.parser.dump(made.config, skip_none=False))
    one, other = (cli.config_init["trainer"]["strategy"] for cli in (made, read(again, how=Parsed)))
    assert type(one) is kind
    assert content(one) == content(other) != content(kind())


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_read_printed_and_refused_by_nobody_but_the_hardware(tmp_path, name):
    file, again = tmp_path / "run.yaml", tmp_path / "again.yaml"
    file.write_text(f"trainer: {{strategy: llmopt_{name}}}")
    made = read(file, how=Parsed)
    again.write_text(made.parser.dump(made.config, skip_none=False))
    assert read(again, how=Parsed).config_init["trainer"]["strategy"] == f"llmopt_{name}"
    assert type(StrategyRegistry.get(f"llmopt_{name}")) is PRESETS[name].strategy


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_that_runs_here_trains(tmp_path, name):
    if name in NOT_HERE:
        pytest.skip(f"{name} needs {NOT_HERE[name]}")
    answer = on_ranks(1, trains, tmp_path, {"strategy": f"llmopt_{name}"})
    assert answer == [(PRESETS[name].strategy.__name__, 3)]


PAGE = (Path(__file__).parents[1] / "docs" / "yaml.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("how", [LightningCLI, LLMOptCLI])
@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_what_the_page_writes_is_read_by_both(tmp_path, block, how):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"trainer": {**QUIET, **yaml.safe_load(block)["trainer"]}}))
    assert read(file, how=how).trainer is not None
