"""Formulas of pages and docstrings are drawn where there is no network and no script."""

import re
import sys
from html import unescape
from pathlib import Path

import pytest

from pages import ROOT, pages, prose_of

DOCS = Path(__file__).parent.parent / "docs"
sys.path.insert(0, str(DOCS))
import formulas  # noqa: E402 - an extension beside the pages, not a package

MATH = re.compile(r"\$\$(.+?)\$\$|(?<!\$)\$([^$\n]+)\$", flags=re.DOTALL)


def found():
    """Where each formula stands, and the formula."""
    for page in pages():
        prose = re.sub(r"`[^`\n]+`", "", prose_of(page))
        for pair in MATH.findall(prose) if page.is_relative_to(DOCS) else ():
            yield page, "".join(pair)
    for module in sorted((ROOT / "lightning_llmopt").rglob("*.py")):
        for formula in re.findall(r":math:`([^`]*)`", module.read_text()):
            yield module, formula


def size(drawn, name):
    return float(re.search(rf"{name}:(-?[\d.]+)em", drawn)[1])


def test_every_formula_can_be_drawn():
    seen = list(found())
    assert {page.suffix for page, _ in seen} == {".md", ".py"}
    for place, formula in seen:
        try:
            drawn = formulas.svg(formula, display=place.suffix == ".md")
        except ValueError as error:
            pytest.fail(f"{place.relative_to(ROOT)}: mathtext cannot read {formula!r}: {error}")
        assert unescape(re.search(r'aria-label="([^"]*)"', drawn)[1]) == " ".join(formula.split())
        assert not re.search(r"href|url\(|<script", drawn)


def test_what_cannot_be_read_is_said():
    with pytest.raises(ValueError, match="nonsense"):
        formulas.svg(r"\nonsense{x}")


def test_letters_stand_on_the_line_of_the_text_and_fractions_around_it():
    assert size(formulas.svg("x"), "vertical-align") == pytest.approx(-0.05, abs=0.03)
    assert size(formulas.svg("x"), "height") < size(formulas.svg("x^2"), "height")
    fraction = formulas.svg(r"\frac{a}{b}")
    assert -0.6 < size(fraction, "vertical-align") < -0.2
    assert size(formulas.svg(r"\frac{a}{b}", display=True), "height") > 1.2 * size(fraction, "height")


def test_no_page_asks_another_site_for_a_script():
    settings = {}
    exec((DOCS / "conf.py").read_text(), {"__file__": str(DOCS / "conf.py")}, settings)
    assert settings["html_math_renderer"] == "svg"
    assert not [name for name in settings["extensions"] if "mathjax" in name]
