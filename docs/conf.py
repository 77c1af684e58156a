"""Sphinx settings: pages in MyST, reference from the docstrings, no network."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # formulas.py

project = "lightning-llmopt"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "formulas"]
html_math_renderer = "svg"
exclude_patterns = ["_build"]
html_theme = "furo"
html_show_copyright = False
html_title = "lightning-llmopt"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
suppress_warnings = [
    "myst.xref_missing",  # links to files of the repository that are no pages; tests/test_pages.py checks them
]
