"""The gallery names every example, and shows what they print."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
sys.path.insert(0, str(DOCS))
import draw_gallery  # noqa: E402 - a script beside the pages, not a package


def test_every_block_of_the_gallery_is_filled():
    found = draw_gallery.EXAMPLE.findall(draw_gallery.PAGE.read_text())
    assert [name for _, _, name, _ in found] == ["find_lr.py", "layer_rates.py", "branch_cooldowns.py"]
    for block in draw_gallery.PAGE.read_text().split("```text\n")[1:]:
        assert len(block.split("```")[0].splitlines()) > 4, "run `python docs/draw_gallery.py`"
    for _, picture in draw_gallery.PICTURES.values():
        assert (DOCS / "images" / picture).stat().st_size > 10_000


def test_words_are_kept_and_bars_are_not():
    text = "Epoch 0/-2 ━ 60/60 0:01:12\n   1.53e-04 phase: decay   \nloss 1.0\n\nPicture: /tmp/x.png\nsaved: 40.0%   \n"
    assert draw_gallery.kept(text) == "loss 1.0\nsaved: 40.0%"
