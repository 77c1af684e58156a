"""Recipes as text: one as a table of its values, all as a table of recipes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ._words import in_words

if TYPE_CHECKING:
    from .recipe import Recipe

_SAID = {"source": "yes", "quoted": "quoted", "unverified": "no", "rescaled": "rescaled"}
_WIDEST = 40


def table_of(recipe: "Recipe") -> str:
    """Value, unit, source and whether it was verified; then sources, remarks, doubts and changes."""
    sources = list(dict.fromkeys(receipt.source for receipt in recipe))
    cells = [("value", "", "unit", "source", "verified")]
    for receipt in recipe:
        source = f"[{sources.index(receipt.source) + 1}]"
        value = in_words(receipt.value)
        cells.append((receipt.name, value if len(value) <= _WIDEST else "see below", receipt.unit, source,
                      _SAID[receipt.checked]))  # fmt: skip
    lines = [f"{recipe.name}: {recipe.title}", *aligned(cells)]
    lines += [f"[{number}] {source}" for number, source in enumerate(sources, start=1)]
    long = [(receipt.name, in_words(receipt.value)) for receipt in recipe]
    lines += [f"{name}: {value}" for name, value in long if len(value) > _WIDEST]
    lines += [f"{receipt.name}: {receipt.remark}" for receipt in recipe if receipt.remark]
    lines += [f"? {receipt.name}: {receipt.doubt}" for receipt in recipe if receipt.doubt]
    lines += [f"changed {one.name}: {one.before} -> {one.after}: {one.why}" for one in recipe.changes]
    lines += [f"not done: {text}" for text in recipe.not_done]
    if "batch_ramp" in recipe:
        lines.append("not done: batch_ramp is data; nothing here plays it.")
    return "\n".join(lines)


def table_of_all(recipes: "Sequence[Recipe]") -> str:
    """One row a recipe."""
    cells = [("recipe", "size", "optimizer", "peak rate", "schedule", "batch", "total", "max norm", "unverified")]
    for recipe in recipes:
        kind = recipe.value("optimizer").rpartition(".")[2]
        cells.append((
            recipe.name, in_words(recipe.value("size", "any")), kind, f"{recipe.value('peak_lr'):.1e}",
            recipe.value("schedule"), in_words(recipe.value("batch", "")), in_words(recipe.value("total", "")),
            in_words(recipe.value("max_norm", "")), f"{len(recipe.unverified)} of {len(recipe.receipts)}",
        ))  # fmt: skip
    return "\n".join(aligned(cells))


def aligned(cells: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines of a table, all columns to the left."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
