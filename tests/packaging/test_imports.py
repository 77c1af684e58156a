"""Importing the package and each of its rooms takes about as long as importing Lightning, and brings nothing more."""

import pytest

from imports import ROOMS, heavy, imported, side_by_side

# These come first: a room can only be seen to import nothing where none before it has.
LIGHT = [f"lightning_llmopt{room}" for room in ("", ".schedules", ".planning", ".cli", ".preview", ".selftest")]
YAML = "lightning_llmopt.configs"  # LightningCLI is what it is about, which neither Lightning nor the others import
REST = [room for room in ROOMS if room not in LIGHT and room != YAML]


@pytest.fixture(scope="module")
def after():
    """What is there after each room, and after Lightning alone: torchmetrics imports matplotlib where it finds it."""
    return {**imported(*LIGHT, *REST, YAML)[2], **imported("lightning")[2]}


@pytest.mark.parametrize("room", LIGHT)
def test_rooms_that_need_no_torch_import_nothing_heavy(room, after):
    assert heavy(after[room]) == set()


@pytest.mark.parametrize("room", REST)
def test_no_room_imports_what_lightning_does_not(room, after):
    assert heavy(after[room]) <= heavy(after["lightning"])
    assert "deepspeed" not in after[room]


def test_the_room_of_yaml_imports_what_lightnings_command_line_does(after):
    assert heavy(after[YAML]) <= heavy(after["lightning"]) | {"jsonargparse"}
    assert "deepspeed" not in after[YAML]


def test_the_package_takes_no_longer_than_lightning():
    """`make package` says the same of each room by the wall clock, in an environment with the core only."""
    lightning, ours = side_by_side(("lightning",), ("lightning_llmopt",), rounds=2, clock=1)
    assert ours <= 1.0 * lightning + 0.2, f"{ours:.2f} s beside {lightning:.2f} s"
