"""``llmopt preview``: every schedule by its name, with its own settings, and from YAML."""

import csv
import re
import sys

import pytest

from lightning_llmopt.cli import main
from lightning_llmopt.preview import preview
from lightning_llmopt.recipes import UseRecipe
from lightning_llmopt.schedules import RECIPES, cosine, linear, sequence, wsd

pytest.importorskip("jsonargparse")
NEEDED = {
    "rewarm": ["--first-warmup", "100"],
    "cosine_restarts": ["--first-cycle", "50%"],
    "piecewise": ["--points", "{0: 1.0, 50%: 0.2}"],
    "sequence": ["--parts", "[[{recipe: linear, floor: 0.5}, 40], [constant, null]]"],
}
CONFIG = """
trainer:
  max_steps: 500
  callbacks:
    - class_path: lightning_llmopt.callbacks.GradientNormMonitor
    - class_path: lightning_llmopt.callbacks.LRSchedule
      init_args:
        schedule: {schedule}
"""


def numbers(file):
    """What the CSV says of each update."""
    return [float(row["multiplier"]) for row in csv.DictReader(file.read_text().splitlines())]


@pytest.mark.parametrize("name", RECIPES)
def test_every_schedule_is_drawn_by_its_name(capsys, name):
    assert main(["preview", name, "--total", "1000", *NEEDED.get(name, [])]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("multiplier of the base rate by updates\n")
    assert re.search(r"^phase +first +last +updates +share +multiplier at first +at last$", out, re.MULTILINE)
    assert max(map(len, out.splitlines())) <= 80
    assert not err


@pytest.mark.parametrize("name", RECIPES)
def test_the_help_of_a_schedule_lists_its_settings(capsys, name):
    assert main(["preview", name, "--help"]) == 0
    out = capsys.readouterr().out
    words = {word.replace("-", "_") for word in re.findall(r"--([a-z-]+)", out)}
    assert set(RECIPES[name].__wrapped__.__kwdefaults__ or {}) <= words
    assert ".help" not in out  # jsonargparse's own, for types that are classes
    assert max(map(len, out.splitlines())) <= 80


def test_the_table_says_where_phases_lie_and_what_they_reach(capsys):
    main(["preview", "wsd", "--warmup", "2%", "--decay", "20%", "--shape", "linear", "--total", "1000", "--lr", "0.5"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[-3:]]
    assert lines == [
        ["warmup", "0", "19", "20", "2", "%", "0.025", "0.5"],
        ["stable", "20", "799", "780", "78", "%", "0.5", "0.5"],
        ["decay", "800", "999", "200", "20", "%", "0.5", "0.0025"],
    ]


@pytest.mark.parametrize(
    ("words", "schedule"),
    [
        (["wsd", "--warmup", "0.05", "--floor", "0.1", "--decay", "20"], wsd(warmup=0.05, floor=0.1, decay=20)),
        (["cosine", "--warmup_shape=cosine", "--warmup=10"], cosine(warmup=10, warmup_shape="cosine")),
        (
            ["sequence", "--parts", "[[{recipe: linear, floor: 1e-1}, 40], [{class_path: "
             "lightning_llmopt.schedules.wsd, init_args: {warmup: 10%}}, null]]"],
            sequence(parts=[(linear(floor=0.1), 40), (wsd(warmup="10%"), None)]),
        ),
    ],
)  # fmt: skip
def test_settings_reach_the_schedule(tmp_path, words, schedule):
    main(["preview", *words, "--total", "100", "--csv", str(tmp_path / "lr.csv")])
    assert numbers(tmp_path / "lr.csv") == list(preview(schedule, total_steps=100).multipliers)


def test_a_function_by_import_path_is_a_schedule_too(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(
        "from lightning_llmopt.schedules import ScheduleSpec, wsd\n\n\n"
        "def short(*, decay: float = 0.5) -> ScheduleSpec:\n"
        '    """Mine.\n\n    Args:\n        decay: Part of it.\n    """\n'
        "    return wsd(decay=decay)\n"
    )
    assert main(["preview", f"{tmp_path}/mine.py:short", "--decay", "0.25", "--total", "100"]) == 0
    assert re.search(r"^decay +75 +99 ", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    "written",
    [
        "{recipe: wsd, warmup: 2%, floor: 1e-2}",
        "{class_path: lightning_llmopt.schedules.wsd, init_args: {warmup: 2%, floor: 1e-2}}",
    ],
)
def test_a_yaml_file_of_lightning_cli_is_read(tmp_path, written):
    (tmp_path / "run.yaml").write_text(CONFIG.format(schedule=written))
    assert main(["preview", "--config", f"{tmp_path}/run.yaml", "--csv", f"{tmp_path}/lr.csv"]) == 0
    expected = preview(wsd(warmup="2%", floor=0.01), total_steps=500)
    assert numbers(tmp_path / "lr.csv") == list(expected.multipliers)


def test_a_yaml_file_may_name_the_schedule_alone(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(CONFIG.format(schedule="cosine"))
    assert main(["preview", "--config", f"{tmp_path}/run.yaml", "--total", "50"]) == 0
    assert re.search(r"^decay +0 +49 ", capsys.readouterr().out, re.MULTILINE)


def test_tokens_become_updates(capsys):
    words = ["--warmup", "40M tokens", "--total", "1B tokens", "--tokens-per-update", "4M"]
    assert main(["preview", "wsd", *words]) == 0
    out = capsys.readouterr().out
    assert "1B tokens" in out
    assert re.search(r"^warmup +0 +9 +10 ", out, re.MULTILINE)
    assert re.search(r"^decay +200 +249 ", out, re.MULTILINE)


def test_files_take_the_place_of_the_plot(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    files = [f"{tmp_path}/new/lr.png", f"{tmp_path}/new/lr.csv"]
    assert main(["preview", "wsd", "--total", "100", "--png", files[0], "--csv", files[1]]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Wrote {files[0]}.\nWrote {files[1]}.\n")
    assert "█" not in out
    assert (tmp_path / "new" / "lr.png").read_bytes().startswith(b"\x89PNG")


def test_what_looks_unintended_stands_below(capsys):
    main(["preview", "wsd", "--warmup", "50%", "--total", "100"])
    assert "\n! The warmup takes 50 of 100 updates (50 % of the run" in capsys.readouterr().out


def test_many_phases_are_cut_short(capsys):
    main(["preview", "wsd_s", "--periods", "100", "--total", "100000"])
    out = capsys.readouterr().out
    assert "... 180 more" in out
    assert "\ndecay 100 " in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["wds", "--total", "9"], "NAME must be one of constant, .*, or an import path, got 'wds'. Did you mean wsd?"),
        (["wsd"], "wsd needs --total, the length of the run in updates; got None."),
        (["--total", "9", "wsd"], "NAME must come first: llmopt preview wsd [settings] [options]."),
        ([], "NAME must come first, as in `llmopt preview wsd --total 10000`, or --config FILE be given."),
        (["wsd", "--floor", "abc"], "--floor must be a number, got 'abc'."),
        (["wsd", "--flor", "1"], "There is no --flor. Did you mean --floor? llmopt preview wsd --help lists .*"),
        (["wsd", "--total", "9", "--lr", "-1"], "--lr must be a finite number > 0, got '-1'."),
        (["wsd", "--total", "9", "--width", "3"], "--width must be a whole number >= 40, got '3'."),
        (["wsd", "--total", "9", "--png", "a.jpg"], "--png must be a file that ends in .png, got 'a.jpg'."),
        (["wsd", "--total", "3 epochs"], "--total must be updates, or tokens with --tokens-per-update, got .*"),
        (["wsd", "--total", "1B tokens"], "--total must be updates, or tokens .* Give --tokens-per-update."),
        (["wsd", "--total", "9", "--tokens-per-update", "8 h"], "--tokens-per-update must be .*"),
        (["wsd", "--total", "100", "--decay", "101"], "wsd does not fit into the run: .* but --total is 100. .*"),
        (["cosine_restarts", "--first-cycle", "9", "--cycle-factor", "1.5"], "--cycle-factor must be a whole .*"),
        (["piecewise", "--total", "9"], "points must be given. llmopt preview piecewise --help says what goes there."),
        (["multi_step", "--milestones", "3", "--total", "9"], "--milestones must be a mapping such as .*, got '3'."),
        (["os.path:join"], "join takes .*arguments, which no option can stand for. Name its settings."),
        (["os:sep"], "NAME must be a function that returns a schedule, got 'os:sep'."),
        (["os:getcwd", "--total", "9"], "getcwd must return a schedule, such as wsd(...), got .*"),
        (["--config", "/nowhere.yaml"], "/nowhere.yaml: No such file or directory."),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence(capsys, words, sentence):
    assert main(["preview", *words]) == 2
    out, err = capsys.readouterr()
    pattern = ".*".join(map(re.escape, sentence.split(".*")))
    assert re.fullmatch(f"llmopt: {pattern}\n", err), err
    assert not out


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "trainer: {callbacks: []}",
            "must have an LRSchedule or a UseRecipe with a schedule among trainer.callbacks, got none.",
        ),
        ("trainer: 5", "trainer must be a mapping such as max_steps: 1000, got 5."),
        ("trainer: {callbacks: [{class_path: UseRecipe}]}", "UseRecipe must have init_args.name, got None."),
        ("trainer: {callbacks: [{class_path: LRSchedule, init_args: 3}]}", "init_args of LRSchedule must be a mapping"),
        ("a:\n  b: [1", "is no YAML: line 2, column 8: expected ',' or ']', but got '<stream end>'."),
        ("- 1", "must hold a mapping such as trainer: ..., got list."),
        ("a: [", "is no YAML: "),
        (CONFIG.format(schedule="{recipe: wsd, warmpu: 3}"), "got 'warmpu'. Did you mean 'warmup'?"),
        (CONFIG.format(schedule="{recipe: wds}"), "Did you mean wsd?"),
        (CONFIG.format(schedule="{recipe: wsd, floor: x}"), "--floor must be a number, got 'x'."),
        (CONFIG.format(schedule="3"), "must be a name, or a mapping with recipe or class_path, got 3."),
    ],
)
def test_a_yaml_file_that_makes_no_sense_is_a_sentence(tmp_path, capsys, text, sentence):
    (tmp_path / "run.yaml").write_text(text)
    assert main(["preview", "--config", f"{tmp_path}/run.yaml"]) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("missing", "words", "extra"),
    [
        ("jsonargparse", ["--total", "9"], 'llmopt preview needs jsonargparse: pip install "lightning-llmopt[cli]".'),
        ("matplotlib.figure", ["--total", "9", "--png", "a.png"], "lightning-llmopt[plot]"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, capsys, missing, words, extra):
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["preview", "wsd", *words]) == 2
    assert extra in capsys.readouterr().err


def test_in_a_terminal_rich_draws_the_table(monkeypatch, capsys):
    pytest.importorskip("rich")
    monkeypatch.setenv("FORCE_COLOR", "1")
    main(["preview", "wsd", "--warmup", "50%", "--total", "100"])
    out = capsys.readouterr().out
    assert "\x1b[" in out
    assert "…" not in out


def test_a_yaml_file_with_a_recipe_shows_what_the_recipe_plays(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(
        "trainer: {max_steps: 1000, callbacks: [{class_path: lightning_llmopt.recipes.UseRecipe, "
        "init_args: {name: llama2-7b, batch: 512, total: 512000}}]}"
    )
    assert main(["preview", "--config", f"{tmp_path}/run.yaml", "--csv", f"{tmp_path}/found.csv"]) == 0
    expected = UseRecipe("llama2-7b", batch=512, total=512_000).recipe.schedule().resolve(total_steps=1000)
    found = numbers(tmp_path / "found.csv")
    assert found[:1000] == pytest.approx([expected(step) for step in range(1000)], rel=1e-6)


def test_a_recipe_without_its_schedule_is_passed_over(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(
        "trainer: {max_steps: 10, callbacks: [{class_path: UseRecipe, init_args: {name: llama2-7b, schedule: false}}]}"
    )
    assert main(["preview", "--config", f"{tmp_path}/run.yaml"]) == 2
    assert "got none." in capsys.readouterr().err


def test_a_function_that_takes_an_option_of_ours_is_refused_by_name(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text("def wide(width: int = 4):\n    return None\n")
    monkeypatch.chdir(tmp_path)
    assert main(["preview", "mine.py:wide", "--total", "10"]) == 2
    assert capsys.readouterr().err == "llmopt: wide takes width, which llmopt has an option for. Name it otherwise.\n"


@pytest.mark.parametrize("written", ["x", "", "1e30", "3 epochs", "50%"])
def test_a_total_that_is_none_is_told_how_totals_are_written(capsys, written):
    assert main(["preview", "wsd", "--total", written]) == 2
    assert capsys.readouterr().err == (
        f"llmopt: --total must be updates, or tokens with --tokens-per-update, got {written!r}. "
        "Write it in updates, such as 10000 or 100k.\n"
    )
