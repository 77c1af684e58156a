"""The matrix of what is tested is that of the tests as they are."""

import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
sys.path.insert(0, str(DOCS))
import draw_matrix  # noqa: E402 - a script beside the pages, not a package


def test_the_tables_are_those_of_the_tests_that_are_collected():
    text = draw_matrix.PAGE.read_text()
    assert draw_matrix.page(text, draw_matrix.collected()) == text, "run `python docs/draw_matrix.py`"


def test_every_row_is_held_by_a_test():
    table = [line for line in draw_matrix.PAGE.read_text().splitlines() if line.startswith("|")]
    rows = table[2 : 2 + len(draw_matrix.ROWS)]
    assert [row.split("|")[1].strip() for row in rows] == [claim for claim, *_ in draw_matrix.ROWS]
    assert all("yes" in row for row in rows)


def test_strategies_are_found_in_the_names_of_tests():
    assert draw_matrix.place_of("a.py::t[GPT-1-FSDP1 2]") == "FSDP1 2"
    assert draw_matrix.place_of("a.py::t[GPT-1-FSDP1 2, NO_SHARD]") == "FSDP1 2, NO_SHARD"
    assert draw_matrix.place_of("a.py::t[agc-ZeRO-1 2]") == "ZeRO-1 2"
    assert draw_matrix.place_of("a.py::t[DDP 2, 80 injections from 0]") == "DDP 2"
    assert draw_matrix.place_of("a.py::t[one process]") is None
    assert draw_matrix.place_of("a.py::t") is None


def test_tests_that_cannot_be_collected_are_said(monkeypatch):
    monkeypatch.setattr(draw_matrix, "COURSE", "tests/strategies/no_such_test.py")
    monkeypatch.setattr(draw_matrix, "FILES", [])
    with pytest.raises(RuntimeError, match="no_such_test"):
        draw_matrix.collected()
