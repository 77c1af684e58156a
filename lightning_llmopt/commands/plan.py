"""``llmopt plan``: does it fit."""

import argparse
from collections.abc import Sequence
from typing import Any

from ..planning import NAMED, OPTIMIZERS, PRECISIONS, STRATEGIES, plan
from ..planning.activations import MODES
from . import NO, YES
from ._parsing import Parser
from ._printing import draw, terminal
from ._sentences import as_options

ABOUT = """
Memory of a run on each device: by component, by layout (one device, DDP, ZeRO,
FSDP, tensor and pipeline parallelism) and by activation checkpointing, and the
smallest change that makes the wanted layout fit. Arithmetic alone: no model is
built, and no GPU is needed.
"""
MORE = """
examples:
  llmopt plan 70B --gpus 64 --memory "80 GiB" --checkpointing every_block
  llmopt plan llama-2-7b --gpus 8 --memory "24 GiB" --micro-batch 4
  llmopt plan gpt2 --gpus 1 --memory "4 GB" --optimizer adamw_8bit

exit status:
  0  the wanted layout fits
  1  it does not
  2  an argument makes no sense
"""
_NUMBERS = (
    ("gpus", 8, "devices in all"),
    ("gpus-per-node", 8, "devices of one node"),
    ("tensor", 1, "tensor-parallel ranks wanted"),
    ("pipeline", 1, "pipeline stages wanted"),
    ("sequence", 2048, "tokens of a sequence"),
    ("micro-batch", 1, "sequences of a micro-batch on a rank"),
    ("accumulate", 1, "micro-batches to an update"),
)


def run(words: Sequence[str]) -> int:
    """Print the plan; whether the wanted layout fits."""
    settings = vars(_parser().parse_args(words))
    model = settings.pop("model")
    if settings["checkpointing"].isdecimal():
        settings["checkpointing"] = int(settings["checkpointing"])
    try:
        found = plan(model, **settings)
    except ValueError as error:
        raise as_options(error, settings) from error
    console = terminal()
    if console is None:
        print(found)
        return YES if found.fits else NO
    console.print(f"{found.title}\n", highlight=False)
    for grid in found.tables:
        draw(console, grid, style=_style)
    console.print("\n".join([*found.notes, "", found.advice, *found.topology]), highlight=False, markup=False)
    return YES if found.fits else NO


def _parser() -> argparse.ArgumentParser:
    parser: Any = Parser("plan", takes="MODEL [options]", about=ABOUT, more=MORE)
    parser.add_argument(
        "model", metavar="MODEL", help=f"a number of parameters (70B, 124M), or one of {', '.join(NAMED)}"
    )
    for name, default, what in _NUMBERS:
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{what} (%(default)s)")
    parser.add_argument(
        "--memory", default="80 GB", metavar="SIZE", help="of one device: GB are 10**9 bytes, GiB 2**30 (%(default)s)"
    )
    for option, known, usual, what in (
        ("strategy", STRATEGIES, None, "fsdp2 on several devices"),
        ("optimizer", OPTIMIZERS, "adamw", "adamw"),
        ("precision", PRECISIONS, "bf16", "bf16"),
    ):
        parser.add_argument(
            f"--{option}", choices=known, default=usual, metavar="NAME", help=f"{', '.join(known)} ({what})"
        )
    parser.add_argument(
        "--checkpointing",
        default="none",
        metavar="MODE",
        help=f"{', '.join(MODES)} or N (%(default)s)",
    )
    return parser


def _style(row: Sequence[str]) -> str:
    return "green" if row[-1] == "yes" or any(cell.endswith("*") for cell in row) else ""
