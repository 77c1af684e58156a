"""Options from the signature of a function that makes a schedule, and schedules from YAML: by jsonargparse."""

import inspect
from collections.abc import Callable, Container, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_type_hints

from ..schedules import RECIPES, Schedule, ScheduleSpec
from ..schedules.nearest import did_you_mean
from ._extras import needed
from ._importing import imported
from ._parsing import Refusing, settings

_SHAPES = ("a key of SHAPES", "such as linear, cosine, sqrt")


def named(name: str) -> Callable[..., Any]:
    """The function behind a schedule's name, or behind an import path.

    Raises:
        ValueError: If there is none, with the nearest name.
    """
    if "." in name or ":" in name:
        target = imported(name, name="NAME")
        if not callable(target):
            raise ValueError(f"NAME must be a function that returns a schedule, got {name!r}.")
        return target
    known = name.replace("-", "_")
    if known not in RECIPES:
        near = get_close_matches(known, RECIPES, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"NAME must be one of {', '.join(sorted(RECIPES))}, or an import path, got {name!r}.{hint}")
    return RECIPES[known]


def parser_for(
    function: Callable[..., Any], command: str, *, about: str, more: str, reserved: Container[str] = ()
) -> Any:
    """A parser with an option for every argument of ``function``.

    Args:
        function: Takes its settings by keyword, and says in its docstring what they are.
        command: What is called, such as ``"preview wsd"``.
        about: Printed above the options.
        more: Printed below them.
        reserved: Options that the command has for itself.

    Raises:
        ValueError: If ``function`` takes what no option can stand for.
        ModuleNotFoundError: If jsonargparse is not installed.
    """
    library = needed("jsonargparse", by=f"llmopt {command.split()[0]}")

    class Typed(Refusing, library.ArgumentParser):  # type: ignore[misc, name-defined]
        """A parser that reads values by the types of a signature."""

    parser = Typed(**settings(command, takes="[options]", about=about, more=more))
    group = parser.add_argument_group("settings of the schedule")
    hints = get_type_hints(function)
    what = documented(function, by=f"llmopt {command.split()[0]}")
    for name, rule in inspect.signature(function).parameters.items():
        if f"--{name.replace('_', '-')}" in reserved:
            raise ValueError(f"{function.__name__} takes {name}, which llmopt has an option for. Name it otherwise.")
        if rule.kind not in (rule.KEYWORD_ONLY, rule.POSITIONAL_OR_KEYWORD):
            raise ValueError(f"{function.__name__} takes *arguments, which no option can stand for. Name its settings.")
        text = what.get(name, "")
        shown = " (must be given)" if rule.default is rule.empty else f" ({_shown(rule.default)})"
        kind = hints.get(name, Any)
        group.add_argument(
            f"--{name.replace('_', '-')}", dest=name, type=Any if _holds_schedules(kind) else kind,
            default=None if rule.default is rule.empty else rule.default, required=rule.default is rule.empty,
            metavar="VALUE", help=_escaped(f"{text.rstrip('.')}{shown}"),
        )  # fmt: skip
    return parser


def with_dashes(words: Sequence[str]) -> list[str]:
    """Options as the help writes them, also where they were written as the signature does.

    Example:
        >>> with_dashes(["--warmup_shape=cosine", "--csv", "my_file.csv"])
        ['--warmup-shape=cosine', '--csv', 'my_file.csv']
    """
    found = []
    for word in words:
        option, equals, value = word.partition("=")
        found.append(f"{option.replace('_', '-')}{equals}{value}" if option.startswith("--") else word)
    return found


def schedule_of(written: Any, *, where: str) -> ScheduleSpec | Schedule:
    """A schedule as YAML writes it: a name, ``{recipe: wsd, ...}``, or ``{class_path: ..., init_args: {...}}``.

    Raises:
        ValueError: If it is none of these, or a setting is refused.
    """
    if isinstance(written, str):
        written = {"recipe": written}
    if not isinstance(written, Mapping) or not ({"recipe", "class_path"} & written.keys()):
        raise ValueError(f"{where} must be a name, or a mapping with recipe or class_path, got {written!r}.")
    if "recipe" in written:
        name, given = written["recipe"], {key: value for key, value in written.items() if key != "recipe"}
    else:
        name, given = written["class_path"], dict(written.get("init_args") or {})
    if not isinstance(name, str):
        raise ValueError(f"{where}: recipe or class_path must be a name, got {name!r}.")
    short = name.rpartition(".")[2]
    function = named(short if name.startswith("lightning_llmopt.schedules.") and short in RECIPES else name)
    known = sorted(inspect.signature(function).parameters)
    unknown = next((one for one in given if one not in known), None)
    if unknown is not None:
        raise ValueError(f"{name} takes {known}, got {unknown!r}.{did_you_mean(unknown, known)}")
    parser = parser_for(function, "preview", about="", more="")
    return schedule_from(function, vars(parser.parse_object(dict(given))))


def schedule_from(function: Callable[..., Any], given: Mapping[str, Any]) -> ScheduleSpec | Schedule:
    """What ``function`` returns for these settings.

    Raises:
        ValueError: If that is no schedule, or a setting is refused.
    """
    defaults = {name: rule.default for name, rule in inspect.signature(function).parameters.items()}
    chosen = {name: value for name, value in given.items() if name in defaults}
    made = function(**{name: value for name, value in chosen.items() if value != defaults[name]})
    if not isinstance(made, ScheduleSpec | Schedule):
        raise ValueError(f"{function.__name__} must return a schedule, such as wsd(...), got {made!r}.")
    return made


def _holds_schedules(kind: Any) -> bool:
    """Whether values of this type are, or hold, schedules: whoever takes them reads them as they are written."""
    return any(one.__name__ in str(kind) for one in ScheduleSpec.__mro__[:-1])


def documented(function: Callable[..., Any], *, by: str) -> dict[str, str]:
    """What the docstring says of each argument, in a line each.

    Raises:
        ModuleNotFoundError: If docstring_parser, which comes with jsonargparse, is not installed; ``by`` needs it.
    """
    parse = needed("docstring_parser", by=by).parse
    found = {one.arg_name: one.description or "" for one in parse(function.__doc__ or "").params}
    return {name: " ".join(text.replace("``", "").split()).replace(*_SHAPES) for name, text in found.items()}


def _shown(default: Any) -> str:
    return "not set" if default is None else str(default)


def _escaped(text: str) -> str:
    return text.replace("%", "%%")
