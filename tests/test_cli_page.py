"""docs/cli.md: every command of it is called, and prints what stands there."""

import re
import shlex
from pathlib import Path

import pytest

from lightning_llmopt.cli import main

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"
MEASURED = ("llmopt find-lr", "llmopt selftest")  # rounding differs between machines


def commands():
    """Each command of the page with what it printed."""
    for block in re.findall(r"^```console\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield command, output.rstrip()


def matches(command, said, output):
    """Whether the page says what was printed; ``...`` stands for anything, and measured numbers for each other."""
    if command.startswith(MEASURED):
        said, output = (re.sub(r"[ -]+", " ", re.sub(r"\d[\d.]*(e-?\d+)?", "#", text)) for text in (said, output))
    return re.fullmatch(re.escape(said).replace(r"\.\.\.", ".*"), output, re.DOTALL) is not None


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_every_command_prints_what_the_page_says(tmp_path, monkeypatch, capsys):
    pytest.importorskip("jsonargparse")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    seen = set()
    for command, said in commands():
        if command.startswith("cd "):
            monkeypatch.chdir(Path.cwd() / command[3:])
            continue
        main(shlex.split(command)[1:])
        out, err = capsys.readouterr()
        assert matches(command, said, (out + err).rstrip()), f"{command}\n{out}{err}"
        seen.add(command.split()[1])
    assert {"preview", "groups", "plan", "find-lr", "init", "selftest"} <= seen


def test_the_first_lines_of_the_yaml_file_are_those_of_the_page(tmp_path, monkeypatch):
    pytest.importorskip("jsonargparse")
    command = next(one for one, _ in commands() if one.startswith("llmopt init"))
    monkeypatch.chdir(tmp_path)
    main(shlex.split(command)[1:])
    shown = re.search(r"^```yaml\n(# Written by.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)[1]
    assert (tmp_path / "my_run" / "run.yaml").read_text().startswith(shown)
