"""``llmopt report``: the log of a run as one page."""

from collections.abc import Sequence

from ..reporting import report
from . import YES
from ._parsing import Parser, file_ending

ABOUT = """
One HTML page with the curves of a run: loss, rate, norm before and after
clipping, and whatever else was logged. It holds everything in itself and opens
without a network. It is made of TensorBoard's event files and of metrics.csv;
nothing of the run is loaded.
"""
MORE = """
examples:
  llmopt report lightning_logs/version_0
  llmopt report runs/wsd --to wsd.html

exit status:
  0  the page was written
  2  FOLDER is none, or holds no log
"""


def run(words: Sequence[str]) -> int:
    """Write the page, and say where it is."""
    parser = Parser("report", takes="FOLDER [options]", about=ABOUT, more=MORE)
    parser.add_argument("folder", metavar="FOLDER", help="of the run or of its logger")
    parser.add_argument(
        "--to", type=file_ending(".html"), metavar="FILE", help="the page to write (report.html in FOLDER)"
    )
    options = parser.parse_args(words)
    print(f"Wrote {report(options.folder, to=options.to)}.")
    return YES
