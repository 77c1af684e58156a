"""Makes the cards, docs/cards/*.md, and their pictures: of cards.yaml, docstrings, benchmarks and curves of the code.

    .venv/bin/python docs/draw_cards.py            # pages and pictures
    .venv/bin/python docs/draw_cards.py --pages    # pages alone

``tests/test_draw_cards.py`` compares what is committed with what would be made.
"""

import hashlib
import importlib
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

DOCS = Path(__file__).parent
PICTURES = DOCS / "images" / "cards"
SHELVES = {
    "rate": "The rate, update by update",
    "schedule": "Schedules",
    "clipping": "Clipping",
    "watching": "Watching and skipping",
    "groups": "Groups, widths and weight decay",
    "recipe": "Published settings, other optimizers",
    "planning": "Planning, memory and strategies",
}
OF_SCHEDULES = {
    "cost": [["schedule", groups, "ours: LRSchedule in a fit"] for groups in ("2 groups", "200 groups")],
    "equal": "Number by number, or with the differences that the [table of parity](../parity.md) names: ",
    "right": " Values are right to 4 units in the last place.",
    "was_not": "What papers say about losses: no model was trained here to compare schedules.",
}
MADE = "<!-- made by docs/draw_cards.py of docs/cards.yaml and the docstring; edit those -->"


@dataclass(frozen=True)
class Card:
    """One technique: the entry in cards.yaml, and the object it is about."""

    name: str
    entry: dict[str, Any]

    @property
    def thing(self) -> Any:
        """The class or function."""
        return getattr(importlib.import_module(self.entry["room"]), self.name)

    @property
    def slug(self) -> str:
        """Name of the page: a class has that of its module."""
        return str(self.thing.__module__.rpartition(".")[2]) if inspect.isclass(self.thing) else self.name

    @property
    def is_schedule(self) -> bool:
        """Whether it is a recipe."""
        return bool(self.entry["kind"] == "schedule")


def cards() -> list[Card]:
    """All of them, in the order of cards.yaml."""
    found = yaml.safe_load((DOCS / "cards.yaml").read_text())
    return [Card(name, entry) for name, entry in found.items()]


def page_of(card: Card) -> str:
    """The text of a card."""
    entry, doc = card.entry, _sections(card.thing)
    parts = [
        f"# {card.name}\n\n{MADE}",
        f"{doc['']}",
        f"![{card.name}](../images/cards/{card.slug}.png)",
        f"```python\nfrom {entry['room']} import {card.name}\n```",
        *_also(entry),
        f"**When.** {entry['when']}",
        f"**Formula**\n\n$$\n{entry['formula']}\n$$" + (f"\n\n{WORDS}" if card.is_schedule else ""),
        f"**Settings**\n\n{_settings(card.thing, doc.get('Args', ''))}",
        f"**Cost.** {_cost(entry.get('cost', OF_SCHEDULES['cost']))}",
        f"**Source.** {_linked(entry.get('source') or doc.get('Source') or 'Ours.')}",
        f"**Reproduced.** {_was(card)}",
        f"**Not reproduced.** {entry.get('was_not', OF_SCHEDULES['was_not'])}",
        f"More: [the page]({entry['page']}), [reference](../reference.md).",
    ]
    return "\n\n".join(parts) + "\n"


def _also(entry: dict[str, Any]) -> list[str]:
    """Further names that the card is about."""
    names = ", ".join(f"`{name}`" for name in entry.get("covers", ()))
    return [f"Belongs to it, from the same room: {names}."] if names else []


WORDS = "Here $s$ is the update, counted from 0, $w$ the warmup, $d$ the decay, $N$ the run and $f$ the floor."


def _was(card: Card) -> str:
    if not card.is_schedule:
        return str(card.entry["was"])
    return OF_SCHEDULES["equal"] + card.entry["was"] + OF_SCHEDULES["right"]


def _sections(thing: Any) -> dict[str, str]:
    """The docstring by its headings; its first lines under the empty one."""
    text = _marked_down(inspect.getdoc(thing) or "")
    parts = re.split(r"^(Args|Attributes|Returns|Raises|Source|Example):\n", text, flags=re.MULTILINE)
    found = {"": parts[0].strip().split("\n\n")[0].replace("\n", " ").removesuffix("::")}
    return found | {name: textwrap.dedent(body).strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def _marked_down(text: str) -> str:
    text = re.sub(r":math:`([^`]*)`", r"$\1$", text)
    return text.replace("``", "`")


def _settings(thing: Any, args: str) -> str:
    """A table of the docstring's arguments with the defaults of the signature."""
    found = re.findall(r"^(\*{0,2}\w+): (.*(?:\n(?:[ ]+.*)?)*)", args, flags=re.MULTILINE)
    if not found:
        return "None."
    defaults = inspect.signature(thing).parameters
    rows = ["| setting | default | what |", "|---|---|---|"]
    for name, words in found:
        parameter = defaults[name.lstrip("*")]
        default = "" if parameter.default is parameter.empty else f"`{_short(parameter.default)}`"
        rows.append(f"| `{name}` | {default} | {' '.join(words.split()).replace('|', chr(92) + '|')} |")
    return "\n".join(rows)


def _short(default: Any) -> str:
    return repr(default).replace("|", chr(92) + "|")


def _linked(source: str) -> str:
    """Addresses as links."""
    text = " ".join(source.split())
    return re.sub(r"https://(?:arxiv\.org/abs/)?([^\s,;)]+[^\s,;).])", lambda found: f"[{found[1]}]({found[0]})", text)


def _cost(cost: str | list[list[str]]) -> str:
    """Measured rows, or the sentence."""
    if isinstance(cost, str):
        return cost
    rows = [_measured(*place) for place in cost]
    return "Measured on two CPU cores, one thread ([benchmarks](../benchmarks.md)):\n\n" + "\n".join(rows)


def _measured(section: str, table: str, variant: str) -> str:
    """One row of docs/benchmarks.md as a line."""
    heads, row = row_of(section, table, variant)
    against = heads[2].removeprefix("times ").removesuffix(" [q1, q3]")
    return f"- {variant} ({table}): {row[1]} {heads[1]}, {row[2].split()[0]} times {against}"


def row_of(section: str, table: str, variant: str) -> tuple[list[str], list[str]]:
    """Heads and cells of a row of docs/benchmarks.md."""
    text = (DOCS / "benchmarks.md").read_text()
    for head in (f"\n## {section}\n", f"\n### {table}\n"):
        text = text.split(head, 1)[1].split("\n" + head.split()[0] + " ", 1)[0]
    lines = [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines() if row.startswith("|")]
    return lines[0], next(row for row in lines[2:] if row[0] == variant)


def index() -> str:
    """The page that lists all cards."""
    parts = [
        "# Cards",
        MADE,
        "One page a technique: what it does, when to use it, settings, formula, a picture drawn by the code, what\n"
        "it costs, where it comes from, and what of that was and was not reproduced.",
    ]
    for kind, title in SHELVES.items():
        shelf = [card for card in cards() if card.entry["kind"] == kind]
        rows = [f"| [{card.name}]({card.slug}.md) | {_first_sentence(card)} |" for card in shelf]
        parts += [f"## {title}", "\n".join(["| card | in a sentence |", "|---|---|", *rows])]
        parts.append("```{toctree}\n:hidden:\n\n" + "\n".join(card.slug for card in shelf) + "\n```")
    return "\n\n".join(parts) + "\n"


def _first_sentence(card: Card) -> str:
    return re.split(r"(?<=[.?]) (?=[A-Z])", _sections(card.thing)[""])[0].replace("|", chr(92) + "|")


def pages() -> Iterator[tuple[Path, str]]:
    """File and text of everything under docs/cards."""
    yield DOCS / "cards" / "index.md", index()
    for card in cards():
        yield DOCS / "cards" / f"{card.slug}.md", page_of(card)


def numbers_of(card: Card) -> dict[str, Any]:
    """What the card's picture shows, to four digits, as JSON keeps it."""
    from card_figures import FIGURES

    found = json.loads(json.dumps(asdict(FIGURES[card.name]())))
    for curve in found["lines"]:
        curve["x"], curve["y"] = ([float(f"{value:.4g}") for value in curve[axis]] for axis in "xy")
    return dict(found)


def digest(numbers: dict[str, Any]) -> str:
    """By which a picture says what it was drawn of."""
    return hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()


def draw(numbers: dict[str, Any], file: Path) -> None:
    """One picture; its digest stands in the file."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
    bars = [curve for curve in numbers["lines"] if curve["style"] == "bar"]
    for place, curve in enumerate(bars):
        width = 0.8 / len(bars)
        axes.bar([x - 0.4 + width * (place + 0.5) for x in curve["x"]], curve["y"], width, label=curve["label"])
    for curve in numbers["lines"]:
        if curve["style"] == "step":
            axes.step(curve["x"], curve["y"], where="post", label=curve["label"], color="black")
        elif curve["style"] != "bar":
            axes.plot(curve["x"], curve["y"], curve["style"], label=curve["label"])
    axes.set(xlabel=numbers["xlabel"], ylabel=numbers["ylabel"])
    for axis in numbers["log"]:
        getattr(axes, f"set_{axis}scale")("log")
    if numbers["names"]:
        axes.set_xticks(range(len(numbers["names"])), numbers["names"])
    if (lines := len(numbers["lines"])) > 1:
        figure.legend(loc="outside upper center", ncols=lines if lines < 4 else 3, frameon=False)
    axes.grid(alpha=0.25)
    figure.savefig(file, dpi=90, metadata={"Description": digest(numbers), "Software": None})
    plt.close(figure)


def main(*options: str) -> None:
    """Write pages and pictures."""
    (DOCS / "cards").mkdir(exist_ok=True)
    for file, text in pages():
        file.write_text(text)
    if "--pages" in options:
        return
    PICTURES.mkdir(parents=True, exist_ok=True)
    found = {card.slug: numbers_of(card) for card in cards()}
    (DOCS / "images" / "cards.json").write_text(json.dumps(found, separators=(",", ":")) + "\n")
    for slug, numbers in found.items():
        draw(numbers, PICTURES / f"{slug}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
