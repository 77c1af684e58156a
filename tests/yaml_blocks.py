"""YAML of the pages, put before LightningCLI: whole configurations, or the piece of one that a page is about."""

import inspect
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from jsonargparse import ArgumentError
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI

OF_TRAINER = set(inspect.signature(Trainer).parameters)
OF_SCHEDULES = ("recipe", "phases")


class Reader(LightningCLI):
    """Reads a configuration and makes what it names, callbacks, schedules and strategies, but no Trainer: that would
    want the page's GPUs."""

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        return None


def parse(text: str, folder: Path) -> str | None:
    """What LightningCLI says against the block, None if it takes it."""
    whole = _whole(yaml.safe_load(text))
    if isinstance(whole, str):
        return whole
    file = folder / "block.yaml"
    file.write_text(yaml.safe_dump(whole, sort_keys=False))
    arguments = ["run.py", "--config", str(file)]
    try:
        with mock.patch("sys.argv", arguments):
            Reader(
                run=False, save_config_callback=None, seed_everything_default=0, parser_kwargs={"exit_on_error": False}
            )
    except (ArgumentError, ValueError, TypeError) as error:
        return str(error)
    return None


def _whole(block: Any) -> dict[str, Any] | str:
    """A configuration around the piece; a sentence if nobody knows which piece it is."""
    if isinstance(block, list):
        return _whole({"callbacks": block})
    if not isinstance(block, dict):
        return f"a block is a mapping or a list of callbacks, got {type(block).__name__}."
    if "class_path" in block:
        return _whole({"callbacks": [block]})
    if block.keys() & {"fit", "validate"}:
        return _whole(block.get("fit") or block["validate"])
    if block.keys() & set(OF_SCHEDULES) or block.keys() == {"schedule"}:
        rate = {"class_path": "lightning_llmopt.callbacks.LRSchedule"}
        return _whole({"callbacks": [{**rate, "init_args": {"schedule": block.get("schedule", block)}}]})
    if block.keys() <= OF_TRAINER:
        return _whole({"trainer": block})
    if "trainer" not in block and "model" not in block:
        return (
            f"it has neither a trainer nor keys of one: {sorted(block)}. Mark it `<!-- not run: an excerpt of ... -->`."
        )
    # an instance is made of it, so a module with no arguments stands in for the reader's own
    return {"model": {"class_path": "toys.AnyLightningModule"}, **block}
