"""What a user names on the command line: objects by import path, settings as ``key=value``."""

import ast
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any


def imported(path: str, *, name: str) -> Any:
    """The object at an import path; modules of the current folder are found too.

    Args:
        path: ``package.module:attribute``, ``package.module.attribute``, or ``file.py:attribute``.
        name: What the user called it, for the message.

    Raises:
        ValueError: If there is none, with what is near it.

    Example:
        >>> imported("collections:OrderedDict", name="MODEL").__name__
        'OrderedDict'
    """
    where, colon, attribute = path.partition(":")
    if not colon:
        where, _, attribute = path.rpartition(".")
    if not where or where.startswith(".") or not attribute:
        raise ValueError(
            f"{name} must be an import path such as package.module:attribute or file.py:name, got {path!r}."
        )
    found: Any = _module(where, path, name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = get_close_matches(part, dir(found), n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ValueError(f"{name} {path!r}: {where} has no {part!r}.{hint}")
        found = getattr(found, part)
    return found


def settings_of(words: Sequence[str], *, name: str) -> dict[str, Any]:
    """Settings written as ``key=value``; values are Python's numbers, texts, lists and the like, or plain text.

    Raises:
        ValueError: If a word has no ``=``, or no name before it.

    Example:
        >>> settings_of(["width=64", "rate=3e-4", "bias=false", "kind=gelu"], name="--init")
        {'width': 64, 'rate': 0.0003, 'bias': False, 'kind': 'gelu'}
    """
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"{name} must be KEY=VALUE, such as width=64, got {word!r}.")
        found[key] = _value(value)
    return found


def made(target: Any, given: dict[str, Any], *, path: str, name: str, into: str = "--init") -> Any:
    """What a class or function returns; an object that is no function is itself.

    A class that is made from a configuration, as those of transformers are, gets one of its ``config_class``.

    Raises:
        ValueError: If making it fails.
    """
    made_already = not isinstance(target, type) and hasattr(target, "parameters")  # modules can be called too
    if made_already or not callable(target):
        return target
    try:
        configuration = getattr(target, "config_class", None)
        return target(**given) if configuration is None else target(configuration(**given))
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{name} {path!r} could not be made: {said.rstrip('.')}. {into} KEY=VALUE gives arguments."
        ) from error


def in_a_line(error: Exception) -> str:
    """What an exception of the user's own code says, for the middle of a sentence.

    Example:
        >>> in_a_line(KeyError("width"))
        "KeyError: 'width'"
    """
    said = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _module(where: str, path: str, name: str) -> ModuleType:
    try:
        if where.endswith(".py"):
            return _from_file(Path(where), name)
        if "" not in sys.path:
            sys.path.insert(0, "")  # a console script does not look into the folder that it is called in
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name and (where == error.name or where.startswith(f"{error.name}.")):
            raise ValueError(
                f"{name} {path!r}: there is no module {error.name!r} here. Install it, or call llmopt where it lies."
            ) from error
        raise ValueError(
            f"{name} {path!r}: {where} needs the module {error.name!r}, which is not installed."
        ) from error
    except (ValueError, OSError):
        raise
    except Exception as error:
        raise ValueError(f"{name} {path!r}: importing {where} failed: {in_a_line(error)}.") from error


def _from_file(file: Path, name: str) -> ModuleType:
    if not file.is_file():
        raise ValueError(f"{name} must be a file that is there, got {str(file)!r}.")
    sys.path.insert(0, str(file.parent.resolve()))  # as `python file.py` does
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{name} must be a Python file, got {str(file)!r}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "null": None, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
