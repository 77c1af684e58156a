"""What a reader of a wrong YAML file is told: field, rule, value got, and what was meant."""

import re
import subprocess
import sys

import pytest
import yaml
from lightning.pytorch.callbacks import Callback

from lightning_llmopt.callbacks import GradientNormClip
from lightning_llmopt.configs import LLMOptCLI

from fitting import Regression

pytestmark = pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
QUIET = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
WSD = "class_path: lightning_llmopt.schedules.wsd, init_args"


@pytest.fixture(autouse=True)
def no_command_line(monkeypatch):
    """Lightning warns if there is one beside ``args``."""
    monkeypatch.setattr("sys.argv", ["train.py"])


class Own(Callback):
    """A callback of a user's own with a mistake in it."""

    def __init__(self, times: int = 1):
        raise ValueError("a mistake of mine")


def read(text, folder):
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump({"trainer": {**QUIET, **yaml.safe_load(text)}}))
    return LLMOptCLI(
        Regression, run=False, args=["--config", str(file)], save_config_callback=None, seed_everything_default=0
    )


def test_a_recipe_needs_no_import_path_in_a_process_that_has_imported_nothing_else(tmp_path):
    (tmp_path / "run.yaml").write_text("trainer: {callbacks: [{class_path: UseRecipe, init_args: {name: olmo}}]}")
    code = (
        "from lightning.pytorch.demos.boring_classes import BoringModel; "
        "from lightning_llmopt.configs import LLMOptCLI; "
        "cli = LLMOptCLI(BoringModel, run=False, args=['--config', 'run.yaml'], save_config_callback=None); "
        "print([one.recipe.name for one in cli.trainer.callbacks if type(one).__name__ == 'UseRecipe'])"
    )
    words = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines()[-1:] == ["['olmo']"], done.stderr


def test_classes_and_presets_need_no_import_path(tmp_path):
    cli = read(
        "{callbacks: [{class_path: GradientNormClip, init_args: {max_norm: 2}}], strategy: llmopt_fp32}", tmp_path
    )
    assert next(one for one in cli.trainer.callbacks if isinstance(one, GradientNormClip)).max_norm == 2
    assert type(cli.trainer.strategy).__name__ == "OneDevice"


WRONG = {
    "LRSchedule, init_args: {schedule: cosine, totl: 3}":
        r"trainer.callbacks > LRSchedule: there is no field 'totl'. There are \['schedule', 'total', .* mean 'total'\?",
    "LRSchedule, init_args: {schedule: {recipe: wsd, warmpu: 2%}}":
        r"wsd takes \['decay', .*, 'warmup', .*\], got 'warmpu'. Did you mean 'warmup'\?",
    f"LRSchedule, init_args: {{schedule: {{{WSD}: {{warmpu: 2%}}}}}}":
        r"wsd takes \['decay', .*, 'warmup', .*\], got 'warmpu'. Did you mean 'warmup'\?",
    f"LRSchedule, init_args: {{schedule: {{{WSD}: {{decay: 120%}}}}}}":
        r"decay must be at most the whole run \(1.0 or '100%'\), got '120%'.",
    "LRSchedule, init_args: {schedule: {recipe: wsd, decay: 120%}}":
        r"decay must be at most the whole run \(1.0 or '100%'\), got '120%'.",
    "LRSchedule, init_args: {schedule: {recipe: wsd, shape: cosin}}":
        r"shape must be one of \['cosine', .*\], got 'cosin'. Did you mean 'cosine'\?",
    "LRSchedule, init_args: {schedule: cosin}":
        r"schedule must be one of \['constant', .*\], got 'cosin'. Did you mean 'cosine'\?",
    "LRSchedule, init_args: {schedule: {class_path: lightning_llmopt.schedules.wds}}":
        r"schedule: class_path must end in one of \['constant', .* mean 'wsd'\?",
    "LRSchedule, init_args: {schedule: cosine, on_change: kep}":
        r"on_change must be one of \['error', 'adopt', 'keep'\], got 'kep'. Did you mean 'keep'\?",
    "LRSchedule, init_args: {schedule: cosine, total: 10B tokns}":
        r"total must be a whole number of updates >= 1 .*, got '10B tokns'.",
    "LRSchedule, init_args: {schedule: cosine, total: [3]}":
        r"trainer.callbacks > LRSchedule > total: must be one of the types int, float, str, null, got '\[3\]'.",
    "LRSchedule, init_args: {schedule: cosine, anneal: {duraton: 3}}":
        r"trainer.callbacks > LRSchedule > anneal > Anneal: there is no field 'duraton'. There are .*'duration'\?",
    "LRShedule":
        r"trainer.callbacks: class_path must be an import path or the name of an imported class, got 'LRShedule'. "
        r"Did you mean 'LRSchedule'\?",
    "UseRecip":
        r"trainer.callbacks: class_path must be .*, got 'UseRecip'. Did you mean 'UseRecipe'\?",
    "lightning_llmopt.callbacks.LRShedule":
        r"trainer.callbacks > LRShedule: there is no 'LRShedule' in lightning_llmopt.callbacks, which has \['AdaGC', .*"
        r"mean 'LRSchedule'\?",
    "lightning_llmopt.callback.LRSchedule":
        r"trainer.callbacks > LRSchedule: there is no 'callback' in lightning_llmopt, which has .* mean 'callbacks'\?",
    "ZClip, z_max: 3":
        r"trainer.callbacks > Callback: what a class takes belongs under init_args, and nothing else stands beside .*",
    "ZClip, init_args: {mode: adative}":
        r"mode must be one of \['adaptive', 'mean', 'percentile'\], got 'adative'. Did you mean 'adaptive'\?",
    "LRSchedule, init_args: {schedule: 3}":
        r"trainer.callbacks > LRSchedule > schedule: must be one of the types .*, str, dict, function, got '3'.",
    "LRSchedule, init_args: {schedule: cosine, anneal: 3}":
        r"trainer.callbacks > LRSchedule > anneal: must be one of the types Anneal, null, got '3'.",
    "UseOptimizer, init_args: {optimizer: AdamW}":
        r"optimizer must be the path of a class such as 'torch.optim.SGD', got 'AdamW'. "
        r"Did you mean 'torch.optim.AdamW'\?",
    "UseOptimizer, init_args: {optimizer: torch.optim.AdmW}":
        r"optimizer must be the path of a class .*, got 'torch.optim.AdmW': torch.optim has no 'AdmW'. "
        r"Did you mean 'torch.optim.AdamW'\?",
    "UseOptimizer, init_args: {optimizer: nowhere.Lion}":
        r"optimizer must be the path of a class .*, got 'nowhere.Lion': there is no package 'nowhere'. Install it.*",
    "UseOptimizer, init_args: {optimizer: torch.nn.Linear}":
        r"optimizer must be a torch.optim.Optimizer or make one of params, got torch.nn.modules.linear.Linear.",
    "UseOptimizer, init_args: {optimizer: torch.optim.AdamW, settings: {lr: -1}}":
        r"AdamW\(lr=-1\) is refused: Invalid learning rate: -1",
    "UseOptimizer, init_args: {optimizer: torch.optim.AdamW, lr: 0.1}":
        r"trainer.callbacks > UseOptimizer: there is no field 'lr'. There are \['optimizer', .*, 'show'\], and any "
        r"other under dict_kwargs.",
    "lightning_llmopt.recipes.UseRecip":
        r"trainer.callbacks > UseRecip: there is no 'UseRecip' in lightning_llmopt.recipes, which has "
        r"\['Change', 'Receipt', 'Recipe', 'Recipes', 'UseRecipe'\]. Did you mean 'UseRecipe'\?",
    "lightning_llmopt.recipes.UseRecipe, init_args: {name: llama2-7b, total: 5 min}":
        r"total must be a number of tokens such as '10B' or '500k', or 'chinchilla', got '5 min'.",
    "GradientNormClip": r"trainer.callbacks > GradientNormClip: must have max_norm.",
    "GradientNormClip, init_args: {max_norm: much}":
        r"trainer.callbacks > GradientNormClip > max_norm: must be a float, got 'much'.",
    "GradientNormClip, init_args: {max_norm: -1}": r"max_norm must be a finite number > 0, got -1.0.",
}  # fmt: skip


def refusal(text, folder, capsys):
    with pytest.raises(SystemExit) as leaving:
        read(text, folder)
    assert leaving.value.code == 2
    return capsys.readouterr().err.replace("Seed set to 0\n", "")


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_callback_is_refused_in_one_line(tmp_path, capsys, wrong):
    said = refusal(f"{{callbacks: [{{class_path: {wrong}}}]}}", tmp_path, capsys)
    assert re.fullmatch(f"error: {WRONG[wrong]}\n", said), said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("strategy: llmopt_fdsp2", r"trainer.strategy: must be one of \['llmopt_.*Did you mean 'llmopt_fsdp2'\?"),
        (
            "strategy: {class_path: lightning_llmopt.strategies.FSDP2, init_args: {checkpoint: ful}}",
            r"trainer.strategy > FSDP2 > checkpoint: must be one of \['sharded', 'full'\], got 'ful'. .* 'full'\?",
        ),
        ("max_stps: 3", r"trainer: there is no field 'max_stps'. Did you mean 'max_steps'\?"),
        (
            "precision: bf61",
            r"trainer.precision: must be one of \['transformer-engine', .*, 'bf16', int, null\], "
            r"got 'bf61'. Did you mean 'bf16'\?",
        ),
        ("max_steps: many", "trainer.max_steps: must be an int, got 'many'."),
        ("{max_steps: 3, barebones: true, profiler: simple}", ".*barebones.*"),
    ],
)
def test_a_wrong_trainer_is_refused_in_one_line(tmp_path, capsys, text, message):
    assert re.fullmatch(f"error: {message}\n", refusal(text, tmp_path, capsys), flags=re.DOTALL)


def test_mistakes_in_code_that_is_not_ours_keep_their_traceback(tmp_path):
    with pytest.raises(ValueError, match="a mistake of mine"):
        read(f"{{callbacks: [{{class_path: {__name__}.Own}}]}}", tmp_path)


def test_the_subcommands_take_the_same_file(tmp_path, monkeypatch, capsys):
    file = tmp_path / "run.yaml"
    file.write_text("trainer: {strategy: llmopt_fdsp2}")
    monkeypatch.setattr("sys.argv", ["train.py", "fit", "--config", str(file)])
    with pytest.raises(SystemExit) as leaving:
        LLMOptCLI(Regression)
    assert leaving.value.code == 2
    assert "Did you mean 'llmopt_fsdp2'?" in capsys.readouterr().err


def test_without_a_subcommand_it_says_what_to_type(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["/home/me/train.py"])
    with pytest.raises(SystemExit) as leaving:
        LLMOptCLI(Regression)
    assert leaving.value.code == 2
    assert capsys.readouterr().err == (
        "error: the first word must be one of fit, validate, test, predict, got none. "
        "To train: python train.py fit --config run.yaml\n"
    )


def test_a_misspelt_subcommand_is_told_the_nearest(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train.py", "fitt"])
    with pytest.raises(SystemExit) as leaving:
        LLMOptCLI(Regression)
    assert leaving.value.code == 2
    assert capsys.readouterr().err == (
        "error: the first word must be one of fit, validate, test, predict, got 'fitt'. Did you mean 'fit'?\n"
    )
