"""What is in the wheel and in the sdist; built here without a network, where the build backend is installed."""

import ast
import re
import subprocess
from importlib.util import find_spec

import pytest
import yaml

import lightning_llmopt

from archives import (
    LITTER,
    RECIPE,
    ROOT,
    build_offline,
    copy_of_the_repository,
    entry_points,
    metadata,
    sdist_names,
    wheel_names,
)

VERSION = lightning_llmopt.__version__
CORE = {"lightning", "torch", "torchmetrics", "tensorboard", "typing-extensions"}
EXTRAS = {"cli", "deepspeed", "dev", "docs", "examples", "plot"}

needs_backend = pytest.mark.skipif(
    find_spec("hatchling") is None, reason="hatchling, the build backend, is not installed"
)
needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout: what is tracked is not known")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    source = copy_of_the_repository(tmp_path_factory.mktemp("source"))
    return build_offline(source, tmp_path_factory.mktemp("dist"))


def tracked(*paths):
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *paths]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return {name for name in names if name and (ROOT / name).is_file()}


@needs_backend
@needs_git
def test_the_wheel_holds_the_package_its_data_and_its_licence_and_nothing_else(built):
    names = wheel_names(built[0])
    inside = {name for name in names if not name.startswith(f"lightning_llmopt-{VERSION}.dist-info/")}
    assert inside == tracked("lightning_llmopt") | {RECIPE}
    assert "lightning_llmopt/py.typed" in inside
    assert {name.split("/", 1)[1] for name in names - inside} == {
        "METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE",
    }  # fmt: skip


@needs_backend
@needs_git
def test_the_sdist_holds_what_is_tracked_but_for_runs_and_ci(built):
    names = sdist_names(built[1])
    assert names == {name for name in tracked() if not name.startswith((".ci/", "runs/"))} | {RECIPE, "PKG-INFO"}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "constraints.txt", "Makefile"} <= names
    assert "lightning_llmopt/py.typed" in names
    assert not names & set(LITTER)


@needs_backend
def test_metadata_say_what_is_needed_and_what_is_extra(built):
    facts = metadata(built[0])
    assert (facts["Name"], facts["Version"], facts["License-Expression"]) == ("lightning-llmopt", VERSION, "Apache-2.0")
    needs = facts.get_all("Requires-Dist")
    assert {re.match(r"[\w-]+", need)[0] for need in needs if "extra ==" not in need} == CORE
    assert set(facts.get_all("Provides-Extra")) == EXTRAS
    assert "lightning>=2.6.6" in needs  # SECURITY.md
    assert entry_points(built[0]).split() == ["[console_scripts]", "llmopt", "=", "lightning_llmopt.cli:main"]


def test_every_version_that_is_written_down_is_the_same():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == VERSION
    assert (citation["cff-version"], citation["license"]) == ("1.2.0", "Apache-2.0")
    assert {"message", "title", "authors", "type"} <= citation.keys()
    (named,) = re.findall(r'^__version__ = "(.+)"$', (ROOT / "lightning_llmopt/__init__.py").read_text(), re.MULTILINE)
    assert named == VERSION


def test_the_licence_that_is_named_is_the_one_that_is_there():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text


def test_every_file_of_the_package_is_python_or_data_that_a_wheel_carries():
    """No compiled files, no archives, no weights: what is installed can be read."""
    package = ROOT / "lightning_llmopt"
    files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.suffix for path in files} <= {".py", ".typed", ".json", ".yaml", ".md", ".html", ".css", ".js"}
    for path in files:
        if path.suffix == ".py":
            ast.parse(path.read_text(encoding="utf-8"))
