"""Formulas in the pages without a script and without a network: matplotlib's TeX as SVG, in the page itself.

A Sphinx extension, named in ``conf.py``. A formula that matplotlib's mathtext cannot read is a warning of the build.
"""

import html
import re
from functools import cache
from typing import Any

SIZE = 10  # of the letters, in the units of the drawing; one em of the text around it
MARGIN = 0.5  # of the same; letters reach a little over their boxes


@cache
def svg(formula: str, *, display: bool = False) -> str:
    """One formula as an element that is as large as the letters around it, stands on their line, and has their colour.

    Args:
        formula: TeX, without the dollars.
        display: Whether it stands alone, so that fractions are as large as the letters beside them.

    Raises:
        ValueError: If mathtext cannot read the formula.
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    text = " ".join(formula.split())
    shown = re.sub(r"(?<!\^{)\\frac", r"\\dfrac", text) if display else text
    drawn = TextPath((0, 0), f"${shown}$", prop=FontProperties(size=SIZE, math_fontfamily="stix"))
    box = drawn.get_extents()  # the line of the text is at 0, upwards is positive
    left, right, low, high = box.x0 - MARGIN, box.x1 + MARGIN, box.y0 - MARGIN, box.y1 + MARGIN
    sizes = f"width:{(right - left) / SIZE:.2f}em;height:{(high - low) / SIZE:.2f}em;vertical-align:{low / SIZE:.2f}em"
    return (
        f'<svg role="img" aria-label="{html.escape(text)}" viewBox="{left:.1f} {-high:.1f} {right - left:.1f} '
        f'{high - low:.1f}" style="{sizes};max-width:none" fill="currentColor"><path d="{_path(drawn)}"/></svg>'
    )


def _path(drawn: Any) -> str:
    """Outlines as SVG writes them, which counts downwards."""
    letters = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}
    parts = []
    for numbers, code in drawn.iter_segments(simplify=False, curves=True):
        places = [f"{-n if at % 2 else n:.2f}".rstrip("0").rstrip(".") for at, n in enumerate(numbers)]
        parts.append("Z" if letters[code] == "Z" else letters[code] + " ".join(places))
    return "".join(parts)


def _drawn(node: Any, *, display: bool = False) -> str:
    from sphinx.util.logging import getLogger

    try:
        return svg(node.astext(), display=display)
    except ValueError as error:
        getLogger(__name__).warning("matplotlib's mathtext cannot read this formula: %s", error, location=node)
        return f"<code>{html.escape(node.astext())}</code>"


def _inline(writer: Any, node: Any) -> None:
    from docutils import nodes

    writer.body.append(f'<span class="formula">{_drawn(node)}</span>')
    raise nodes.SkipNode


def _block(writer: Any, node: Any) -> None:
    from docutils import nodes

    drawn = _drawn(node, display=True)
    writer.body.append(f'<div class="formula" style="overflow-x:auto;margin:1em 0 1em 2em">{drawn}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Offer Sphinx the renderer ``svg``."""
    app.add_html_math_renderer("svg", inline_renderers=(_inline, None), block_renderers=(_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
