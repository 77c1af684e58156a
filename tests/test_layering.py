"""The arrows between the rooms point one way, and every module has its test."""

import ast
from pathlib import Path

import pytest

import lightning_llmopt

ROOT = Path(lightning_llmopt.__file__).parent
TESTS = Path(__file__).parent

MAY_IMPORT = {  # beside the standard library and themselves
    "schedules": set(),
    "planning": {"structure"},  # inside a function: without a module to read, the room runs on the standard library
    "structure": {"torch"},
    "gradients": {"torch"},
    "optim": {"torch", "structure", "matplotlib"},
    "checkpoints": {"schedules"},
    "preview": {"schedules", "planning", "matplotlib"},
    "reporting": {"tensorboard"},
    "callbacks": {
        "torch", "typing_extensions", "tensorboard", "rich", "_lightning",
        "schedules", "structure", "gradients", "optim", "planning", "preview",
    },
    "strategies": {
        "torch", "typing_extensions", "_lightning",
        "schedules", "structure", "gradients", "optim", "planning",
    },
    "cli": {"commands"},
    "commands": {
        "torch", "rich", "_lightning",
        "schedules", "structure", "optim", "planning", "preview", "recipes", "checkpoints", "callbacks",
        "configs", "reporting", "selftest",
    },
    "configs": {"typing_extensions", "_lightning", "schedules", "callbacks", "strategies", "recipes"},
    "recipes": {"torch", "typing_extensions", "_lightning", "schedules", "optim", "planning", "callbacks"},
    "selftest": {"torch", "typing_extensions", "_lightning", "deepspeed", "gradients", "callbacks", "strategies"},
}  # fmt: skip
THIRD_PARTY = {
    "torch",
    "torchmetrics",
    "typing_extensions",
    "tensorboard",
    "matplotlib",
    "rich",
    "jsonargparse",
    "deepspeed",
}
PURE = {  # modules of a room above that are as pure as the rooms below; torch and Lightning in their annotations alone
    "recipes/receipts.py": set(),
    "recipes/rescaling.py": {"schedules", "planning"},
    "recipes/shelf.py": {"planning"},
    "recipes/_words.py": {"planning"},
    "recipes/_tables.py": set(),
}
WATCHED = {"lightning", "lightning_llmopt", "pytorch_lightning", "_lightning", "cli", *THIRD_PARTY, *MAY_IMPORT}


def imported_by(path):
    """Top-level names that ``path`` imports; ``from ..optim.x import y`` counts as ``optim``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level != 1:
            yield from [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_room_keeps_its_layer(room):
    for path in [*ROOT.glob(f"{room}.py"), *(ROOT / room).glob("*.py")]:
        strangers = set(imported_by(path)) & WATCHED - MAY_IMPORT[room]
        assert not strangers, f"{path.relative_to(ROOT)} imports {strangers}"


@pytest.mark.parametrize("module", PURE)
def test_what_is_data_and_arithmetic_stays_so(module):
    assert not set(imported_by(ROOT / module)) & WATCHED - PURE[module]


def test_only_one_file_names_the_lightning_distribution():
    guilty = [path.name for path in ROOT.rglob("*.py") if {"lightning", "pytorch_lightning"} & set(imported_by(path))]
    assert guilty == ["_lightning.py"]


def test_every_module_has_its_test():
    modules = [path.relative_to(ROOT) for path in ROOT.rglob("*.py") if not path.name.startswith("_")]
    missing = [str(module) for module in modules if not (TESTS / module.parent / f"test_{module.name}").exists()]
    assert not missing, f"no test file for {missing}"


def test_no_room_without_a_subject():
    nameless = {"utils", "common", "helpers", "misc", "base"}
    assert not [path for path in ROOT.rglob("*") if path.stem in nameless]
