"""Plans as tables: cells of text, for a terminal of 80 columns or for Rich."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .activations import works
from .amounts import shown
from .layouts import Layout, bubble
from .memory import COMPONENTS, Memory

SHORT = ("param", "copy", "grad", "state", "activ", "logit", "comm", "temp")
ReadMemory = Callable[..., Memory]


@dataclass(frozen=True)
class Grid:
    """A table of text.

    Args:
        title: What it shows.
        columns: Short names of the columns, the first one of the labels.
        long: The same, spelled out for wide terminals.
        rows: Cells, as many as columns.
    """

    title: str
    columns: tuple[str, ...]
    long: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def by_component(
    layouts: Iterable[Layout], read: ReadMemory, available: int, unit: str, checkpointing: str | int
) -> Grid:
    """One row a layout, one column a component."""
    rows = []
    for layout in layouts:
        if not works(checkpointing, strategy=layout.strategy):
            rows.append((_label(layout), *["-"] * (len(COMPONENTS) + 1), "no"))
            continue
        found = read(layout)
        cells = [shown(getattr(found, name), unit) for name in COMPONENTS]
        rows.append((_label(layout), *cells, shown(found.peak, unit), "yes" if found.peak <= available else "no"))
    spelled = ("layout", *COMPONENTS, "peak", "fits")
    title = f"{unit} a device, checkpointing {checkpointing!r} (copy: fp32 master copy; temp: transient)"
    return Grid(title, ("layout", *SHORT, "peak", "fits"), spelled, tuple(rows))


def by_mode(
    layouts: Iterable[Layout],
    read: ReadMemory,
    available: int,
    unit: str,
    modes: Sequence[str | int],
    micro_batches: int,
) -> Grid:
    """One row a layout, its peak for each way of checkpointing; stars where it fits."""
    rows = []
    for layout in layouts:
        peaks = [read(layout, mode).peak if works(mode, strategy=layout.strategy) else None for mode in modes]
        cells = [
            "-  " if peak is None else f"{shown(peak, unit)} {'*' if peak <= available else ' '}" for peak in peaks
        ]
        waits = f"{bubble(layout.pipeline, micro_batches=micro_batches):.0%}" if layout.pipeline > 1 else ""
        rows.append((_label(layout), *cells, waits))
    columns = ("layout", *(mode if isinstance(mode, str) else f"every {mode}" for mode in modes), "bubble")
    return Grid(f"Peak in {unit} by checkpointing (*: fits)", columns, columns, tuple(rows))


def as_text(grid: Grid) -> str:
    """For a terminal, as narrow as it can be.

    Example:
        >>> print(as_text(Grid("Sizes", ("layout", "peak"), ("layout", "peak"), (("DDP", "16.0"), ("FSDP2", "2.00")))))
        Sizes
        layout  peak
        DDP     16.0
        FSDP2   2.00
    """
    columns = list(zip(grid.columns, *grid.rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    gap = "  " if sum(widths) + 2 * (len(widths) - 1) <= 80 else " "
    lines = [
        gap.join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in zip(*columns, strict=True)
    ]
    return "\n".join([grid.title, *lines])


def _label(layout: Layout) -> str:
    return str(layout).replace(" x ", ", ")
