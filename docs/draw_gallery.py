"""Runs the examples at the sizes that docs/gallery.md names, and puts their words and pictures into the page.

    .venv/bin/python docs/draw_gallery.py                 # all, some minutes
    .venv/bin/python docs/draw_gallery.py find_lr.py      # some

The commands are those of the page's `bash` blocks; what an example prints goes into the `text` block under it, without
progress bars.
"""

import multiprocessing
import os
import re
import runpy
import shlex
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "gallery.md"
PICTURES = {"find_lr.py": ("rates.png", "gallery_find_lr.png")}
TIMES = re.compile(r"^ *(time|log) {2,}")
BAR = re.compile(r"^(Epoch|Validation) | phase: \w+$|^Metric|^$|^Picture|^Numbers|UserWarning|configuration_validator")
EXAMPLE = re.compile(r"(```bash\n(python examples/(\w+\.py)[^`]*?)\n```\n\n```text\n).*?(```)", flags=re.DOTALL)


def said(command: str, *, pictures: bool = False) -> str:
    """What an example prints, in a fork and a folder that is thrown away; its picture may go to docs/images."""
    script, *options = shlex.split(command.replace("\\\n", " "))[1:]
    with tempfile.TemporaryDirectory() as folder:
        process = multiprocessing.get_context("fork").Process(target=_run, args=(script, options, Path(folder)))
        process.start()
        process.join()
        words, complaints = ((Path(folder) / name).read_text() for name in ("words.txt", "complaints.txt"))
        if process.exitcode:
            raise RuntimeError(f"{command} ended with {process.exitcode}:\n{complaints}")
        if pictures and (picture := PICTURES.get(Path(script).name)):
            shutil.copy(Path(folder) / "runs" / "gallery" / picture[0], ROOT / "docs" / "images" / picture[1])
    return kept(words)


def _run(script: str, options: list[str], folder: Path) -> None:
    """The example as if Python had been started with it, on one thread."""
    import torch

    torch.set_num_threads(1)
    for number, name in ((1, "words.txt"), (2, "complaints.txt")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    warnings.resetwarnings()
    os.environ["COLUMNS"] = "100"
    here = [str(ROOT / word) if word.startswith("examples/") else word for word in (script, *options)]
    os.chdir(folder)
    sys.argv, sys.path = here, [str(Path(here[0]).parent), *sys.path]
    runpy.run_path(here[0], run_name="__main__")


def kept(text: str) -> str:
    """Without progress bars, times and addresses of files."""
    lines = [line.rstrip() for line in text.splitlines()]
    return "\n".join(line for line in lines if not BAR.search(line) and not TIMES.search(line))


def main(*names: str) -> None:
    """Run the examples of the page, or those named."""

    def anew(found: re.Match[str]) -> str:
        return found[0] if names and found[3] not in names else f"{found[1]}{said(found[2], pictures=True)}\n{found[4]}"

    PAGE.write_text(EXAMPLE.sub(anew, PAGE.read_text()))


if __name__ == "__main__":
    main(*sys.argv[1:])
