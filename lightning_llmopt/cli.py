"""The console command ``llmopt``: a thin door to the subcommands."""

import io
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from . import __version__
from .commands import BAD_INPUT, COMMANDS, YES

BROKEN_PIPE, INTERRUPTED = 141, 130  # what a shell sees of a program that the signal ended
_WIDTH = max(map(len, COMMANDS))
HELP = f"""\
usage: llmopt COMMAND [options]

Before, around and after a large-model training run.

commands:
{chr(10).join(f"  {name:<{_WIDTH}}  {what}" for name, what in COMMANDS.items())}

  llmopt COMMAND --help   what a command takes, with examples
  llmopt --version        the version of lightning-llmopt

exit status:
  0  yes: it was done, it fits, it is right
  1  no: it does not fit, it is broken, nothing was found
  2  the input makes no sense, or something is missing; a sentence says what
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        arguments: Words after the command; by default those of the process.

    Returns:
        The exit status: 0 for yes, 1 for no, 2 for input that makes no sense.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a plot in a terminal without its characters is better than none
    try:
        status = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except SystemExit as leaving:  # argparse prints help and leaves
        return int(leaving.code or 0)
    except (KeyboardInterrupt, EOFError):  # Ctrl-C, and Ctrl-D at a question
        return INTERRUPTED
    except BrokenPipeError:  # whoever reads us has seen enough, as in `llmopt plan 70B | head`
        _let_go_of_stdout()
        return BROKEN_PIPE
    except OSError as error:
        return _refuse(f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror or error}.")
    except (ValueError, ModuleNotFoundError) as error:
        return _refuse(str(error))
    return status


def _run(words: list[str]) -> int:
    if not words:
        print(HELP, end="", file=sys.stderr)
        return BAD_INPUT
    name, *rest = words
    if name in ("-h", "--help", "help"):
        print(HELP, end="")
        return YES
    if name == "--version":
        print(f"lightning-llmopt {__version__}")
        return YES
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"COMMAND must be one of {', '.join(COMMANDS)}, got {name!r}.{hint}")
    return int(import_module(f".commands.{name.replace('-', '_')}", __package__).run(rest))


def _refuse(sentence: str) -> int:
    print(f"llmopt: {sentence}", file=sys.stderr)
    return BAD_INPUT


def _let_go_of_stdout() -> None:
    """Nobody reads what is still to be written; without this the interpreter complains at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
