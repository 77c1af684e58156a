"""The example of rates by layer, run as a user runs it, at toy size."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples" / "layer_rates.py"


def example(*words):
    command = [sys.executable, SCRIPT, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


def test_shows_the_groups_and_trains():
    done = example("--updates", 3, "--decay", 0.5, "--quick")
    assert done.returncode == 0, done.stderr
    rates = [float(one) for one in re.findall(r"^block_\S+ +[\d,]+ +\d+ +([\d.e-]+)", done.stdout, flags=re.MULTILINE)]
    assert rates[::2] == rates[1::2]
    assert [rates[at] / rates[at + 2] for at in (0, 2, 4)] == [0.5, 0.5, 0.5]
    assert 3 < float(re.search(r"val/bits_per_byte ([\d.]+)", done.stdout)[1]) < 8.5


def test_refuses_a_decay_that_is_none():
    done = example("--decay", 2)
    assert done.returncode == 2
    assert "decay must be a number in (0, 1], got 2.0" in done.stderr
