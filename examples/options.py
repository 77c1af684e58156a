"""Command line of the demo."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corpus import Corpus, read_corpus
from run_folder import RunFolder

from lightning_llmopt.strategies import bf16_is_fast

KEPT = ("text", "updates", "batch", "seed", "precision")  # these make the run what it is, and are kept when it goes on


def read_options(description: str | None, *, least_heldout: int) -> tuple[Namespace, Corpus, RunFolder]:
    """Read the command line, the text and the folder of the run.

    With ``--resume``, options that are not given are taken from the run that goes on. Wrong values end
    the process with a sentence and exit status 2.

    Args:
        description: Text above the list of options in ``--help``.
        least_heldout: How long the held-out part of the text must be [bytes].
    """
    parser = _parser(description)
    options = parser.parse_args()
    folder = RunFolder(options.out)
    try:
        if options.resume:
            before = folder.settings()
            parser.set_defaults(**before)
            options = parser.parse_args()
            _refuse_changes(before, options, folder)
        corpus = read_corpus(options.text and Path(options.text), least_heldout=least_heldout)
        options.precision = options.precision or ("bf16" if bf16_is_fast() else "fp32")
        folder.open({name: getattr(options, name) for name in KEPT}, resume=options.resume)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return options, corpus, folder


def _parser(description: str | None) -> ArgumentParser:
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=_path, help="file or folder to train on (default: seven plays of Shakespeare)")
    parser.add_argument("--updates", type=_whole_number(1), default=1000, help="length of the run (default: 1000)")
    parser.add_argument("--batch", type=_whole_number(1), default=16, help="crops in an update (default: 16)")
    parser.add_argument("--seed", type=_whole_number(0, 2**32 - 1), default=0, help="of weights and data (default: 0)")
    parser.add_argument("--precision", choices=("bf16", "fp32"), help="default: bf16 where it is faster, by trying")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the run (default: runs/demo)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    return parser


def _path(text: str) -> str:
    """Absolute, so that a run can be resumed from another folder."""
    return str(Path(text).expanduser().resolve())


def _whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    rule = f"must be a whole number >= {least}" + (f" and <= {most}" if most is not None else "")

    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise ArgumentTypeError(f"{rule}, got {text!r}.") from None
        if number < least or (most is not None and number > most):
            raise ArgumentTypeError(f"{rule}, got {text!r}.")
        return number

    return convert


def _refuse_changes(before: dict[str, Any], options: Namespace, folder: RunFolder) -> None:
    for name in KEPT:
        if getattr(options, name) != before[name]:
            raise ValueError(
                f"--{name} must stay {before[name]} to resume the run in {folder.root}, got {getattr(options, name)}. "
                "Leave it out, or start another run without --resume."
            )
