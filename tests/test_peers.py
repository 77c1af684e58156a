"""Numbers that docs/peers.md quotes are those of docs/benchmarks.md."""

import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
sys.path.insert(0, str(DOCS))
import draw_cards  # noqa: E402 - a script beside the pages, not a package

QUOTED = {  # words before the number, and the row that has it
    "of GPT-2 small take": ("norms_clip", "GPT-2 small, clipping needed", "ours: per-tensor norms, total and clip"),
    "when it clips, and": ("norms_clip", "GPT-2 small, no clipping needed", "ours: per-tensor norms, total and clip"),
    "AGC": ("agc", "GPT-2 small, half of the units clipped", "ours"),
    "a schedule over 200 groups": ("schedule", "200 groups", "ours: LRSchedule in a fit"),
    "over two groups": ("schedule", "2 groups", "ours: LRSchedule in a fit"),
}


def speed():
    """The section in one line."""
    return " ".join((DOCS / "peers.md").read_text().split("## Speed")[1].split("\n## ")[0].split())


@pytest.mark.parametrize(("words", "place"), QUOTED.items())
def test_a_ratio_is_that_of_the_benchmarks(words, place):
    quoted = re.search(rf"{words} ([\d.]+) times", speed())[1]
    measured = float(draw_cards.row_of(*place)[1][2].split()[0])
    half = 0.5 * 10 ** -len(quoted.partition(".")[2])
    assert abs(float(quoted) - measured) <= half + 1e-9, f"docs/peers.md says {quoted}, measured are {measured}."


def test_milliseconds_are_those_of_the_benchmarks():
    quoted = re.search(r"\(([\d.]+) ms\)", speed())[1]
    assert quoted == f"{float(draw_cards.row_of(*QUOTED['over two groups'])[1][1]):.3f}"


def test_every_number_of_the_section_is_held():
    assert len(re.findall(r"[\d.]+ (?:times|ms)\b", speed())) == len(QUOTED) + 1
