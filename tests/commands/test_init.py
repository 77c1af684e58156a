"""``llmopt init``: what it writes runs."""

import subprocess
import sys

import pytest
import yaml

from lightning_llmopt.cli import main
from lightning_llmopt.commands._starter import PRECISIONS, STRATEGIES
from lightning_llmopt.recipes import recipe, recipes
from lightning_llmopt.schedules import RECIPES, Schedule, by_name, wsd

pytest.importorskip("jsonargparse")


def written(folder):
    """The YAML file, read."""
    return yaml.safe_load((folder / "run.yaml").read_text())


def callback(folder, name):
    """Arguments of a callback in the YAML file."""
    found = [one for one in written(folder)["trainer"]["callbacks"] if one["class_path"].endswith(f".{name}")]
    return found[0].get("init_args") if found else None


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--recipe", "llama2-7b", "--layer-decay", "0.9"],
        ["--strategy", "fsdp2", "--layer-decay", "0.9", "--schedule", "sequence", "--clip", "none"],
    ],
)
def test_what_it_writes_runs(tmp_path, capsys, words):
    assert main(["init", str(tmp_path / "new"), "--total", "4", *words]) == 0
    assert "train.py fit --config run.yaml" in capsys.readouterr().out
    command = [sys.executable, "train.py", "fit", "--config", "run.yaml", "--trainer.accelerator", "cpu"]
    found = subprocess.run(
        [*command, "--trainer.devices", "1", "--trainer.log_every_n_steps", "2"],
        cwd=tmp_path / "new",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr
    assert "`max_steps=4` reached" in found.stderr
    assert list((tmp_path / "new").rglob("*.ckpt"))
    for title in ("Run of Model", "End of the run", "4 applied, 0 skipped"):
        assert found.stdout.count(title) == 1
    assert main(["report", str(tmp_path / "new" / "lightning_logs" / "version_0")]) == 0
    assert "At the end" in (tmp_path / "new" / "lightning_logs" / "version_0" / "report.html").read_text()


def test_its_other_two_commands_work_on_it(tmp_path, capsys, monkeypatch):
    main(["init", str(tmp_path), "--lr", "0.003"])
    monkeypatch.chdir(tmp_path)
    assert main(["preview", "--config", "run.yaml", "--lr", "0.003"]) == 0
    words = ["train.py:Model", "--data", "train.py:Data", "--config", "run.yaml"]
    assert main(["find-lr", *words, "--steps", "10"]) in (0, 1)
    assert "Learning-rate range test: " in capsys.readouterr().out


@pytest.mark.parametrize("name", RECIPES)
def test_every_schedule_is_written_as_it_is(tmp_path, capsys, name):
    assert main(["init", str(tmp_path), "--schedule", name, "--total", "500"]) == 0
    assert main(["preview", "--config", str(tmp_path / "run.yaml")]) == 0
    assert " at first " in capsys.readouterr().out
    given = callback(tmp_path, "LRSchedule")["schedule"]
    assert given["class_path"] == f"lightning_llmopt.schedules.{name}"
    if name != "sequence":
        assert isinstance(by_name(name, **given["init_args"]).resolve(total_steps=500), Schedule)


def test_choices_reach_the_file(tmp_path):
    words = ["--schedule", "wsd", "--total", "900", "--warmup", "30", "--lr", "3e-5", "--clip", "0.5"]
    more = ["--precision", "bf16_pure", "--strategy", "zero2", "--layer-decay", "0.75"]
    assert main(["init", str(tmp_path), *words, *more]) == 0
    found = written(tmp_path)
    trainer = found["trainer"]
    assert (trainer["max_steps"], trainer["precision"], trainer["strategy"]) == (900, "bf16-true", "llmopt_zero2")
    assert found["model"]["lr"] == 3e-5
    assert callback(tmp_path, "GradientNormClip") == {"max_norm": 0.5}
    assert callback(tmp_path, "LayerwiseLRDecay") == {"decay": 0.75}
    assert wsd(**callback(tmp_path, "LRSchedule")["schedule"]["init_args"]) == wsd(warmup=30)


def test_none_leaves_out_what_it_names(tmp_path):
    main(["init", str(tmp_path), "--clip", "none", "--warmup", "none", "--schedule", "one_cycle"])
    assert callback(tmp_path, "GradientNormClip") is None
    assert callback(tmp_path, "LRSchedule")["schedule"]["init_args"]["warmup"] == "30%"


def test_every_setting_has_a_comment_above_it(tmp_path):
    main(["init", str(tmp_path), "--layer-decay", "0.9"])
    lines = (tmp_path / "run.yaml").read_text().splitlines()
    for name in ("max_steps", "strategy", "precision", "warmup", "shape", "lr", "- class_path"):
        at = next(at for at, line in enumerate(lines) if line.strip().startswith(f"{name}:"))
        assert lines[at - 1].strip().startswith("# "), name


def test_names_are_those_of_the_presets():
    from lightning_llmopt.strategies import PRESETS
    from lightning_llmopt.strategies.precision import PRECISIONS as ALL

    assert set(STRATEGIES) - {"auto"} <= set(PRESETS)
    assert {name: ALL[name] for name in PRECISIONS} == PRECISIONS


def test_files_that_are_there_stay(tmp_path, capsys):
    (tmp_path / "train.py").write_text("mine")
    assert main(["init", str(tmp_path)]) == 2
    assert "FOLDER must not hold run.yaml or train.py yet, got " in (err := capsys.readouterr().err)
    assert "with --force." in err
    assert (tmp_path / "train.py").read_text() == "mine"
    assert not (tmp_path / "run.yaml").exists()
    assert main(["init", str(tmp_path), "--force"]) == 0
    assert (tmp_path / "train.py").read_text() != "mine"


def test_in_a_terminal_it_asks(tmp_path, capsys, monkeypatch):
    answers = iter(["", "cosin", "cosine", "x", "700", "", "2e-4", "none", "bf32", "fp32", "fsdp2", "0.8"])
    asked = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or next(answers))
    assert main(["init", str(tmp_path)]) == 0
    found, out = written(tmp_path), capsys.readouterr().out
    assert asked[1] == asked[2] == "schedule: one that `llmopt preview --help` lists [wsd] "
    assert "  --schedule must be one of " in out
    assert "got 'cosin'. Did you mean cosine?" in out
    assert "  total must be a whole number >= 1, got 'x'." in out
    assert (found["trainer"]["max_steps"], found["trainer"]["precision"], found["model"]["lr"]) == (
        700,
        "32-true",
        2e-4,
    )
    assert found["trainer"]["strategy"] == "llmopt_fsdp2"
    assert callback(tmp_path, "LRSchedule")["schedule"]["init_args"]["warmup"] == "2%"
    assert callback(tmp_path, "GradientNormClip") is None


def test_a_recipe_brings_its_own_and_is_fitted_to_the_run(tmp_path):
    assert main(["init", str(tmp_path), "--recipe", "llama2-7b", "--total", "300"]) == 0
    callbacks = written(tmp_path)["trainer"]["callbacks"]
    assert [one["class_path"] for one in callbacks] == [
        "lightning_llmopt.recipes.UseRecipe",
        "lightning_llmopt.callbacks.RunSummary",
    ]
    lengths = {"batch": 8 * 64, "total": 8 * 64 * 300, "extrapolate": True}
    assert callbacks[0]["init_args"] == {"name": "llama2-7b", **lengths}


@pytest.mark.parametrize("name", recipes().names)
def test_every_recipe_is_written_so_that_it_can_be_used(tmp_path, name):
    assert main(["init", str(tmp_path), "--recipe", name]) == 0
    settings = written(tmp_path)["trainer"]["callbacks"][0]["init_args"]
    found = recipe(settings.pop("name"))
    schedule = (found.rescaled(**settings) if settings else found).schedule()
    assert schedule.resolve(total_steps=200).total_steps == 200


def test_in_a_terminal_a_recipe_saves_questions(tmp_path, monkeypatch):
    answers = iter(["gpt3-125m", "50", "fp32", "", ""])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: next(answers))
    assert main(["init", str(tmp_path)]) == 0
    assert not list(answers)
    assert callback(tmp_path, "UseRecipe")["name"] == "gpt3-125m"


@pytest.mark.parametrize("words", [["--total", "50"], []])
def test_with_options_or_without_a_terminal_nothing_is_asked(tmp_path, monkeypatch, words):
    monkeypatch.setattr("sys.stdin.isatty", lambda: bool(words))
    monkeypatch.setattr("builtins.input", lambda question: pytest.fail(question))
    assert main(["init", str(tmp_path), *words]) == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--schedule", "wds"], "got 'wds'. Did you mean wsd?"),
        (["--recipe", "llama2"], "recipe must be one of pretraining, "),
        (["--recipe", "llama2-7b", "--lr", "1e-3"], "--recipe brings its own schedule, warmup, lr, clip, got --lr as"),
        (["--precision", "bf15"], "--precision must be one of fp32, bf16, bf16_pure, fp16, got 'bf15'."),
        (["--strategy", "fdsp2"], "got 'fdsp2'. Did you mean fsdp2?"),
        (["--clip", "0"], "--clip must be a finite number > 0, got '0'."),
        (["--total", "0"], "--total must be a whole number >= 1, got '0'."),
        (["--warmup", "much"], "--warmup must be updates (2000, '2000 steps')"),
        (["--warmup", "90%"], "wsd does not fit into the run"),
    ],
)
def test_what_is_wrong_is_a_sentence_and_writes_nothing(tmp_path, capsys, words, sentence):
    assert main(["init", str(tmp_path), *words]) == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
