"""Tables and text: by Rich where it is installed and a person looks, plain in pipes, files and under NO_COLOR."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from ..planning.tables import Grid, as_text


def terminal() -> Any | None:
    """Rich's console; ``None`` where plain text is to be printed."""
    if os.environ.get("NO_COLOR"):
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    console = Console()
    return console if console.is_terminal else None


def show(
    grid: Grid,
    *,
    plain: str | None = None,
    left: Sequence[str] = (),
    style: Callable[[Sequence[str]], str] = lambda row: "",
) -> None:
    """Print a table.

    Args:
        grid: What it says.
        plain: The same as text, if there is a better one than ours.
        left: Columns beside the first that are words.
        style: Rich's style of a row.
    """
    console = terminal()
    if console is None:
        print((as_text(grid) if plain is None else plain).removeprefix("\n"))  # of an empty title
    else:
        draw(console, grid, left=left, style=style)


def draw(
    console: Any, grid: Grid, *, left: Sequence[str] = (), style: Callable[[Sequence[str]], str] = lambda row: ""
) -> None:
    """Print a table on Rich's console; where it is too narrow, the terminal breaks the lines, and no digit is lost."""
    console.print(rich_table(grid, console.width, left=left, style=style), crop=False)


def rich_table(
    grid: Grid, width: int, *, left: Sequence[str] = (), style: Callable[[Sequence[str]], str] = lambda row: ""
) -> Any:
    """Long names of columns where there is room for them."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    columns = list(zip(grid.long, *grid.rows, strict=True))
    wide = 1 + sum(max(map(len, column)) + 2 for column in columns) <= width  # the edge, and two behind each column
    table = Table(title=Text(grid.title) if grid.title else None, title_justify="left", box=box.SIMPLE_HEAD)
    table.padding = (0, 1 if wide else 0, 0, 0)
    needed = 1
    for place, (name, *cells) in enumerate(zip(grid.long if wide else grid.columns, *grid.rows, strict=True)):
        words, folds = place == 0 or name in left, name in left and place > 0
        table.add_column(name, justify="left" if words else "right", no_wrap=not folds, overflow="fold")
        needed += 1 + max(len(part) for cell in (name, *cells) for part in (cell.split() if folds else [cell]))
    table.width = None if needed <= width else needed  # else Rich would cut numbers
    for row in grid.rows:
        table.add_row(*map(Text, row), style=style(row))
    return table
