"""All recipes by their names, read from the files beside this one."""

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..planning.published import PublishedRate, published_rates
from ._tables import table_of_all
from .receipts import Receipt
from .recipe import Recipe

_FOLDER = Path(__file__).parent / "data"
_FIRST, _LAST = ("size", "optimizer", "peak_lr"), ("batch", "batch_ramp", "total")  # the rest as the file has it


@dataclass(frozen=True)
class Recipes:
    """Recipes, to go through and to print as a table.

    Attributes:
        all: The recipes, by file and then as the file has them.
    """

    all: tuple[Recipe, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """What ``recipe`` takes."""
        return tuple(one.name for one in self.all)

    def __iter__(self) -> Iterator[Recipe]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    def __str__(self) -> str:
        return table_of_all(self.all)


def recipe(name: str) -> Recipe:
    """The settings of a published run, each with its source.

    Args:
        name: One of ``recipes().names``, such as ``"llama2-70b"``.

    Raises:
        ValueError: If there is no such recipe.

    Example:
        >>> receipt = recipe("llama2-70b")["peak_lr"]
        >>> receipt.value, receipt.checked, receipt.source
        (0.00015, 'source', 'Touvron et al. 2023, https://arxiv.org/abs/2307.09288, table 1')
    """
    for one in recipes():
        if one.name == name:
            return one
    names = recipes().names
    near = difflib.get_close_matches(str(name), names, n=1)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"recipe must be one of {', '.join(names)}, got {name!r}.{guess}")


@cache
def recipes() -> Recipes:
    """All recipes.

    Example:
        >>> [name for name in recipes().names if name.startswith("llama2")]
        ['llama2-70b', 'llama2-34b', 'llama2-13b', 'llama2-7b']
    """
    return Recipes(tuple(one for path in sorted(_FOLDER.glob("*.json")) for one in _read(path)))


def _read(path: Path) -> Iterator[Recipe]:
    file = json.loads(path.read_text(encoding="utf-8"))
    for name, own in file["recipes"].items():
        written = {**file["values"], **own.get("values", {})}
        found = {key: _receipt(key, one, file["sources"]) for key, one in written.items()}
        row = next((row for row in published_rates() if row.model == own.get("published")), None)
        if row is not None:
            found |= _published(row)
        names = [*_FIRST, *(key for key in found if key not in _FIRST + _LAST), *_LAST]
        yield Recipe(
            name,
            own.get("title") or own["published"],
            tuple(found[key] for key in names if key in found),
            family=row.family if row else "",
            size_rule=file.get("size_rule", ""),
            not_done=tuple(own.get("not_done", file.get("not_done", ()))),
        )


def _receipt(name: str, written: Mapping[str, Any], sources: Mapping[str, str]) -> Receipt:
    value = written["value"]
    if isinstance(value, list | dict):
        value = tuple(value.items() if isinstance(value, dict) else value)
    key, _, place = written["source"].partition(": ")
    source = f"{sources[key]}, {place}" if place else sources[key]
    return Receipt(name, value, source, written["checked"], written.get("doubt", ""), written.get("remark", ""))


def _published(row: PublishedRate) -> dict[str, Receipt]:
    """What ``planning.published_rates`` has of a model: there it stands, and nowhere else."""
    doubts = {"size": "", "peak_lr": "", "batch": ""}
    for part in row.unverified.split("; ") if row.unverified else ():
        about, _, text = part.partition(": ")
        for word, name in (("rate", "peak_lr"), ("batch", "batch")):
            if word in about:
                doubts[name] = text
    values = {"size": row.parameters, "peak_lr": row.rate, "batch": row.batch}
    return {
        name: Receipt(name, value, row.source, "unverified" if doubts[name] else "source", doubts[name],
                      row.remark if name == "batch" else "")
        for name, value in values.items()
    }  # fmt: skip
