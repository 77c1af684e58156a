"""``llmopt preview``: a schedule before the run."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..planning.tables import Grid
from ..preview import Preview, preview
from ..schedules import RECIPES, SHAPES, Duration, Schedule, ScheduleSpec, parse_duration
from . import YES
from ._parsing import Parser, file_ending, number, whole
from ._printing import show, terminal
from ._signatures import named, parser_for, schedule_from, with_dashes
from ._yaml import schedule_in

ABOUT = """
A learning-rate schedule before the run: as a plot in the terminal, with its
phases and with what looks unintended; as a picture; as numbers.

NAME comes first. It is a schedule of ours, or an import path of a function that
returns one; `llmopt preview NAME --help` lists its settings.
"""
MORE = """
examples:
  llmopt preview wsd --warmup 2% --decay 20% --total 10000
  llmopt preview cosine --warmup 2000 --floor 0.1 --total 100k --lr 3e-4
  llmopt preview wsd --warmup "375M tokens" --total "10B tokens"
      --tokens-per-update 4M --png wsd.png --csv wsd.csv
  llmopt preview --config run.yaml

lengths:
  2000, "2000 steps", 0.02, 2%, and with --tokens-per-update "375M tokens"

exit status:
  0  it was drawn
  2  an argument makes no sense, the schedule does not fit into the run, or a
     package is missing (a sentence says which)
"""

_MORE_OF_ONE = f"""
shapes:
{textwrap.fill(", ".join(SHAPES), 78, initial_indent="  ", subsequent_indent="  ")}

`llmopt preview --help` has examples, says how lengths are written, and lists
the other schedules.
"""
_MOST_PHASES = 20
_OWN = ("--help", "--total", "--tokens-per-update", "--lr", "--png", "--csv", "--width", "--height")


def run(words: Sequence[str]) -> int:
    """Draw the schedule that the words describe."""
    words = with_dashes(words)
    try:
        return _draw(*_read(words))
    except ValueError as error:
        raise ValueError(str(error).replace("total_steps", "--total")) from error


def _read(words: Sequence[str]) -> tuple[ScheduleSpec | Schedule, dict[str, Any]]:
    """The schedule, and the options that every schedule has."""
    name = words[0] if words and not words[0].startswith("-") else None
    if name is not None:
        function = named(name)
        parser = parser_for(function, f"preview {name}", about=_about(function), more=_MORE_OF_ONE, reserved=_OWN)
        _add_own(parser)
        options = vars(parser.parse_args(words[1:]))
        return schedule_from(function, options), options
    late = next((word for word in words if word.replace("-", "_") in RECIPES), None)
    if late is not None:
        raise ValueError(f"NAME must come first: llmopt preview {late} [settings] [options].")
    options = vars(_parser().parse_args(words))
    if options["config"] is None:
        raise ValueError("NAME must come first, as in `llmopt preview wsd --total 10000`, or --config FILE be given.")
    schedule, total = schedule_in(Path(options["config"]))
    return schedule, {**options, "total": options["total"] or total}


def _parser() -> Any:
    width = max(map(len, RECIPES))
    names = "\n".join(_entry(name, _first_line(RECIPES[name]), width) for name in sorted(RECIPES))
    about = f"{ABOUT}\nschedules:\n{names}"
    parser = Parser(
        "preview",
        takes="NAME [settings] [options]\n       llmopt preview --config FILE [options]",
        about=about,
        more=MORE,
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="YAML of LightningCLI: the schedule of its LRSchedule or UseRecipe, in place of NAME",
    )
    _add_own(parser)
    return parser


def _add_own(parser: Any) -> None:
    """Options that every schedule has."""
    group = parser.add_argument_group("length and rate")
    group.add_argument("--total", metavar="N", help='length of the run: updates (10000, 100k), or "10B tokens"')
    group.add_argument(
        "--tokens-per-update", metavar="N", help="tokens of an update (4M): lengths in tokens, a second axis"
    )
    group.add_argument("--lr", type=number(), metavar="RATE", help="base rate; else the multiplier is shown")
    group = parser.add_argument_group("what to make")
    group.add_argument(
        "--png", type=file_ending(".png"), metavar="FILE", help="a picture in place of the plot (needs matplotlib)"
    )
    group.add_argument("--csv", type=file_ending(".csv"), metavar="FILE", help="the numbers in place of the plot")
    group.add_argument("--width", type=whole(least=40), default=78, metavar="N", help="of the plot in characters (78)")
    group.add_argument("--height", type=whole(least=4), default=14, metavar="N", help="of the plot in rows (14)")


def _draw(schedule: ScheduleSpec | Schedule, options: dict[str, Any]) -> int:
    tokens = _tokens(options["tokens_per_update"])
    groups = None if options["lr"] is None else {"every group": options["lr"]}
    seen = preview(schedule, total_steps=_total(options["total"], tokens), groups=groups, tokens_per_update=tokens)
    if options["png"]:
        print(f"Wrote {seen.png(options['png'])}.")
    if options["csv"]:
        print(f"Wrote {seen.csv(options['csv'])}.")
    if not (options["png"] or options["csv"]):
        print(replace(seen, phases=(), warnings=()).text(width=options["width"], height=options["height"]))
    print()
    show(_phases(seen))
    _warn(seen.warnings)
    return YES


def _phases(seen: Preview) -> Grid:
    """Where each phase lies, and which values it takes."""
    value = dict(zip(seen.steps, seen.rates(seen.groups[0][1]), strict=True))
    rows = []
    for phase in seen.phases:
        length = phase.end - phase.begin
        ends = [f"{value[step]:.4g}" if step in value else "" for step in (phase.begin, phase.end - 1)]
        rows.append(
            (
                phase.name,
                f"{phase.begin:,}",
                f"{phase.end - 1:,}",
                f"{length:,}",
                _share(length, seen.total_steps),
                *ends,
            )
        )
    if len(rows) > _MOST_PHASES:
        hidden = len(rows) - _MOST_PHASES
        rows = [*rows[: _MOST_PHASES - 1], (f"... {hidden:,} more", *[""] * 6), rows[-1]]
    what = "rate" if seen.has_rates() else "multiplier"
    columns = ("phase", "first", "last", "updates", "share", f"{what} at first", "at last")
    return Grid("", columns, columns, tuple(rows))


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.3g} %"


def _warn(warnings: Sequence[str]) -> None:
    console = terminal()
    for warning in warnings:
        text = textwrap.fill(f"! {warning}", 78, subsequent_indent="  ")
        print(text) if console is None else console.print(text, style="yellow", highlight=False, markup=False)


def _tokens(written: str | None) -> int | None:
    """Tokens of an update, as people write them: 4M, 524288."""
    if written is None:
        return None
    length = parse_duration("--tokens-per-update", written)
    if length.unit not in ("updates", "tokens") or length.amount < 1:
        raise ValueError(f"--tokens-per-update must be a number of tokens >= 1, such as 4M, got {written!r}.")
    return int(length.amount)


def _total(written: str | int | None, tokens: int | None) -> int | None:
    """Length of the run in updates."""
    if written is None:
        return None
    try:
        length: Duration | None = parse_duration("--total", written)
    except ValueError:  # which names units that no total has
        length = None
    if length is not None and length.unit == "tokens" and tokens:
        return math.ceil(length.amount / Fraction(tokens))
    if length is None or length.unit != "updates":
        in_tokens = length is not None and length.unit == "tokens"
        ways = "Give --tokens-per-update." if in_tokens else "Write it in updates, such as 10000 or 100k."
        raise ValueError(f"--total must be updates, or tokens with --tokens-per-update, got {written!r}. {ways}")
    return int(length.amount)


def _about(function: Any) -> str:
    """The docstring above its arguments."""
    text = (function.__doc__ or "").split("Args:")[0].split("Raises:")[0]
    paragraphs = [" ".join(part.split()) for part in text.replace("``", "").strip().split("\n\n")]
    return "\n\n".join(textwrap.fill(paragraph, 79) for paragraph in paragraphs)


def _first_line(function: Any) -> str:
    return (function.__doc__ or "").strip().splitlines()[0].replace("``", "")


def _entry(name: str, what: str, width: int) -> str:
    return textwrap.fill(what, 79, initial_indent=f"  {name:<{width}}  ", subsequent_indent=" " * (width + 4))
