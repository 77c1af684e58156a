"""``llmopt doctor``: what a checkpoint or a run's folder holds, and what is wrong with it."""

from collections.abc import Sequence
from textwrap import fill

from ..checkpoints import Diagnosis, diagnose
from . import NO, YES
from ._parsing import Parser
from ._printing import terminal

ABOUT = """
What a checkpoint or the folder of a run holds, and what is wrong with it:
whether files are whole (structure, checksums), every shard is there, which
callbacks are in it, and where its schedule stands. Nothing is unpickled: a file
that would run code is told, and not obeyed.

PATH is a file of torch.save or the Trainer, a sharded checkpoint (FSDP, FSDP2,
tensor parallel), a checkpoint of DeepSpeed, or a folder with any of them.
"""
MORE = """
examples:
  llmopt doctor lightning_logs/version_0
  llmopt doctor last.ckpt && python train.py fit --ckpt_path last.ckpt

exit status:
  0  no faults
  1  something is broken, missing, or would run code
  2  there is nothing at PATH
"""
_STYLES = {"error": "red", "warning": "yellow"}


def run(words: Sequence[str]) -> int:
    """Print what was found; whether there is no fault."""
    parser = Parser("doctor", takes="PATH", about=ABOUT, more=MORE)
    parser.add_argument("path", metavar="PATH", help="checkpoint, or folder of a run")
    found = diagnose(parser.parse_args(words).path)
    _show(found)
    return YES if found.ok else NO


def _show(found: Diagnosis) -> None:
    console = terminal()
    for line in str(found).splitlines():
        if console is None:
            print(line)
        else:
            style = _STYLES.get(next(iter(line.split()), ""))
            further = " " * (len(line) - len(line.lstrip()) + 4)
            console.print(
                fill(line, console.width, subsequent_indent=further), style=style, highlight=False, markup=False
            )
