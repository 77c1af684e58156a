"""The presets as a table: a value, to read and to print."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """One preset.

    Attributes:
        name: What ``preset`` takes; ``llmopt_<name>`` is the strategy's name for the Trainer.
        shards: What is cut over processes.
        when: When to use it.
        needs: What has to be there.
        strategy: The class that does it.
        settings: What the class is told.
    """

    name: str
    shards: str
    when: str
    needs: str
    strategy: type[Any] = field(repr=False)
    settings: dict[str, Any] = field(repr=False, hash=False)


@dataclass(frozen=True)
class Presets:
    """All presets, in order; prints as a table.

    Attributes:
        rows: One a preset.
    """

    rows: tuple[Preset, ...]

    def __getitem__(self, name: str) -> Preset:
        """The preset of this name.

        Raises:
            KeyError: If there is none.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"preset must be one of {[row.name for row in self.rows]}, got {name!r}.")

    def __str__(self) -> str:
        cells = [("name", "sharded", "when", "needs")]
        cells += [(row.name, row.shards, row.when, row.needs) for row in self.rows]
        widths = [max(len(row[column]) for row in cells) for column in range(4)]
        cells.insert(1, tuple("-" * width for width in widths))  # type: ignore[arg-type]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
        )
