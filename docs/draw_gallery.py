"""Runs the examples at the sizes that docs/gallery.md names, and puts their words and pictures into the page.

    .venv/bin/python docs/draw_gallery.py                 # all, some minutes
    .venv/bin/python docs/draw_gallery.py find_lr.py      # some

The commands are those of the page's `bash` blocks; what an example prints goes into the `text` block under it, without
progress bars.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "gallery.md"
PICTURES = {"find_lr.py": ("rates.png", "gallery_find_lr.png")}
BAR = re.compile(r"^(Epoch|Validation) |^ +phase: |^Metric|^$|^Picture|^Numbers|UserWarning|configuration_validator")
EXAMPLE = re.compile(r"(```bash\n(python examples/(\w+\.py)[^\n]*)\n```\n\n```text\n).*?(```)", flags=re.DOTALL)


def said(command: str) -> str:
    """What an example prints in a folder that is thrown away; its picture goes to docs/images."""
    script, *options = shlex.split(command)[1:]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "COLUMNS": "100", "PYTHONPATH": str(ROOT)}
        result = subprocess.run(
            [sys.executable, ROOT / script, *options], cwd=folder, env=environment, capture_output=True, text=True
        )
        if result.returncode:
            sys.exit(f"{command} ended with {result.returncode}:\n{result.stderr}")
        if picture := PICTURES.get(Path(script).name):
            shutil.copy(Path(folder) / "runs" / "gallery" / picture[0], ROOT / "docs" / "images" / picture[1])
    return kept(result.stdout)


def kept(text: str) -> str:
    """Without progress bars and addresses of files."""
    lines = [line.rstrip() for line in text.splitlines()]
    return "\n".join(line for line in lines if not BAR.search(line))


def main(*names: str) -> None:
    """Run the examples of the page, or those named."""

    def anew(found: re.Match[str]) -> str:
        return found[0] if names and found[3] not in names else f"{found[1]}{said(found[2])}\n{found[4]}"

    PAGE.write_text(EXAMPLE.sub(anew, PAGE.read_text()))


if __name__ == "__main__":
    main(*sys.argv[1:])
