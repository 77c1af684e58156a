"""The archives as a user gets them: built by the usual front end, checked by twine, installed where nothing else is.

`make package`; it needs the package registry and about a gigabyte in the folder for temporary files.
"""

import json
import os
import shutil
import subprocess
import venv
from pathlib import Path

import pytest

import lightning_llmopt

from archives import ROOT, archives_in, copy_of_the_repository, metadata, sdist_names, wheel_names
from imports import ROOMS, side_by_side

pytestmark = pytest.mark.packaging

TORCH = os.environ.get("TORCH", "torch==2.13.0")
HELD = ("torch", "lightning", "pytorch-lightning", "torchmetrics")
EVERY = ["lightning_llmopt", *ROOMS]

FIT = """
import lightning as L
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning_llmopt.callbacks import GradientNormClip, GradientNormMonitor, LRSchedule, SkipBadSteps, WeightDecaySplit
from lightning_llmopt.schedules import wsd
from lightning_llmopt.strategies import preset

class Model(BoringModel):
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)

callbacks = [
    LRSchedule(wsd(warmup=2, decay="50%")), WeightDecaySplit(), GradientNormMonitor(), GradientNormClip(0.1),
    SkipBadSteps(),
]
run = L.Trainer(
    max_steps=8, limit_train_batches=8, limit_val_batches=0, log_every_n_steps=1, accelerator="cpu", devices=1,
    default_root_dir=sys.argv[1], enable_progress_bar=False, callbacks=callbacks, **preset("fp32"),
)
run.fit(Model())
print("last rate", run.optimizers[0].param_groups[0]["lr"])
"""

# What each extra is for, done; `dev` is what runs this.
EXTRAS = {
    "cli": "import jsonargparse, rich; from lightning.pytorch.cli import LightningCLI",
    "plot": (
        "from lightning_llmopt.preview import preview; from lightning_llmopt.schedules import wsd; "
        "assert preview(wsd(), total_steps=100).png('plot.png').stat().st_size > 1000"
    ),
    "deepspeed": (
        "import deepspeed, lightning_llmopt.strategies; from lightning.pytorch.strategies import StrategyRegistry; "
        "assert StrategyRegistry.get('llmopt_zero2').config['zero_optimization']['stage'] == 2"
    ),
    "examples": "import matplotlib, rich",
    "docs": "import furo, myst_parser, sphinx",
}


class Environment:
    """A virtual environment; one that stands on another sees what that has, and installs only what is missing."""

    def __init__(self, folder, *, on=None):
        venv.create(folder, with_pip=True)
        self.folder, self.python = folder, folder / "bin" / "python"
        if on is not None:
            (self.packages / "below.pth").write_text(str(on.packages))

    @property
    def packages(self):
        return next(self.folder.glob("lib/python*/site-packages"))

    def pip(self, *words):
        quiet = ["-m", "pip", "--disable-pip-version-check", "install", "-q"]
        self.run(*quiet, *words)

    def run(self, *words, cwd=None):
        """Run Python; isolated (``-I``), so that neither this tree nor ``PYTHONPATH`` is seen."""
        done = subprocess.run([self.python, "-I", *words], capture_output=True, text=True, cwd=cwd or self.folder)
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def names(self):
        return {one["name"].lower() for one in json.loads(self.run("-m", "pip", "list", "--format=json"))}


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """The versions of what a user would choose himself; all else is as the registry has it today."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    file = tmp_path_factory.mktemp("held") / "constraints.txt"
    file.write_text("\n".join(line.split(";")[0] for line in lines if line.split("==")[0] in HELD))
    return file


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    environment = Environment(tmp_path_factory.mktemp("tools") / "venv")
    environment.pip("build", "twine")
    return environment


@pytest.fixture(scope="module")
def built(tools, tmp_path_factory):
    """By `python -m build`: the sdist from the sources, the wheel from the sdist."""
    source, out = copy_of_the_repository(tmp_path_factory.mktemp("source")), tmp_path_factory.mktemp("dist")
    tools.run("-m", "build", "--outdir", str(out), str(source))
    return archives_in(out)


@pytest.fixture(scope="module")
def empty(built, held, tmp_path_factory):
    """torch, the wheel and what it asks for: no extras."""
    environment = Environment(tmp_path_factory.mktemp("empty") / "venv")
    environment.pip(TORCH)  # first and alone, so that nothing else chooses its build
    environment.pip("-c", str(held), str(built[0]))
    yield environment
    shutil.rmtree(environment.folder)


def test_the_wheel_that_the_front_end_makes_from_the_sdist_is_whole(built):
    wheel, sdist = map(set, (wheel_names(built[0]), sdist_names(built[1])))
    inside = {name for name in wheel if ".dist-info/" not in name}
    assert inside == {name for name in sdist if name.startswith("lightning_llmopt/")}
    assert len(inside) > 100
    assert not {name for name in sdist if name.startswith((".ci", "runs", ".venv"))}


def test_twine_has_nothing_to_say(tools, built):
    said = tools.run("-m", "twine", "check", "--strict", *map(str, built))
    assert said.count("PASSED") == 2


def test_the_core_is_enough_to_import_every_room(empty):
    there = empty.names()
    assert not there & {"deepspeed", "matplotlib", "transformers", "rich", "jsonargparse"}
    where = empty.run("-c", f"import {', '.join(EVERY)}; print(lightning_llmopt.__file__)")
    assert Path(where.strip()).is_relative_to(empty.packages)


def test_the_core_is_enough_to_train(empty, tmp_path):
    assert "last rate 0.00133974" in empty.run("-c", FIT, str(tmp_path), cwd=tmp_path)


def test_the_command_is_there_and_helps(empty):
    command = empty.folder / "bin" / "llmopt"
    done = subprocess.run([command, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: llmopt")


def test_every_room_is_imported_as_fast_as_lightning(empty):
    """By the wall clock, in turns: 1.0 times `import lightning` plus a fifth of a second."""
    empty.run("-c", f"import lightning, {', '.join(EVERY)}")  # compiled, and in the disk's cache
    choices = [("lightning",), *((room,) for room in EVERY), tuple(EVERY)]
    first, *rest = side_by_side(*choices, rounds=5, clock=0, python=str(empty.python))
    seconds = dict(zip([*EVERY, "all of them"], rest, strict=True))
    print(f"\nimport lightning {first:.2f} s; {', '.join(f'{name} {taken:.2f}' for name, taken in seconds.items())}")
    assert {name: taken for name, taken in seconds.items() if taken > 1.0 * first + 0.2} == {}


def test_the_sdist_installs_too(built, empty, tmp_path):
    environment = Environment(tmp_path / "venv", on=empty)
    environment.pip("--no-deps", str(built[1]))
    where = environment.run("-c", "import lightning_llmopt.callbacks; print(lightning_llmopt.__file__)")
    assert Path(where.strip()).is_relative_to(environment.packages)


def test_every_extra_has_its_proof(built):
    assert {*EXTRAS, "dev"} == set(metadata(built[0]).get_all("Provides-Extra"))


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_installs_and_serves(extra, built, empty, held, tmp_path):
    """In an environment of its own, on the one with the core alone."""
    environment = Environment(tmp_path / "venv", on=empty)
    environment.pip("-c", str(held), f"{built[0]}[{extra}]")
    environment.run("-W", "ignore", "-c", EXTRAS[extra], cwd=tmp_path)
    assert environment.run("-c", "import torch; print(torch.__version__)") == empty.run(
        "-c", "import torch; print(torch.__version__)"
    )


def test_what_is_installed_says_the_version_of_the_sources(empty):
    told = empty.run("-c", "from importlib.metadata import version; print(version('lightning-llmopt'))")
    assert told.strip() == lightning_llmopt.__version__
