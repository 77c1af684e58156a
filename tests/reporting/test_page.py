import json
import re
from html.parser import HTMLParser

import pytest

from lightning_llmopt.reporting.log import Log
from lightning_llmopt.reporting.page import page

NAN = float("nan")
POINTS = {"train/loss": ((0, 3.0), (9, NAN), (19, 2.0)), "lr/AdamW/<b>group</b>": ((0, 0.1), (19, 0.0))}
SUMMARY = {
    "module": "GPT",
    "start": [["horizon", "20 updates"], ["", " ▁▂█"]],
    "end": [["updates", "19 applied, 1 skipped"]],
    "groups": [{"title": "Parameter groups of AdamW", "rows": [["decay", "1,200", "3", "0.001", "0.1", "head"]]}],
}


class Tags(HTMLParser):
    """Open elements and the attributes that could fetch something."""

    VOID = ("meta", "br")

    def __init__(self):
        super().__init__()
        self.open, self.fetched = [], []

    def handle_starttag(self, tag, attributes):
        self.fetched += [value for name, value in attributes if name in ("src", "href", "srcset", "action", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_is_whole_and_asks_nobody():
    text = page(Log(POINTS, (), SUMMARY), title="a run")
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert tags.fetched == []
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text


def test_says_what_the_summary_said():
    text = page(Log(POINTS, (), SUMMARY), title="a run")
    for words in ("GPT, logged up to update 19", "20 updates", "19 applied, 1 skipped", "<td>1,200</td>"):
        assert words in text
    assert "▁" not in text  # the terminal's drawing of the curve
    assert "At the start" not in page(Log(POINTS, (), {}), title="a run")


def test_names_from_the_log_are_text():
    text = page(Log(POINTS, (), {}), title="<i>run</i>")
    assert "<b>group" not in text
    assert "<i>run" not in text


def test_the_pointer_reads_plain_numbers():
    text = page(Log(POINTS, (), {}), title="a run")
    loss, _ = (json.loads(found) for found in re.findall(r'<script type="application/json">(.*?)</script>', text))
    assert loss["lines"] == [{"name": "train/loss", "points": [[0, 3.0], [9, "nan"], [19, 2.0]]}]


def test_values_that_are_no_numbers_are_explained():
    assert "Red triangles are values that are NaN or infinite." in page(Log(POINTS, (), {}), title="a run")
    assert "Red triangles" not in page(Log({"loss": ((0, 1.0), (1, 2.0))}, (), {}), title="a run")


@pytest.mark.parametrize(
    "kept", [5, "x", None, [3], ["ab"], [{"begin": 1}], [{"title": 1, "rows": 7}], [{"rows": [7]}], {}]
)
def test_a_summary_that_is_not_ours_breaks_nothing(kept):
    summary = dict.fromkeys(("start", "end", "phases", "groups", "module"), kept)
    tags = Tags()
    tags.feed(page(Log(POINTS, (), summary), title="a run"))
    assert tags.open == []
