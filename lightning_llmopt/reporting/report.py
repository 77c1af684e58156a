"""The curves of a run on one page."""

from pathlib import Path

from .log import read_log
from .page import page

FILE = "report.html"


def report(folder: str | Path, *, to: str | Path | None = None) -> Path:
    """Write one HTML page with the curves of a run: loss, rate, norm before and after clipping, whatever was logged.

    The page holds everything in itself: it opens without a network, in light and dark, on wide and narrow screens.
    Phases of the schedule are shaded, skipped updates marked; what ``RunSummary`` has kept stands below.

    It is made of TensorBoard's event files (with all their points, as exactly as they were logged) and of the
    ``metrics.csv`` of Lightning's ``CSVLogger``, wherever they lie below ``folder``. A run that was resumed into a
    second log is joined. Nothing of the run is loaded or unpickled.

    Args:
        folder: The run's folder, or the logger's, such as ``"lightning_logs/version_0"``.
        to: The file to write; by default ``report.html`` in ``folder``.

    Returns:
        The file that was written.

    Raises:
        ValueError: If ``folder`` is no folder, holds no log or no number, or holds logs of several runs that begin at
            the same update; if ``to`` is a folder.
    """
    folder = Path(folder)
    file = folder / FILE if to is None else Path(to)
    if file.is_dir():
        raise ValueError(f"to must be the file to write, such as 'report.html', got the folder {str(file)!r}.")
    text = page(read_log(folder), title=folder.resolve().name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file
