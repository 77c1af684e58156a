"""``llmopt plan``: its options, and what it looks like in pipes and terminals."""

import re
import subprocess
import sys

import pytest

from lightning_llmopt.cli import main


def test_every_argument_reaches_the_plan(capsys):
    words = "--gpus 16 --gpus-per-node 4 --tensor 2 --pipeline 2 --sequence 512 --micro-batch 2 --accumulate 4"
    more = "--strategy zero1 --checkpointing 3 --optimizer lion --precision bf16_pure"
    main(["plan", "llama-2-7b", *words.split(), *more.split(), "--memory", "40 GiB"])
    out = capsys.readouterr().out
    assert "on 16 x 40.0 GiB" in out
    assert "sequence 512, micro-batch 2, accumulate 4, lion, bf16_pure" in out
    assert "ZeRO-1 4 x TP 2 x PP 2 with checkpointing 3 fits" in out


def test_in_a_pipe_it_is_plain_text_of_80_columns():
    command = [sys.executable, "-m", "lightning_llmopt.cli", "plan", "70B"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 1
    assert max(map(len, found.stdout.splitlines())) <= 80
    assert "\x1b" not in found.stdout


def test_in_a_terminal_rich_draws_it(monkeypatch, capsys):
    pytest.importorskip("rich")
    monkeypatch.setenv("FORCE_COLOR", "1")
    for columns, name in (("80", "param"), ("120", "parameters")):
        monkeypatch.setenv("COLUMNS", columns)
        main(["plan", "gpt2"])
        out = capsys.readouterr().out
        assert "\x1b[" in out
        assert f" {name} " in re.sub(r"\x1b\[[0-9;]*m", "", out)
        assert "…" not in out


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 118, 119, 120, 121, 122, 123, 200])
def test_no_terminal_is_so_narrow_that_digits_or_names_are_cut(monkeypatch, capsys, columns):
    pytest.importorskip("rich")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(columns))
    main(["plan", "70B"])
    out = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    rows = [line.split() for line in out.splitlines()]
    assert ["one", "device", "280", "0", "280", "560", "78.7", "0.79", "0", "280", "1,400", "no"] in rows
    assert next(row for row in rows if row[:1] == ["layout"])[-1] == "fits"


def test_under_no_color_a_terminal_gets_plain_text(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    main(["plan", "gpt2"])
    assert "\x1b" not in capsys.readouterr().out


def test_without_rich_it_prints_plain_text(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert main(["plan", "gpt2"]) == 0
    assert "FSDP2 with checkpointing 'none' fits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--gpu", "4"], "There is no --gpu. Did you mean --gpus? llmopt plan --help lists what there is."),
        (["--gpus", "x"], "--gpus must be a whole number, got 'x'."),
        (["--gpus"], "--gpus must have a value, got none."),
        (["more"], "'more' is one word too many. llmopt plan --help says what goes where."),
        (["--micro-batch", "0"], "--micro-batch must be a whole number >= 1, got 0."),
        (["--gpus", "0"], "--gpus must be a whole number >= 1, got 0."),
    ],
)
def test_what_is_wrong_is_said_with_the_way_out(capsys, words, sentence):
    assert main(["plan", "gpt2", *words]) == 2
    assert capsys.readouterr() == ("", f"llmopt: {sentence}\n")


def test_an_unknown_choice_is_told_the_nearest(capsys):
    assert main(["plan", "gpt2", "--optimizer", "adamv"]) == 2
    assert capsys.readouterr().err.endswith("got 'adamv'. Did you mean adamw?\n")
