"""What argparse and jsonargparse complain about, in sentences: name, rule, value, way out."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "collections.abc.Mapping": "a mapping such as '{80%: 0.3}'",
    "collections.abc.Sequence": "a list such as '[2000, 20%]'",
    "NoneType": "null",
}
_KEY = re.compile(r'Parser key "(?P<key>[^"]+)":\s*(?P<rest>.*)', re.DOTALL)
_GIVEN = re.compile(r"(?:Got value|Given value): (?P<value>.*)\Z", re.DOTALL)
_CHOICE = re.compile(r"invalid choice: (?P<value>.+?) \(choose from (?P<choices>.+)\)", re.DOTALL)


def as_options(error: ValueError, names: Iterable[str]) -> ValueError:
    """A refusal that begins with the name of an argument, by the name of its option.

    Example:
        >>> as_options(ValueError("micro_batch must be a whole number >= 1, got 0."), ["gpus", "micro_batch"])
        ValueError('--micro-batch must be a whole number >= 1, got 0.')
    """
    first, space, rest = str(error).partition(" ")
    return ValueError(f"--{first.replace('_', '-')}{space}{rest}") if first in names else error


def sentence(message: str, *, options: Iterable[str], command: str) -> str:
    """The complaint of a parser as one sentence.

    Args:
        message: What the parser says.
        options: Every option that there is, for what was misspelt.
        command: What was called, for where to read more.

    Example:
        >>> sentence("unrecognized arguments: --gpu 4", options=["--gpus"], command="llmopt plan")
        'There is no --gpu. Did you mean --gpus? llmopt plan --help lists what there is.'
        >>> sentence("argument --gpus: invalid int value: 'x'", options=[], command="llmopt plan")
        "--gpus must be a whole number, got 'x'."
    """
    if found := _KEY.match(message):
        return _of_type(f"--{found['key'].replace('_', '-')}", found["rest"])
    if message.startswith("unrecognized arguments: "):
        word = message.removeprefix("unrecognized arguments: ").split()[0].split("=")[0]
        if not word.startswith("-"):
            written = message.removeprefix("unrecognized arguments: ").split()[0]
            if "=" in written and "--init" in options:
                return f"Each KEY=VALUE must follow an --init of its own, got {written!r} alone: --init {written}."
            return f"{word!r} is one word too many. {command} --help says what goes where."
        near = get_close_matches(word, options, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        return f"There is no {word}.{hint} {command} --help lists what there is."
    if message.startswith("the following arguments are required: "):
        names = message.removeprefix("the following arguments are required: ")
        return f"{names} must be given. {command} --help says what goes there."
    found = re.fullmatch(r"argument (?P<name>\S+): (?P<rest>.*)", message, re.DOTALL)
    if found is None:
        return message
    return _of_argument(found["name"], found["rest"])


def _of_argument(name: str, rest: str) -> str:
    if choice := _CHOICE.match(rest):
        choices = [one.strip("'") for one in choice["choices"].split(", ")]
        near = get_close_matches(choice["value"].strip("'"), choices, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        return f"{name} must be one of {', '.join(choices)}, got {choice['value']}.{hint}"
    if kind := re.match(r"invalid (int|float) value: (.*)", rest):
        return f"{name} must be {_KINDS[kind[1]]}, got {kind[2]}."
    if rest.startswith("expected"):
        return f"{name} must have a value, got none."
    return f"{name} {rest}"


def _of_type(name: str, rest: str) -> str:
    """What jsonargparse says of a value that is not of the type that the signature has."""
    kinds = [kind for kind in re.findall(r"Expected a <class '([^']+)'>", rest) if kind != "NoneType"]
    given = _GIVEN.search(rest)
    if not kinds or given is None:
        return f"{name}: {' '.join(rest.split())}"
    rule = " or ".join(dict.fromkeys(_KINDS.get(kind, kind) for kind in kinds))
    return f"{name} must be {rule}, got {given['value'].strip()!r}."
