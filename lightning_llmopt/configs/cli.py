"""Lightning's command line, whose refusals are sentences."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from typing_extensions import override

from .. import callbacks as callbacks  # imported, a class is known by its bare name
from .._lightning import LightningArgumentParser, LightningCLI, MisconfigurationException, StrategyRegistry
from ..recipes.use_recipe import UseRecipe as UseRecipe  # likewise
from ..schedules.nearest import did_you_mean
from ..strategies.presets import PREFIX
from .refusals import explain

BAD_INPUT = 2


class LLMOptCLI(LightningCLI):
    """``LightningCLI`` in whose files our classes need no import path, and that says in a sentence what is wrong.

    Everything else is ``LightningCLI``, arguments included; what can be written for one can be written for the other.
    Here callbacks are known by name (``class_path: LRSchedule``), ``UseRecipe`` too, and presets are registered
    (``strategy: llmopt_fsdp2``), as they are elsewhere once ``lightning_llmopt.callbacks``, ``.recipes.use_recipe`` and
    ``.strategies`` are imported.

    A wrong value ends the process with exit status 2 and a line for each fault: field, rule, value got, and what may
    have been meant. A module, data module or callback of yours that fails shows its traceback as before.

    Raises:
        SystemExit: With status 2, if the configuration is refused.
        ModuleNotFoundError: Without jsonargparse: ``pip install "lightning-llmopt[cli]"``.

    Example::

        # train.py, to be run as: python train.py fit --config run.yaml
        from lightning_llmopt.configs import LLMOptCLI
        from mine import MyData, MyModule

        LLMOptCLI(MyModule, MyData)
    """

    @override
    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        return super().init_parser(**{"exit_on_error": False, **kwargs})

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        with _in_sentences():
            super().parse_arguments(parser, args)

    @override
    def instantiate_classes(self) -> None:
        self._refuse_unknown_preset()
        with _in_sentences():
            super().instantiate_classes()

    @override
    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except MisconfigurationException as error:  # only where settings clash, and it says what to change
            _leave(str(error))

    def _refuse_unknown_preset(self) -> None:
        """Lightning's own refusal of a strategy names neither ours nor what was near."""
        config = self.config[self.subcommand] if self.subcommand else self.config
        wanted, known = config.get("trainer.strategy"), StrategyRegistry.available_strategies()
        if isinstance(wanted, str) and wanted.startswith(PREFIX.rstrip("_")) and wanted not in known:
            ours = [name for name in known if name.startswith(PREFIX)]
            _leave(f"trainer.strategy: must be one of {ours}, got {wanted!r}.{did_you_mean(wanted, ours)}")


@contextmanager
def _in_sentences() -> Iterator[None]:
    try:
        yield
    except argparse.ArgumentError as error:
        _leave(explain(str(error)))
    except (ValueError, TypeError, RuntimeError, MisconfigurationException) as error:  # RuntimeError: the Trainer's
        if not _is_ours(error):
            raise
        _leave(explain(str(error)))


def _leave(words: str) -> None:
    print(*(f"error: {line}" for line in words.splitlines()), sep="\n", file=sys.stderr)
    raise SystemExit(BAD_INPUT)


def _is_ours(error: BaseException) -> bool:
    """Whether one of our own refusals is behind it, whatever that one was made of, or the Trainer's."""
    rooms: list[list[str]] = []
    behind: BaseException | None = error
    while behind is not None:
        error, behind = behind, behind.__cause__ or behind.__context__
        rooms.append(_innermost(error.__traceback__).split("."))
    of_trainer = "lightning" in rooms[-1][0] and "trainer" in rooms[-1]
    ours = any(room[0] == "lightning_llmopt" for room in rooms)
    return ours or of_trainer or isinstance(error, MisconfigurationException)


def _innermost(trace: TracebackType | None) -> str:
    """Name of the module in which an exception was raised."""
    name = ""
    while trace is not None:
        name = trace.tb_frame.f_globals.get("__name__", "")
        trace = trace.tb_next
    return str(name)
