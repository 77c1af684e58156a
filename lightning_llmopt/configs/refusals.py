"""What jsonargparse says about a configuration, in the words that matter.

It tries every type of a union and reports all failures, most of them about types that nobody meant. Here its report is
read as the indented tree that it is; of its leaves those are kept that speak of what was written.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..schedules.nearest import did_you_mean

_FRAME = re.compile(r"(Subtypes|Errors|Given value type|Subclass types expect one of):|Does not validate")
_GIVEN = re.compile(r"Given value: (.*)")
_REST = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
_PLACE = re.compile(r"""(?:Parser key "(?P<key>.+)"|Problem with given class_path '(?P<path>.+)'):$""")
_TYPE = re.compile(
    r"Expected an? <class '(?:\w+\.)*(\w+)'>$|Not a valid subclass of (\w+)$|Expected an? typing\.Literal\[(.*)\]$|"
    r"Type .+ expects a (function) or a callable class: Expected an import path"
)
_FURTHER = re.compile(
    r"Expected an? (<class '[\w.]+'>|typing\.Literal\[.*\]|[\w.]+ type)$|Given value: |Not a valid subclass of|"
    r"a class path \(str\)|a dict with|a dict without|Import path \S+ does not correspond|Subclasses are disabled|"
    r"Type .+ expects a function or a callable class: Expected an import path|Expected .* to be a class that"
)


@dataclass(frozen=True)
class Complaint:
    """One leaf of the report.

    Args:
        place: Keys and import paths of classes that lead to it.
        text: What jsonargparse says there.
    """

    place: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        key, *inner = self.place or ("",)
        names = " > ".join([key, *(part.rpartition(".")[2] for part in inner)])
        text = in_words(self.place, self.text)
        return f"{names}: {text}" if names else text


def explain(report: str) -> str:
    """The report without what nobody meant; one line a complaint.

    Args:
        report: Text of an exception of jsonargparse.

    Returns:
        Lines such as ``trainer.callbacks > ZClip: there is no field 'z_mox'. ... Did you mean 'z_max'?``; the report
        itself if nothing in it is understood.

    Example:
        >>> print(explain('''Parser key "clip":
        ...   Does not validate against any of the Union subtypes
        ...   Errors:
        ...     - Expected a <class 'float'>. Got value: abc
        ...     - Expected a <class 'NoneType'>
        ...   Given value: abc'''))
        clip: must be a float, got 'abc'.
    """
    found = list(complaints(report))
    meant = [one for one in found if not _FURTHER.match(one.text)] or _none_of_the_types(found)
    return "\n".join(dict.fromkeys(map(_with_question, map(str, meant)))) or report


def complaints(report: str) -> Iterator[Complaint]:
    """Every leaf of the report, in its order."""
    places: list[tuple[int, str]] = []
    for line in report.splitlines():
        text = line.lstrip(" -")
        indent = len(line) - len(text)
        while places and places[-1][0] >= indent:
            places.pop()
        if match := _PLACE.match(text):
            places.append((indent, match["key"] or match["path"]))
        elif text and not _FRAME.match(text):
            yield Complaint(tuple(name for _, name in places), text)


def _none_of_the_types(found: list[Complaint]) -> list[Complaint]:
    """One complaint in place of one for each type of the innermost union."""
    kinds = [one for one in found if _TYPE.match(one.text)]
    place = max((one.place for one in kinds), key=len, default=())
    names = [_kind(one.text) for one in kinds if one.place == place]
    given = [match[1] for one in found if one.place == place and (match := _GIVEN.match(one.text))]
    literal = any("'" in name for name in names)
    rule = f"one of [{', '.join(sorted(names, key=_last))}]" if literal else f"one of the types {', '.join(names)}"
    return [Complaint(place, f"must be {rule}, got {given[0]!r}.")] if given else found


def _kind(text: str) -> str:
    """What one leaf asks for."""
    match = _TYPE.match(text)
    return next(filter(None, match.groups())).replace("NoneType", "null") if match else text


def _last(name: str) -> bool:
    """Types come behind the values that can be named."""
    return "'" not in name


def _with_question(line: str) -> str:
    """A line of ours about one of several names asks for the nearest, unless it does so already."""
    match = re.search(r"must be one of \[(.*)\].*, got '([^']*)'\.$", line)
    return line + did_you_mean(match[2], re.findall(r"'([^']*)'", match[1])) if match else line


def in_words(place: tuple[str, ...], text: str) -> str:
    """One complaint as field, rule, value got, and what may have been meant; as it is if it has no such form."""
    for pattern, say in _WORDS:
        if match := pattern.match(text):
            return say(place, *match.groups())
    return text


def _no_field(place: tuple[str, ...], field: str) -> str:
    name = field.rpartition(".")[2]
    if name == "class_path":
        return "what a class takes belongs under init_args, and nothing else stands beside class_path."
    known = _fields(place[-1]) if place else []
    more = ", and any other under dict_kwargs" if place and _takes_more(place[-1]) else ""
    takes = f" There are {known}{more}." if known else ""
    return f"there is no field {name!r}.{takes}{did_you_mean(name, known)}"


def _no_option(place: tuple[str, ...], group: str, option: str) -> str:
    known = _fields("lightning.pytorch.Trainer") if group == "trainer" else []
    return f"{group}: there is no field {option!r}.{did_you_mean(option, known)}"


def _no_name(place: tuple[str, ...], room: str, name: str) -> str:
    known = _names_in(room)
    return f"there is no {name!r} in {room}, which has {known}.{did_you_mean(name, known)}"


def _no_class(place: tuple[str, ...], name: str) -> str:
    meant = did_you_mean(name, [*_names_in("lightning_llmopt.callbacks"), "UseRecipe"])
    return f"class_path must be an import path or the name of an imported class, got {name!r}.{meant}"


def _wrong_type(place: tuple[str, ...], kind: str, value: str) -> str:
    kind = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", kind)
    choices = re.match(r"typing\.Literal\[(.*)\]$", kind)
    if choices:
        known = [choice.strip("'") for choice in choices[1].split(", ")]
        return f"must be one of [{choices[1]}], got {value!r}.{did_you_mean(value, known)}"
    return f"must be {'an' if kind[0] in 'aeiou' else 'a'} {kind}, got {value!r}."


def _no_subcommand(place: tuple[str, ...], names: str) -> str:
    script = Path(sys.argv[0]).name
    ways = names.replace(",", ", ")
    return f"the first word must be one of {ways}, got none. To train: python {script} fit --config run.yaml"


def _wrong_subcommand(place: tuple[str, ...], given: str, names: str) -> str:
    known = re.findall(r"'([^']*)'", names)
    return f"the first word must be one of {', '.join(known)}, got {given!r}.{did_you_mean(given, known)}"


def _fields(path: str) -> list[str]:
    """What the class or function at an import path takes by name, if it is imported already."""
    return [one.name for one in _parameters(path) if one.name != "self" and one.kind not in _REST]


def _takes_more(path: str) -> bool:
    """Whether it also takes arguments that its signature does not name."""
    return any(one.kind is inspect.Parameter.VAR_KEYWORD for one in _parameters(path))


def _parameters(path: str) -> list[inspect.Parameter]:
    room, _, name = path.rpartition(".")
    made = getattr(sys.modules.get(room), name, None)
    try:
        return list(inspect.signature(made).parameters.values()) if callable(made) else []
    except (TypeError, ValueError):
        return []


def _names_in(room: str) -> list[str]:
    """Classes of a module, those that it imports late too, or the modules of a package without any."""
    module, package = sys.modules.get(room), room.partition(".")[0]
    found = ((name, getattr(module, name, None)) for name in (dir(module) if module else ()) if name[0] != "_")
    classes = sorted(name for name, one in found if inspect.isclass(one) and one.__module__.startswith(package))
    depth = room.count(".") + 1
    below = {path.split(".")[depth] for path in sys.modules if path.startswith(f"{room}.")}
    return classes or sorted(name for name in below if not name.startswith("_"))


_WORDS: list[tuple[re.Pattern[str], Callable[..., str]]] = [
    (re.compile(r"Group '(.+)' does not accept option '(.+)'"), _no_option),
    (re.compile(r"Option '(.+)' is not accepted"), _no_field),
    (re.compile(r"module '(.+)' has no attribute '(.+)'"), _no_name),
    (re.compile(r"Expected a dot import path string: (.+)"), _no_class),
    (re.compile(r"Expected an? (.+?)\. Got value: (.*)"), _wrong_type),
    (re.compile(r'expected "subcommand" to be one of \{(.+)\}, but it was not provided'), _no_subcommand),
    (re.compile(r"argument subcommand: invalid choice: '(.*?)' \(choose from (.+)\)"), _wrong_subcommand),
    (re.compile(r"the following arguments are required: (.+)"), lambda _, names: f"must have {names}."),
]
