"""The example of a recipe by name, run as a user runs it, at toy size."""

import re
import subprocess
import sys
from pathlib import Path

from lightning_llmopt.recipes import recipes

SCRIPT = Path(__file__).parents[2] / "examples" / "use_recipe.py"


def example(*words):
    command = [sys.executable, SCRIPT, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


def test_prints_the_recipe_and_trains_with_its_groups():
    done = example("--updates", 3, "--quick", "--recipe", "llama2-7b")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("llama2-7b: Llama 2 7B\n")
    assert "changed schedule.warmup: 2000 steps -> 0.4%" in done.stdout
    assert re.search(r"no_decay.* 0 ", done.stdout)
    assert 3 < float(re.search(r"val/bits_per_byte ([\d.]+)", done.stdout)[1]) < 8.5


def test_lists_all():
    done = example("--list")
    assert done.stdout.strip() == str(recipes())


def test_refuses_a_name_that_is_none():
    done = example("--recipe", "llama-7b")
    assert done.returncode == 2
    assert "Did you mean 'llama2-7b'?" in done.stderr
