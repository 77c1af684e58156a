"""The reference has every name that a room offers."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import lightning_llmopt

PAGE = (Path(__file__).parent.parent / "docs" / "reference.md").read_text()
ROOMS = [module.name for module in pkgutil.iter_modules(lightning_llmopt.__path__) if module.ispkg]
LAZY = {"recipes": {"UseRecipe"}}  # loaded when they are asked for
ALL = "all that the module has"


def listed():
    """Module -> the names that the page asks for, or ALL."""
    found = {}
    for entry in re.split(r"^\.\. (?=auto|py:)", PAGE, flags=re.MULTILINE)[1:]:
        kind, target = re.match(r"([\w:]+):: (\S+)", entry).groups()
        if kind == "automodule":
            members = re.search(r"^ +:members:(.*)$", entry, flags=re.MULTILINE)
            names = {name.strip() for name in members[1].split(",") if name.strip()} if members else set()
            found.setdefault(target, set()).update(names if names or not members else {ALL})
        else:
            module, _, name = target.rpartition(".")
            found.setdefault(module, set()).add(name)
    return found


def offered(room):
    """Public names of a room, each with the module in which it is listed."""
    module = importlib.import_module(f"lightning_llmopt.{room}")
    for name in {*vars(module), *LAZY.get(room, ())}:
        thing = getattr(module, name)
        if name.startswith("_") or inspect.ismodule(thing) or name == "Any":
            continue
        made_in = getattr(thing, "__module__", None) if callable(thing) else None
        yield name, made_in if str(made_in).startswith("lightning_llmopt.") else module.__name__


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_in_the_reference(room):
    there = listed()
    missing = [f"{name} of {module}" for name, module in offered(room) if not there.get(module, set()) & {name, ALL}]
    assert not missing, f"docs/reference.md lists none of {sorted(missing)}"


def test_what_is_listed_is_there_and_has_a_docstring():
    for module, names in listed().items():
        for name in names - {ALL}:
            thing = getattr(importlib.import_module(module), name)
            assert not inspect.isroutine(thing) | inspect.isclass(thing) or inspect.getdoc(thing), (
                f"{module}.{name} has no docstring"
            )


def test_every_module_with_a_public_name_is_a_room_or_a_door():
    doors = {module.name for module in pkgutil.iter_modules(lightning_llmopt.__path__) if not module.ispkg}
    assert {name for name in doors if not name.startswith("_")} == {"cli"}
    assert "lightning_llmopt.cli" in listed()
