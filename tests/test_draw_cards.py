"""The cards are complete, and what is committed is what the script makes of the code as it is."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from lightning_llmopt import callbacks, planning, recipes, reporting, strategies
from lightning_llmopt.schedules import RECIPES

DOCS = Path(__file__).parent.parent / "docs"
sys.path.insert(0, str(DOCS))
import draw_cards  # noqa: E402 - a script beside the pages, not a package

ANEW = "run `python docs/draw_cards.py` and look at the pictures"
NO_TECHNIQUE = {"register"}  # importing the strategies has done it
every_card = pytest.mark.parametrize("card", draw_cards.cards(), ids=lambda card: card.name)


ROOMS = (callbacks, planning, recipes, reporting, strategies)


def names_of(room):
    """Classes and functions that a room offers; modules inside it and plain values are none."""
    return {name for name, thing in vars(room).items() if callable(thing) and not name.startswith("_")} - {"Any"}


def told():
    return {name for card in draw_cards.cards() for name in (card.name, *card.entry.get("covers", ()))}


def test_every_callback_and_every_recipe_has_a_card():
    offered = {name for room in ROOMS for name in names_of(room)} | {"UseRecipe"}  # that one is loaded when asked for
    missing = (offered | RECIPES.keys()) - NO_TECHNIQUE - told()
    assert not missing, (
        f"docs/cards.yaml has no card, and no card that `covers`, {sorted(missing)}: write one and {ANEW}."
    )


def test_every_card_is_about_something_that_is_there():
    for card in draw_cards.cards():
        room = sys.modules[card.thing.__module__.rpartition(".")[0]]
        for name in card.entry.get("covers", ()):
            assert hasattr(room, name), f"the card of {card.name} covers {name}, which is not there."


def test_pages_are_those_that_the_script_makes():
    made = dict(draw_cards.pages())
    for file, text in made.items():
        assert file.exists(), f"{file.name} is missing: {ANEW}."
        assert file.read_text() == text, f"docs/cards/{file.name} is not what the script makes: {ANEW}."
    assert {file.name for file in (DOCS / "cards").glob("*.md")} == {file.name for file in made}


@every_card
def test_settings_of_the_signature_are_on_the_card(card):
    text = draw_cards.page_of(card)
    for name in draw_cards.inspect.signature(card.thing).parameters:
        assert f"`{name}`" in text or f"`**{name}`" in text, f"{card.name}: no line about {name}"
    for part in ("**When.**", "**Formula**", "**Cost.**", "**Source.**", "**Reproduced.**", "**Not reproduced.**"):
        assert part in text


@every_card
def test_formulas_are_balanced(card):
    formula = card.entry["formula"]
    assert formula.count("{") == formula.count("}")
    assert formula.count(r"\left(") == formula.count(r"\right)")
    assert "$" not in formula


@pytest.fixture(scope="module")
def stored():
    return draw_cards.json.loads((DOCS / "images" / "cards.json").read_text())


@every_card
@pytest.mark.filterwarnings("ignore:SkipBadSteps:UserWarning")  # the picture shows what it skips
def test_pictures_show_what_the_code_does(card, stored):
    now = draw_cards.numbers_of(card)
    then = stored[card.slug]
    assert {**now, "lines": 0} == {**then, "lines": 0}, f"{card.name}: {ANEW}"
    for new, old in zip(now["lines"], then["lines"], strict=True):
        assert (new["label"], new["style"]) == (old["label"], old["style"]), f"{card.name}: {ANEW}"
        for axis in "xy":
            assert new[axis] == pytest.approx(old[axis], rel=0.01, abs=1e-6), f"{card.name}: {ANEW}"
    with Image.open(DOCS / "images" / "cards" / f"{card.slug}.png") as picture:
        assert picture.info["Description"] == draw_cards.digest(then), f"{card.name}: {ANEW}"
        assert picture.width > 600


def test_a_measured_cost_is_the_benchmarks_own(tmp_path, monkeypatch):
    rows = "| variant | ms | times alone [q1, q3] |\n|---|---|---|\n| ours | 1.5 | 1.25 [1, 2] |\n"
    table = "\n## step\n\n### tiny\n\n" + rows
    (tmp_path / "benchmarks.md").write_text(table)
    monkeypatch.setattr(draw_cards, "DOCS", tmp_path)
    assert draw_cards._measured("step", "tiny", "ours") == "- ours (tiny): 1.5 ms, 1.25 times alone"
    with pytest.raises(StopIteration):
        draw_cards._measured("step", "tiny", "theirs")
