"""The console command: what it prints, and what its exit status means."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_llmopt.commands.plan
from lightning_llmopt import __version__
from lightning_llmopt.cli import BROKEN_PIPE, INTERRUPTED, main
from lightning_llmopt.commands import COMMANDS

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
CLI = [sys.executable, "-m", "lightning_llmopt.cli"]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["plan", "gpt2"], 0),
        (["plan", "70B"], 1),
        (["plan", "70B", "--gpus", "64", "--checkpointing", "every_block", "--memory", "80 GiB"], 0),
        (["plan", "gpt2", "--gpus", "1", "--memory", "1 GB", "--checkpointing", "2"], 1),
        (["plan", "seventy"], 2),
        (["plan", "70B", "--memory", "much"], 2),
        (["plan", "70B", "--optimizer", "adam9"], 2),
        (["plan"], 2),
        ([], 2),
        (["plan", "--help"], 0),
        (["--help"], 0),
        (["--version"], 0),
        (["plann", "gpt2"], 2),
    ],
)
def test_the_exit_status_says_whether_it_fits(capsys, arguments, status):
    assert main(arguments) == status
    out, err = capsys.readouterr()
    assert bool(err) == (status == 2)
    assert bool(out) == (status != 2)


def test_bad_input_is_one_sentence(capsys):
    main(["plan", "70B", "--tensor", "3"])
    assert capsys.readouterr().err == "llmopt: --tensor * pipeline must divide gpus (8), got 3 * 1.\n"


def test_the_console_script_is_installed_with_the_package():
    assert 'llmopt = "lightning_llmopt.cli:main"' in PYPROJECT.read_text()


def test_the_help_names_every_command_and_every_command_is_a_module(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert all(f"\n  {name} " in out and what in out for name, what in COMMANDS.items())
    files = {path.stem for path in Path(lightning_llmopt.commands.__file__).parent.glob("*.py") if path.name[0] != "_"}
    assert files == {name.replace("-", "_") for name in COMMANDS}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_examples_and_exit_statuses_in_80_columns(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"llmopt {command} " in out.partition("examples:")[2]
    assert "\n  0  " in out.partition("exit status:")[2]
    assert "\n  2  " in out.partition("exit status:")[2]
    assert max(map(len, out.splitlines())) <= 80
    assert "==" not in out
    assert "%%" not in out


def test_the_version_is_that_of_the_package(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"lightning-llmopt {__version__}\n"


@pytest.mark.parametrize(
    ("typed", "meant"), [("plann", "plan"), ("preveiw", "preview"), ("find_lr", "find-lr"), ("selftests", "selftest")]
)
def test_a_misspelt_command_is_told_what_was_meant(capsys, typed, meant):
    assert main([typed]) == 2
    err = capsys.readouterr().err
    assert err.startswith("llmopt: COMMAND must be one of preview, ")
    assert err.endswith(f"got {typed!r}. Did you mean {meant}?\n")


@pytest.mark.parametrize("words", [["--help"], ["plan", "70B"], ["plan", "--help"], ["init", "--help"], ["recipes"]])
def test_without_need_neither_torch_nor_lightning_is_imported(words):
    code = f"import sys; from lightning_llmopt.cli import main; main({words!r}); print(*sys.modules, file=sys.stderr)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not {"torch", "lightning", "jsonargparse", "matplotlib"} & set(found.stderr.split())
    assert found.stdout


def test_whoever_stops_reading_sees_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    found = subprocess.run([*CLI, "plan", "gpt2"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (found.returncode, found.stderr) == (BROKEN_PIPE, "")


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, EOFError])
def test_an_interrupt_is_quiet(monkeypatch, capsys, interrupt):
    def stopped(words):
        raise interrupt

    monkeypatch.setattr(lightning_llmopt.commands.plan, "run", stopped)
    assert main(["plan", "gpt2"]) == INTERRUPTED
    assert capsys.readouterr() == ("", "")


def test_a_file_that_cannot_be_read_is_a_sentence(monkeypatch, capsys):
    def absent(words):
        raise FileNotFoundError(2, "No such file or directory", "run.yaml")

    monkeypatch.setattr(lightning_llmopt.commands.plan, "run", absent)
    assert main(["plan", "gpt2"]) == 2
    assert capsys.readouterr().err == "llmopt: run.yaml: No such file or directory.\n"


def test_a_terminal_without_the_characters_of_a_plot_still_gets_one():
    pytest.importorskip("jsonargparse")
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    found = subprocess.run(
        [*CLI, "preview", "wsd", "--total", "9"], env=ascii_only, capture_output=True, text=True, encoding="ascii"
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert "stable " in found.stdout
