"""Commands that the pages show: those of ``llmopt`` run, and of the others it is checked that they could.

A command is a line after ``$ `` in a ``console`` block, a line of a ``bash`` block, or inline code that begins with a
program of ``RULES``. ``check`` answers None, or what is wrong with it.
"""

import contextlib
import functools
import itertools
import multiprocessing
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from lightning_llmopt.cli import main

from pages import ROOT, Block, agrees, blocks_of, heard, prose_of

SETS_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*=\S*")
SESSION = "run as it stands"  # the comment above a block whose commands follow on from one another
PLACEHOLDER = re.compile(r"^[A-Z][A-Z_]*$|\.\.\.|^<.*>$")


def commands_of(page: Path) -> Iterator[tuple[str, str, str | None]]:
    """Where each command stands, the command, and what the page shows of its output, if its block shows one command."""
    for block in blocks_of(page):
        if block.language in ("console", "bash") and not block.not_run and block.note != SESSION:
            lines = list(_lines(block))
            for line in lines:
                yield block.place, line, block.output if len(lines) == 1 else None
    for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose_of(page)):
        if code.split()[0] in RULES and " " in code and not code.startswith(("touch", "kill", "python -m pip")):
            yield str(page.relative_to(ROOT)), code, None


def _lines(block: Block) -> Iterator[str]:
    """Commands of a block, continued lines put together."""
    text = re.sub(r"\\\n>? *", " ", block.text)
    marked = re.findall(r"^\$ (.*)$", text, flags=re.MULTILINE)
    for line in marked or text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()


def failure_of_session(block: Block, folder: Path) -> str | None:
    """What the commands of a block end with, run by a shell in ``folder`` one after the other; None if all do well."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(_lines(block))],
        cwd=folder, env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=400,
    )  # fmt: skip
    return (
        None if done.returncode == 0 else f"exit status {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    )


def printed_by(block: Block) -> str:
    """What the one ``llmopt`` command of a block prints."""
    (command,) = _lines(block)
    with heard() as said:
        main(shlex.split(command)[1:])
    return said.getvalue()


def check(command: str, *, page: Path, expected: str | None = None) -> str | None:
    """What is wrong with a command, None if nothing is."""
    words = shlex.split(command, comments=True)
    while words and SETS_VARIABLE.fullmatch(words[0]):
        words.pop(0)
    if not words:
        return None
    rule = RULES.get(Path(words[0]).name)
    if rule is None:
        return f"there is no rule for {words[0]!r} in tests/shell_commands.py: add one to RULES, or mark the block."
    if rule is _llmopt:
        return _llmopt(words, page, expected)
    return rule(words, page)


def _make(words: list[str], page: Path) -> str | None:
    result = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
    return None if result.returncode == 0 else f"there is no target like that: {result.stderr.strip()}"


def _pip(words: list[str], page: Path) -> str | None:
    """Nothing is installed: files and extras that are named have to be there."""
    section = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = set(re.findall(r"^([\w-]+) = ", section, flags=re.MULTILINE))
    for before, word in itertools.pairwise(words):
        if before in ("-c", "-r") and not (ROOT / word).exists():
            return f"no such file: {word}"
        asked = re.fullmatch(r"(?:lightning-llmopt|\.)\[([\w,-]+)\]", word)
        if unknown := set(asked[1].split(",")) - extras if asked else set():
            return f"no such extra: {sorted(unknown)}, there are {sorted(extras)}."
    return None


def _python(words: list[str], page: Path) -> str | None:
    """The script or module is there, and knows the options."""
    if words[1] == "-m" and words[2] in ("pip", "venv", "pytest", "http.server"):
        return _pip(words[2:], page) if words[2] == "pip" else None
    if words[1] == "-c":
        compile(words[2], "command", "exec")
        return None
    if words[1] == "-m":
        return _knows(("-m", words[2]), words[3:])
    if f"# {words[1]}\n" in page.read_text():  # a script that the page itself shows
        options = [word for word in words[2:] if word.startswith("--")]
        return next((f"the script above takes no {one}" for one in options if f'"{one}"' not in page.read_text()), None)
    if not (ROOT / words[1]).exists():
        return f"no such file: {words[1]}"
    if "argparse" not in (ROOT / words[1]).read_text().lower():
        return None
    return _knows((str(ROOT / words[1]),), words[2:])


def _knows(program: tuple[str, ...], options: list[str]) -> str | None:
    """Whether ``--help`` of a Python program names the options."""
    said = _help(program)
    if isinstance(said, int):
        return f"--help ends with exit status {said}"
    asked = [word.split("=")[0] for word in options if word.startswith("--")]
    return next((f"--help knows no {one}" for one in asked if not re.search(rf"{one}\b", said)), None)


@functools.cache
def _help(program: tuple[str, ...]) -> str | int:
    """What ``--help`` prints, or the exit status; in a fork, which has torch imported already."""
    with tempfile.NamedTemporaryFile("r") as said:
        process = multiprocessing.get_context("fork").Process(target=_print_help, args=(program, said.name))
        process.start()
        process.join(60)
        return said.read() if process.exitcode == 0 else process.exitcode or 0


def _print_help(program: tuple[str, ...], file: str) -> None:
    warnings.simplefilter("ignore")
    with open(file, "w") as said, contextlib.redirect_stdout(said):
        sys.argv = [program[-1], "--help"]
        if program[0] == "-m":
            sys.path.insert(0, str(ROOT))
            runpy.run_module(program[1], run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(program[0]).parent))
            runpy.run_path(program[0], run_name="__main__")


def _llmopt(words: list[str], page: Path, expected: str | None = None) -> str | None:
    """Runs; 1 is the answer no, and no fault. Named alone or with placeholders (PATH), only its help is asked for."""
    if len(words) == 2 or any(PLACEHOLDER.search(word) for word in words[1:]):
        words = ["llmopt", *([words[1]] if words[1:] and not PLACEHOLDER.search(words[1]) else []), "--help"]
    with heard() as said:
        status = main(words[1:])
    if status not in (0, 1):
        return f"it ends with exit status {status}:\n{said.getvalue()}"
    if expected is not None and not agrees(said.getvalue(), expected):
        return f"it prints something else than the output block under it:\n{said.getvalue()}"
    return None


def _installed(words: list[str], page: Path) -> str | None:
    """A program of an environment with our extras, or of every shell."""
    here = Path(sys.executable).with_name(Path(words[0]).name).exists() or shutil.which(words[0])
    return None if here else f"there is no {words[0]} here"


def _elsewhere(words: list[str], page: Path) -> str | None:
    """A program of another machine (SLURM's, git's): only that the line is one."""
    return None


RULES: dict[str, Callable[..., str | None]] = {
    "make": _make,
    "pip": _pip,
    "python": _python,
    "llmopt": _llmopt,
    **dict.fromkeys(("tensorboard", "torchrun", "ruff", "pre-commit", "sphinx-build"), _installed),
    **dict.fromkeys(("touch", "kill", "cd", "export", "ls", "cat", "mkdir"), _elsewhere),
    **dict.fromkeys(("srun", "sbatch", "git", "source", "ds_report", "nvidia-smi"), _elsewhere),
}
