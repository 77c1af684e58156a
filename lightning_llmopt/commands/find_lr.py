"""``llmopt find-lr``: a learning-rate range test."""

import argparse
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from textwrap import fill
from typing import Any

from . import NO, YES
from ._extras import needed
from ._importing import imported, in_a_line, made, settings_of
from ._parsing import Parser, file_ending, number, whole
from ._yaml import read_yaml

ABOUT = """
Which learning rate: some updates on your data, each at a higher rate, and what
the losses say about it. Every parameter group's own rate is multiplied, so
ratios are kept. Nothing is trained, logged or saved.

MODULE is an import path of a LightningModule, package.module:Name or
file.py:Name. With --config it may be left out if the YAML file names it
(model: class_path: ...).
"""
MORE = """
examples:
  llmopt find-lr train.py:Model --data train.py:Data --png rates.png
  llmopt find-lr --config run.yaml --steps 200
  llmopt find-lr train.py:Model --data train.py:loader --init width=512

exit status:
  0  a rate is suggested
  1  none is: the loss never falls beyond its noise
  2  an argument makes no sense, or something could not be built
"""
_OF_FIT_ONLY = ("ckpt_path", "weights_only")


def run(words: Sequence[str]) -> int:
    """Test, and print what was found."""
    options = _parser().parse_args(words)
    if options.module is None and options.config is None:
        raise ValueError("MODULE must be given, or --config FILE that names it.")
    if options.png:
        needed("matplotlib", by="--png")
    if not options.low < options.high:
        raise ValueError(f"--from must be below --to ({options.high:g}), got {options.low:g}.")
    with tempfile.TemporaryDirectory() as nowhere, _quiet():
        trainer, module, data = _from_config(options, nowhere) if options.config else _from_words(options, nowhere)
        finding = _tested(trainer, module, data, options)
    _show(finding)
    if options.png:
        finding.plot(options.png)
        print(f"Wrote {options.png}.")
    if options.csv:
        finding.save(options.csv)
        print(f"Wrote {options.csv}.")
    return YES if finding.steepest is not None else NO


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "find-lr", takes="MODULE [options]\n       llmopt find-lr --config FILE [options]", about=ABOUT, more=MORE
    )
    parser.add_argument("module", nargs="?", metavar="MODULE", help="import path of a LightningModule")
    parser.add_argument(
        "--data", metavar="PATH", help="import path of a LightningDataModule, or of a function that returns a loader"
    )
    for name, what in (("init", "MODULE"), ("data-init", "--data")):
        parser.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help=f"an argument of {what}; may be given again",
        )
    parser.add_argument("--config", metavar="FILE", help="YAML of LightningCLI: Trainer, model and data as it says")
    parser.add_argument("--steps", type=whole(least=10), default=100, metavar="N", help="rates to test (%(default)s)")
    parser.add_argument(
        "--from", dest="low", type=number(), default=1e-4, metavar="X", help="first multiplier of the base rates (1e-4)"
    )
    parser.add_argument("--to", dest="high", type=number(), default=1e3, metavar="X", help="the last one (1e3)")
    parser.add_argument(
        "--accelerator", default="auto", metavar="NAME", help="as of the Trainer; not with --config (auto)"
    )
    parser.add_argument("--seed", type=whole(least=0), default=0, metavar="N", help="of weights and data (%(default)s)")
    parser.add_argument("--png", type=file_ending(".png"), metavar="FILE", help="draw the curve (needs matplotlib)")
    parser.add_argument("--csv", type=file_ending(".csv"), metavar="FILE", help="write the numbers")
    return parser


def _from_words(options: argparse.Namespace, folder: str) -> tuple[Any, Any, Any]:
    """Trainer, module and data as the command line names them."""
    from .._lightning import Trainer, seed_everything

    given, data_given = settings_of(options.init, name="--init"), settings_of(options.data_init, name="--data-init")
    seed_everything(options.seed, verbose=False)
    module = made(imported(options.module, name="MODULE"), given, path=options.module, name="MODULE")
    data = None
    if options.data is not None:
        target = imported(options.data, name="--data")
        data = made(target, data_given, path=options.data, name="--data", into="--data-init")
    try:
        trainer = Trainer(
            accelerator=options.accelerator, devices=1, max_steps=options.steps, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        )  # fmt: skip
    except Exception as error:
        raise ValueError(f"--accelerator {options.accelerator!r}: {error}") from error
    return trainer, module, data


def _from_config(options: argparse.Namespace, folder: str) -> tuple[Any, Any, Any]:
    """Trainer, module and data as LightningCLI makes them of the file."""
    needed("jsonargparse", by="--config")
    from ..configs import LLMOptCLI

    written = {key: value for key, value in read_yaml(Path(options.config)).items() if key not in _OF_FIT_ONLY}
    trainer = dict(written.get("trainer") or {})
    written["trainer"] = {**trainer, "logger": False, "enable_checkpointing": False, "default_root_dir": folder}
    classes = {}
    for argument, path in (("model_class", options.module), ("datamodule_class", options.data)):
        if path is not None:
            classes[argument] = imported(path, name="MODULE" if argument == "model_class" else "--data")
    if "model_class" not in classes and "class_path" not in (written.get("model") or {}):
        raise ValueError(
            f"--config {options.config!r} does not name a model (model: class_path: ...): give MODULE as well, as in "
            f"`llmopt find-lr train.py:Model --data train.py:Data --config {options.config}`."
        )
    written.setdefault("seed_everything", options.seed)
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            made_by = LLMOptCLI(
                **classes, args=written, run=False, save_config_callback=None,
                subclass_mode_model="model_class" not in classes, subclass_mode_data="datamodule_class" not in classes,
            )  # fmt: skip
    except SystemExit as error:
        lines = [line.removeprefix("error: ") for line in said.getvalue().splitlines() if line.strip()]
        raise ValueError(f"--config {options.config!r}: {' '.join(lines)}") from error
    except Exception as error:  # a module or data module of the user's
        raise ValueError(f"--config {options.config!r}: {in_a_line(error)}.") from error
    return made_by.trainer, made_by.model, made_by.datamodule


def _tested(trainer: Any, module: Any, data: Any, options: argparse.Namespace) -> Any:
    """What ``find_lr`` finds."""
    from .._lightning import LightningDataModule, LightningModule
    from ..callbacks import find_lr

    if not isinstance(module, LightningModule):
        raise ValueError(f"MODULE must be a LightningModule or make one, got {type(module).__name__}.")
    where = "datamodule" if isinstance(data, LightningDataModule) else "train_dataloaders"
    limits = {"min_multiplier": options.low, "max_multiplier": options.high, "steps": options.steps}
    try:
        return find_lr(trainer, module, **{where: data}, **limits)
    except Exception as error:  # the user's own code runs in there
        hint = " Give --data." if data is None and options.config is None else ""
        raise ValueError(f"The test failed: {in_a_line(error)}.{hint}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's lines about devices and the callbacks' tables out of what is printed."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _show(finding: Any) -> None:
    """The suggestions in 80 columns, and the rates of the groups if there are several."""
    about, *groups = str(finding).split("\n\n")
    lines = about.splitlines()
    print(fill(lines[0], 79), end="\n\n")
    for one in finding.suggestions.values():
        print(fill(one.reason, 79, initial_indent=_cells(one), subsequent_indent=" " * len(_cells(one))))
    if finding.steepest is None:
        print(fill(lines[-1], 79))
    if groups:
        print(f"\n{groups[0]}")


def _cells(one: Any) -> str:
    return f"{one.name:<9}{one.rate:>10.3g}  (x {one.multiplier:.3g})".ljust(34)
