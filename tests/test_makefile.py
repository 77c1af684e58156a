"""The two commands say in one sentence why they cannot run."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def run(target, python):
    return subprocess.run(
        ["make", "-s", target, f"PYTHON={python}", "VENV=/nonexistent/venv"], cwd=ROOT, capture_output=True, text=True
    )


@make
@pytest.mark.parametrize("target", ["demo", "test"])
def test_a_python_that_is_too_old_is_named(tmp_path, target):
    old = tmp_path / "python3.8"
    old.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 8, 10); exec(sys.argv[1])" "$2"\n'
    )
    old.chmod(0o755)
    result = run(target, old)
    assert result.returncode != 0
    assert result.stderr.splitlines()[0] == (
        f"lightning-llmopt needs Python 3.10 or newer, but {old} is 3.8: install a newer one, or name it as in "
        "PYTHON=/usr/bin/python3.12."
    )


@make
def test_a_python_that_is_not_there_is_named():
    result = run("demo", "no-such-python")
    assert result.returncode != 0
    assert "needs Python 3.10 or newer, but there is no no-such-python" in result.stderr.splitlines()[0]
