"""Room for values beside a progress bar: a second line for Rich, shorter words for tqdm.

Both are asked by the attributes that the two libraries make public; a bar without them is left alone.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

_METRICS = "MetricsTextColumn"  # Lightning's column of values
_LEAST_BAR = 20  # characters of a bar that takes what is left
_SHORT = "{desc}{n_fmt}/{total_fmt} [{remaining}{postfix}]"
_WITH_SPEED = "{desc}{n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"
_SPEED_FROM = 100  # characters: below, the room is the values'


class TwoLines:
    """Draws the values of a ``rich.progress.Progress`` on a line of their own where they would be wrapped."""

    def __init__(self) -> None:
        self._progress: Any = None

    def give_to(self, progress: Any) -> None:
        """Take over how ``progress`` is drawn; bars make a new one now and then."""
        if progress is None or progress is self._progress or not hasattr(progress, "get_renderables"):
            return
        self.undo()
        if any(type(column).__name__ == _METRICS for column in getattr(progress, "columns", ())):
            self._progress = progress
            progress.get_renderables = _renderables(progress)

    def undo(self) -> None:
        """Leave it as it was found."""
        if self._progress is not None:
            self._progress.__dict__.pop("get_renderables", None)
        self._progress = None


def _renderables(progress: Any) -> Callable[[], Iterable[Any]]:
    from rich.table import Table
    from rich.text import Text

    def get_renderables() -> Iterable[Any]:
        tasks = [task for task in progress.tasks if task.visible]
        columns = [column for column in progress.columns if type(column).__name__ != _METRICS]
        values = [column for column in progress.columns if type(column).__name__ == _METRICS]
        cells = [[column(task) for column in columns] for task in tasks]
        lines = [text for task in tasks for column in values if (text := column(task)).plain]
        used = max((sum(_width(cell) + 1 for cell in row) for row in cells), default=0)
        if used + max((text.cell_len for text in lines), default=0) <= progress.console.width:
            yield progress.make_tasks_table(progress.tasks)
            return
        table = Table.grid(
            *(column.get_table_column().copy() for column in columns), padding=(0, 1), expand=progress.expand
        )
        for row in cells:
            table.add_row(*row)
        yield table
        below = Table.grid(expand=True)  # to the edge: what is printed next begins on a line of its own
        for text in lines:
            below.add_row(Text("  ") + text)
        yield below

    return get_renderables


def _width(cell: Any) -> int:
    """Characters that a column needs."""
    return int(getattr(cell, "cell_len", getattr(cell, "width", None) or _LEAST_BAR))


class Squeezed:
    """Gives up the drawn part of a ``tqdm`` bar where that would leave no room for the values."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._before: Any = None
        self._width = 0

    def fits(self, bar: Any, values: Mapping[str, Any]) -> bool:
        """Whether all values can be seen beside ``bar``; if not, it is numbers only until the terminal gets wider."""
        if bar is None or getattr(bar, "disable", True) or not hasattr(bar, "bar_format"):
            return True
        width = bar.format_dict.get("ncols")
        if bar is self._bar and width and width <= self._width:
            return False
        self.undo()
        if not width or _length(bar, values) <= width:  # no width, no terminal: nothing is cut
            return True
        self._bar, self._before, self._width = bar, bar.bar_format, width
        bar.bar_format = _SHORT if width < _SPEED_FROM else _WITH_SPEED
        return False

    def undo(self) -> None:
        """Leave it as it was found."""
        if self._bar is not None:
            self._bar.bar_format = self._before
        self._bar = self._before = None


def _length(bar: Any, values: Mapping[str, Any]) -> int:
    """Characters of the line with the shortest bar."""
    postfix = ", ".join(f"{name}={_as_tqdm(bar, value)}" for name, value in values.items())
    return len(bar.format_meter(**{**bar.format_dict, "postfix": postfix, "ncols": None})) - _DRAWN


_DRAWN = 9  # without a width tqdm draws 10 characters; one is enough


def _as_tqdm(bar: Any, value: Any) -> str:
    """As ``set_postfix`` writes it."""
    return str(value).strip() if isinstance(value, str) else str(bar.format_num(value))
