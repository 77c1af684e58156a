"""The example of three models from one trunk, run as a user runs it, at toy size."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples" / "branch_cooldowns.py"


def example(*words):
    command = [sys.executable, SCRIPT, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


def test_finishes_a_model_for_every_length_and_says_what_that_saves(tmp_path):
    done = example("--totals", 10, 20, "--batch", 2, "--out", tmp_path / "trunk", "--quick")
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"│ +(\d+) │ +(\d+) │ +(\d+) │ +(\d+\.\d+) │", done.stdout)
    assert [row[:3] for row in rows] == [("10", "8", "2"), ("20", "16", "4")]
    assert all(3 < float(row[3]) < 8.5 for row in rows)
    assert "22 updates in all; separate runs take 30. Saved: 26.7%." in done.stdout
    assert sorted(file.name for file in (tmp_path / "trunk").iterdir()) == ["trunk-16.ckpt", "trunk-8.ckpt"]


def test_refuses_lengths_that_are_none():
    done = example("--totals", 0, 10)
    assert done.returncode == 2
    assert "totals must be different whole numbers of updates >= 1, got [0, 10]" in done.stderr.replace("\n", " ")
