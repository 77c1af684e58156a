"""``llmopt selftest``: one norm under every strategy, shown on this machine."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches

from . import NO
from ._parsing import Parser

ABOUT = """
Gradient norms, clipping and weights under every strategy, in real processes on
the CPU, next to one process that holds everything. No GPU is needed. All twelve
take some minutes; named ones are run alone.
"""
MORE = """
examples:
  llmopt selftest
  llmopt selftest ddp fsdp2

exit status:
  0  every strategy agrees to a relative 1e-6
  1  one does not, or fails
  2  there is no strategy of that name
"""


def run(words: Sequence[str]) -> int:
    """Run the strategies that were asked for; whether all agree."""
    parser = Parser("selftest", takes="[STRATEGY ...]", about=ABOUT, more=MORE)
    parser.add_argument("names", nargs="*", metavar="STRATEGY", help="a name, or its first word; all by default")
    asked = parser.parse_args(words).names
    from ..selftest.__main__ import main

    try:
        return main([name for word in asked for name in _meant(word)])
    except RuntimeError as error:  # a rank failed: its traceback is what there is to read
        print(error, file=sys.stderr)
        return NO


def _meant(word: str) -> list[str]:
    """Names of the strategies that a word stands for.

    Example:
        >>> _meant("fsdp2")
        ['FSDP2 2', 'FSDP2 4']
    """
    from ..selftest._places import PLACES

    found = [name for name in PLACES if word.casefold() in (name.casefold(), name.split()[0].casefold())]
    if not found:
        firsts = list(dict.fromkeys(name.split()[0] for name in PLACES))
        near = get_close_matches(word.upper(), firsts, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"STRATEGY must be one of {', '.join(firsts)}, got {word!r}.{hint}")
    return found
