"""``python -m benchmarks``: measure, print, write down, and check against the goals."""

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch
import torch

from . import environment, goals, rows
from .harness import Settings
from .tables import Table

METHOD = """\
All variants run once a round, in a new random order each round. A ratio is taken inside a round, between readings
that were taken within moments of each other; the table shows the median over the rounds with the quartiles
[q1, q3]. So a busy machine moves the milliseconds and hardly the ratios. {threads} thread(s), garbage collector off.
A *limit* moves the bytes that must be moved and does nothing else. *Torch calls* are calls through torch's dispatcher
(on a GPU each is at least one kernel launch), *host reads* are copies of numbers to Python (on a GPU each one
stops the pipeline).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rows that were asked for; 1 if a goal was missed."""
    options = _parser().parse_args(arguments)
    _prepare(options)
    settings = Settings(device=options.device, quick=options.quick)
    stamp = environment.stamp(options.device)
    print(_stamp_text(stamp), flush=True)
    results: dict[str, list[Table]] = {}
    missed = False
    for name in options.rows or rows.names():
        results[name] = list(rows.load(name)[0](settings))
        print(_row_text(name, results[name]), flush=True)
        if options.check:
            missed |= not _check(name, results[name], settings)
    if options.md:
        options.md.write_text(_page(stamp, results), encoding="utf-8")
    if options.json:
        tables = {name: [table.plain() for table in found] for name, found in results.items()}
        options.json.write_text(json.dumps({"environment": stamp, "rows": tables}, indent=1), encoding="utf-8")
    return int(missed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Our callbacks beside torch and peers.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(rows.names())}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="a few rounds, to see that everything works")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (1)")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a goal of goals.toml is missed")
    parser.add_argument("--md", type=Path, metavar="FILE", help="write a page with the tables")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every reading")
    return parser


def _prepare(options: argparse.Namespace) -> None:
    try:
        if options.check:
            goals.read()  # refuse now what would fail after minutes
        for name in options.rows:
            rows.load(name)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: torch sees no GPU here.")
    torch.set_num_threads(options.threads)
    logging.getLogger(lightning.pytorch.__name__).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")  # schedulers are timed alone


def _check(name: str, tables: list[Table], settings: Settings) -> bool:
    """Whether the row meets its goals, if not now then in a second run."""
    wanted = goals.of_row(goals.read(), name, device=settings.device)
    found = goals.verdicts(wanted, tables)
    if not all(met for met, _ in found):
        print(f"{name}: a goal was missed, measuring again", flush=True)
        found = goals.verdicts(wanted, rows.load(name)[0](settings))
    print(*(line for _, line in found), "", sep="\n", flush=True)
    return all(met for met, _ in found)


def _row_text(name: str, tables: Sequence[Table]) -> str:
    return "\n".join([f"## {name}", "", rows.load(name)[1].strip(), "", *(table.markdown() for table in tables)])


def _stamp_text(stamp: dict[str, str]) -> str:
    return "\n".join([*(f"- {name}: {value}" for name, value in stamp.items()), ""])


def _page(stamp: dict[str, str], results: dict[str, list[Table]]) -> str:
    parts = [
        "# Benchmarks",
        "",
        f"Written by `python -m benchmarks --device {'cuda' if 'GPU' in stamp else 'cpu'} --md FILE`.",
        "",
        METHOD.format(threads=stamp["threads"]),
        _stamp_text(stamp),
        *(_row_text(name, tables) for name, tables in results.items()),
    ]
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    sys.exit(main())
