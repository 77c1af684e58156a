"""The pictures of the curves and preview pages are drawn by the code as it is."""

import importlib.util
import subprocess
import sys
from pathlib import Path

from lightning_llmopt.schedules import RECIPES

SCRIPT = Path(__file__).parent.parent / "docs" / "draw_curves.py"


def test_every_recipe_is_drawn(tmp_path):
    spec = importlib.util.spec_from_file_location("draw_curves", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.RECIPES.keys() == RECIPES.keys()
    subprocess.run([sys.executable, SCRIPT, tmp_path], check=True, timeout=100)
    for name in ("recipes.png", "shapes.png", "preview.png"):
        assert (tmp_path / name).stat().st_size > 10_000
        assert (SCRIPT.parent / "images" / name).exists()
