"""``llmopt recipes``: what others trained with."""

import argparse
import textwrap
from collections.abc import Sequence

from ..planning.tables import Grid
from ..recipes import Recipe, recipe, recipes
from . import YES
from ._parsing import Parser
from ._printing import show
from ._sentences import as_options

ABOUT = """
Published runs by name: every value with its source, and a mark where it is
unverified. Without NAME all are listed. With --batch, --total or --size the
values are changed to fit your run, and it is said how and why.
"""
MORE = """
examples:
  llmopt recipes
  llmopt recipes llama2-7b
  llmopt recipes llama2-7b --batch 500k --total 10B

in Python and YAML:
  lightning_llmopt.recipes.UseRecipe("llama2-7b") is a callback that trains so

exit status:
  0  it was shown
  2  there is no recipe of that name, or it cannot be changed like that
"""
_LIST = ("recipe", "size", "optimizer", "rate", "schedule", "batch", "total", "clip")


def run(words: Sequence[str]) -> int:
    """Show one recipe, or all."""
    options = _parser().parse_args(words)
    changes = {name: getattr(options, name) for name in ("batch", "total", "size")}
    changes = {name: value for name, value in changes.items() if value is not None}
    if options.name is None:
        if changes:
            raise ValueError(f"--{next(iter(changes))} changes one recipe: NAME must be given.")
        _show_all()
        return YES
    found = recipe(options.name)
    if changes:
        try:
            found = found.rescaled(**changes, rule=options.rule, extrapolate=options.extrapolate)
        except ValueError as error:
            raise as_options(error, changes) from error
    title, *lines = str(found).replace("verified", "checked", 1).splitlines()  # one letter less, for 80 columns
    end = next(at for at, line in enumerate(lines) if line.startswith("[1] "))
    print("\n".join([title, *_narrowed(lines[:end]), *map(_wrapped, lines[end:])]))
    return YES


def _parser() -> argparse.ArgumentParser:
    parser = Parser("recipes", takes="[NAME] [options]", about=ABOUT, more=MORE)
    parser.add_argument("name", nargs="?", metavar="NAME", help="a recipe; all are listed without one")
    parser.add_argument("--batch", metavar="TOKENS", help="tokens of an update in your run, such as 500k")
    parser.add_argument("--total", metavar="TOKENS", help="tokens of your run, such as 10B, or chinchilla")
    parser.add_argument("--size", metavar="N", help="parameters of your model, such as 1.3B")
    parser.add_argument(
        "--rule", choices=("sqrt", "linear"), default="sqrt", metavar="RULE",
        help="how the rate goes with the batch: sqrt or linear (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--extrapolate", action="store_true", help="answer beyond what was published or fitted too: with a guess"
    )
    return parser


def _show_all() -> None:
    rows = tuple(_row(one) for one in recipes())
    show(Grid("", _LIST, _LIST, rows), plain=_as_text(rows), left=("optimizer", "schedule"))
    print("\n`llmopt recipes NAME` shows one, with its sources and what is unverified.")


def _row(one: Recipe) -> tuple[str, ...]:
    """The recipe in a line of 80 columns."""
    from ..recipes._words import in_words

    optimizer = str(one.value("optimizer", "")).rpartition(".")[2]
    rate = f"{one.value('peak_lr'):.1e}" if "peak_lr" in one else ""
    total = in_words(one.value("total", "")).removesuffix(" tokens")
    rest = (one.value("schedule", ""), in_words(one.value("batch", "")), total, in_words(one.value("max_norm", "")))
    return (one.name, in_words(one.value("size", "any")), optimizer, rate, *map(str, rest))


def _as_text(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(_LIST, *rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (_LIST, *rows)
    )


def _narrowed(lines: Sequence[str], width: int = 80) -> list[str]:
    """The rows of a table with gaps of one space instead of two, from the left, until they are narrow enough.

    Example:
        >>> _narrowed(["a    bb  c", "aaa  b   c"], width=9)
        ['a   bb  c', 'aaa b   c']
    """
    rows = [line.ljust(max(map(len, lines))) for line in lines]
    place = 0
    while max(len(row.rstrip()) for row in rows) > width and place < len(rows[0]) - 1:
        if all(row[place : place + 2] == "  " for row in rows):
            rows = [row[:place] + row[place + 1 :] for row in rows]
        else:
            place += 1
    return [row.rstrip() for row in rows]


def _wrapped(line: str) -> str:
    """Sources and remarks are sentences."""
    return textwrap.fill(line, 79, subsequent_indent="    ", break_on_hyphens=False)
