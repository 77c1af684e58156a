"""``llmopt init``: a commented YAML file and a script that runs."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import YES
from ._parsing import Parser, number, whole
from ._starter import PRECISIONS, STRATEGIES, Choices, yaml_of
from ._toy import BATCH, LENGTH, SCRIPT

CONFIG, TRAIN = "run.yaml", "train.py"
ABOUT = f"""
A new run: {CONFIG} for LightningCLI, every setting with a comment, and {TRAIN}
with a toy model and toy data, so that it runs at once. Put your module and data
in their place. In a terminal, without options, it asks.
"""
MORE = """
examples:
  llmopt init
  llmopt init my_run --schedule cosine --warmup 2000 --total 100000 --lr 3e-4
  llmopt init my_run --recipe llama2-7b --total 1000
  llmopt init my_run --strategy fsdp2 --clip 0.5 --layer-decay 0.9 --force

exit status:
  0  both files were written
  2  an argument makes no sense, or a file is there already (--force writes over
     it)
"""


def run(words: Sequence[str]) -> int:
    """Write both files."""
    options = vars(_parser().parse_args(words))
    folder, force = Path(options.pop("folder")), options.pop("force")
    there = [str(folder / name) for name in (CONFIG, TRAIN) if (folder / name).exists()]
    if there and not force:
        raise ValueError(
            f"FOLDER must not hold {CONFIG} or {TRAIN} yet, got {', '.join(there)}. Name another one, or write over "
            "them with --force."
        )
    _refuse_beside_recipe(options)
    given = {name: _without_none(value) for name, value in options.items() if value is not None}
    choices = _asked() if not given and sys.stdin.isatty() else Choices(**given)
    config = yaml_of(choices, config=CONFIG, script=TRAIN)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(config, encoding="utf-8")
    (folder / TRAIN).write_text(SCRIPT.format(config=CONFIG, batch=BATCH, length=LENGTH), encoding="utf-8")
    go = "" if folder == Path() else f"cd {folder} && "
    print(f"Wrote {folder / CONFIG} and {folder / TRAIN}. Run them:\n  {go}python {TRAIN} fit --config {CONFIG}")
    return YES


def _parser() -> argparse.ArgumentParser:
    parser = Parser("init", takes="[FOLDER] [options]", about=ABOUT, more=MORE)
    parser.add_argument("folder", nargs="?", default=".", metavar="FOLDER", help="where to write (this folder)")
    for name, read, metavar, what in _OPTIONS:
        usual = getattr(Choices(), name)
        text = f"{what} ({'none' if usual is None else usual})".replace("%", "%%")
        parser.add_argument(f"--{name.replace('_', '-')}", type=read, metavar=metavar, help=text)
    parser.add_argument("--force", action="store_true", help="write over files that are there")
    return parser


def _asked() -> Choices:
    """One question for each choice; Enter keeps what is in brackets."""
    choices = Choices()
    for name, read, _, what in _OPTIONS:
        while not (choices.recipe and name in _BROUGHT):
            usual = getattr(choices, name)
            answer = input(f"{name.replace('_', '-')}: {what} [{'none' if usual is None else usual}] ").strip()
            if not answer:
                break
            try:
                choices = replace(choices, **{name: _without_none(read(answer))})
                break
            except argparse.ArgumentTypeError as error:
                print(f"  {name} {error}")
            except ValueError as error:
                print(f"  {error}")
    return choices


def _refuse_beside_recipe(options: dict[str, Any]) -> None:
    both = [name for name in _BROUGHT if options[name] is not None]
    if both and options["recipe"] not in (None, "none"):
        raise ValueError(f"--recipe brings its own {', '.join(_BROUGHT)}, got --{both[0]} as well. Drop one of them.")


def _or_none(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Reads ``none`` as it stands: to an option that was not given, ``None`` is another thing."""
    return lambda text: text if text == "none" else read(text)


def _without_none(value: Any) -> Any:
    return None if value == "none" else value


_BROUGHT = ("schedule", "warmup", "lr", "clip")  # by a recipe
_OPTIONS: tuple[tuple[str, Callable[[str], Any], str, str], ...] = (
    ("recipe", str, "NAME", "a published run that `llmopt recipes` lists, or none"),
    ("schedule", str, "NAME", "one that `llmopt preview --help` lists"),
    ("total", whole(), "N", "length of the run in updates"),
    ("warmup", str, "LENGTH", "2000, 2%, or none for the schedule's own"),
    ("lr", number(), "RATE", "base rate"),
    ("clip", _or_none(number()), "NORM", "largest gradient norm, or none"),
    ("precision", str, "NAME", ", ".join(PRECISIONS)),
    ("strategy", str, "NAME", ", ".join(STRATEGIES)),
    ("layer_decay", _or_none(number(most=1)), "RATIO", "rate of a layer over that of the one above it"),
)
