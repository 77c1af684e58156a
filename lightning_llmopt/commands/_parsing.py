"""Parsers whose help reads like a page and whose refusals are sentences."""

import argparse
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

from ._sentences import sentence


class Refusing:
    """What parsers of argparse and of jsonargparse do with input that they do not understand."""

    prog: str
    _option_string_actions: dict[str, Any]

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say it in a sentence.

        Raises:
            ValueError: Always; the door prints it.
        """
        raise ValueError(sentence(message, options=self._option_string_actions, command=self.prog)) from ex


class Parser(Refusing, argparse.ArgumentParser):
    """A parser of the standard library, for commands that need nothing else.

    Args:
        command: Name of the subcommand.
        takes: What follows it, for the line of usage.
        about: What it does; printed as it stands.
        more: Examples and the like, printed as they stand behind the options.
    """

    def __init__(self, command: str, *, takes: str, about: str, more: str) -> None:
        super().__init__(**settings(command, takes=takes, about=about, more=more))


def settings(command: str, *, takes: str, about: str, more: str) -> dict[str, Any]:
    """Arguments that parsers of both kinds are made with."""
    return {
        "prog": f"llmopt {command}",
        "usage": f"llmopt {command} {takes}",
        "description": about.strip(),
        "epilog": more.strip(),
        "allow_abbrev": False,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def whole(*, least: int = 1) -> Callable[[str | int], int]:
    """Reads a whole number that is not below ``least``.

    Example:
        >>> whole()("12")
        12
    """

    def read(text: str | int) -> int:  # jsonargparse asks again about what it has read
        if not re.fullmatch(r"[+-]?\d{1,30}", str(text).strip()) or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number >= {least}, got {text!r}.")
        return int(text)

    return read


def number(*, above: float = 0.0, most: float = math.inf, or_equal: bool = False) -> Callable[[str | float], float]:
    """Reads a finite number above ``above`` (or equal to it) and not over ``most``.

    Example:
        >>> number()("3e-4")
        0.0003
    """
    rule = f"{'>=' if or_equal else '>'} {above:g}" + (f" and <= {most:g}" if most < math.inf else "")

    def read(text: str | float) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or not (above < value or (or_equal and value == above)) or value > most:
            raise argparse.ArgumentTypeError(f"must be a finite number {rule}, got {text!r}.")
        return value

    return read


def file_ending(ending: str) -> Callable[[str], str]:
    """Reads the name of a file with this ending.

    Example:
        >>> file_ending(".png")("curves/lr.png")
        'curves/lr.png'
    """

    def read(text: str) -> str:
        if not text.endswith(ending):
            raise argparse.ArgumentTypeError(f"must be a file that ends in {ending}, got {text!r}.")
        return text

    return read
