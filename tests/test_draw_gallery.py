"""The gallery names every example, and shows what they print."""

import sys
from pathlib import Path

import pytest

from pages import agrees

DOCS = Path(__file__).parent.parent / "docs"
sys.path.insert(0, str(DOCS))
import draw_gallery  # noqa: E402 - a script beside the pages, not a package

FOUND = draw_gallery.EXAMPLE.findall(draw_gallery.PAGE.read_text())


@pytest.mark.parametrize("command", [command for _, command, *_ in FOUND], ids=[name for _, _, name, _ in FOUND])
def test_an_example_prints_what_the_gallery_shows(command):
    shown = draw_gallery.PAGE.read_text().split(f"{command}\n```\n\n```text\n")[1].split("```")[0]
    printed = draw_gallery.said(command)
    assert agrees(printed, shown), f"run `python docs/draw_gallery.py`; {command} printed:\n{printed}"


def test_every_block_of_the_gallery_is_filled():
    names = [name for _, _, name, _ in FOUND]
    assert names == ["find_lr.py", "layer_rates.py", "branch_cooldowns.py", "use_recipe.py", "cli.py"]
    for block in draw_gallery.PAGE.read_text().split("```text\n")[1:]:
        assert len(block.split("```")[0].splitlines()) > 4, "run `python docs/draw_gallery.py`"
    for _, picture in draw_gallery.PICTURES.values():
        assert (DOCS / "images" / picture).stat().st_size > 10_000


def test_words_are_kept_and_bars_are_not():
    text = "Epoch 0/-2 ━ 60/60 0:01:12\n   1.53e-04 phase: decay   \nloss 1.0\n\nPicture: /tmp/x.png\nsaved: 40.0%   \n"
    assert draw_gallery.kept(text) == "loss 1.0\nsaved: 40.0%"
