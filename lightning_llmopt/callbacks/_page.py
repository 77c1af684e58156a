"""Lines and tables for the terminal: by Rich where it is installed and a person looks, plain text elsewhere."""

import io
import sys
from collections.abc import Sequence
from typing import Any

from .._lightning import Trainer
from ..optim.table import COLUMNS, Row, as_text

Lines = Sequence[tuple[str, str]]  # label and text; a label that is empty goes on with the one above
Tables = Sequence[tuple[str, Sequence[Row]]]
_LONG, _FIRST, _LAST = 16, 11, 3  # rows of a table: of a longer one the first and the last are shown
_LEFT = ("group", "blocks")
_IN_ASCII = str.maketrans("▁▂▃▄▅▆▇█─", "_.,:-=+#-")


def page(lines: Lines, tables: Tables, *, title: str = "", shorten: bool = False) -> str:
    """What to print: the lines with their labels in a column, then the tables.

    Args:
        lines: Label and text of each line.
        tables: Title and rows of each table.
        title: Above everything.
        shorten: Whether long tables lose rows in their middle.
    """
    shown = [(name, *(_shortened(rows) if shorten else (list(rows), 0))) for name, rows in tables]
    try:
        from rich.console import Console
    except ImportError:
        return _plain(title, lines, shown)
    console = Console()
    return _rich(console, title, lines, shown) if console.is_terminal else _plain(title, lines, shown)


def say(trainer: Trainer, text: str) -> None:
    """Print ``text``, above a tqdm bar that is being drawn; in the characters that the terminal knows."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_IN_ASCII).encode(encoding, errors="replace").decode(encoding)
    bar = getattr(trainer.progress_bar_callback, "_train_progress_bar", None)
    if bar is None or getattr(bar, "disable", True):
        print(text)
    elif sys.stdout.isatty():
        bar.write(text)
    else:
        print(f"\n{text}")  # in a file the bar cannot be drawn anew


def _shortened(rows: Sequence[Row]) -> tuple[list[Row], int]:
    """The rows to show, and how many are left out behind the first of them."""
    if len(rows) <= _LONG:
        return list(rows), 0
    return [*rows[:_FIRST], *rows[-_LAST:]], len(rows) - _FIRST - _LAST


def _plain(title: str, lines: Lines, tables: Sequence[tuple[str, list[Row], int]]) -> str:
    width = max((len(label) for label, _ in lines), default=0)
    texts = [title] if title else []
    texts += [f"  {label:<{width}}  {text}".rstrip() for label, text in lines]
    for name, rows, hidden in tables:
        table = as_text(rows).splitlines()
        if hidden:
            table.insert(_FIRST + 1, f"... {hidden:,} more")
        texts += [*([""] if texts else []), name, *table]
    return "\n".join(texts)


def _rich(console: Any, title: str, lines: Lines, tables: Sequence[tuple[str, list[Row], int]]) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    file = io.StringIO()
    out = Console(
        file=file, force_terminal=True, width=console.width, color_system=console.color_system, highlight=False
    )
    if title:
        out.print(Text(title, style="bold"))
    grid = Table.grid(padding=(0, 2, 0, 0))
    for label, text in lines:
        grid.add_row(Text(f"  {label}", style="cyan"), Text(text))
    if lines:
        out.print(grid)
    for name, rows, hidden in tables:
        table = Table(title=Text(name, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
        for column in COLUMNS:
            table.add_column(column, justify="left" if column in _LEFT else "right", overflow="fold")
        for place, row in enumerate(rows):
            if hidden and place == _FIRST:
                table.add_row(Text(f"... {hidden:,} more", style="dim"))
            table.add_row(*map(Text, row.cells()))
        out.print(table)
    return file.getvalue().rstrip("\n")
