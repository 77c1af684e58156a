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
        console.print(rich_table(grid, console.width, left=left, style=style))


def rich_table(
    grid: Grid, width: int, *, left: Sequence[str] = (), style: Callable[[Sequence[str]], str] = lambda row: ""
) -> Any:
    """Long names of columns where there is room for them."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    wide = sum(max(map(len, column)) + 2 for column in zip(grid.long, *grid.rows, strict=True)) <= width
    table = Table(title=Text(grid.title) if grid.title else None, title_justify="left", box=box.SIMPLE_HEAD)
    table.padding = (0, 1 if wide else 0, 0, 0)
    for place, name in enumerate(grid.long if wide else grid.columns):
        words = place == 0 or name in left
        table.add_column(name, justify="left" if words else "right", no_wrap=not (words and place), overflow="fold")
    for row in grid.rows:
        table.add_row(*map(Text, row), style=style(row))
    return table
