"""What an import costs and brings along, each time in an interpreter of its own."""

import json
import pkgutil
import subprocess
import sys
from statistics import median

import lightning_llmopt

HEAVY = ("deepspeed", "matplotlib", "transformers", "rich", "jsonargparse", "torch", "lightning")
ROOMS = sorted(
    f"lightning_llmopt.{room.name}"
    for room in pkgutil.iter_modules(lightning_llmopt.__path__)
    if not room.name.startswith("_")
)

_SCRIPT = """
import importlib, json, sys, time
wall, cpu, there = time.perf_counter(), time.process_time(), {}
for name in sys.argv[1:]:
    importlib.import_module(name)
    there[name] = sorted(sys.modules)
print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu, there]))
"""


def imported(*names, python=None):
    """Import ``names`` one after the other, by this interpreter, or by another one that sees nothing of this tree.

    Returns:
        Seconds by the wall, seconds of the processor, and by name the modules that are there when it has been imported.
    """
    command = [sys.executable] if python is None else [python, "-I"]
    done = subprocess.run([*command, "-W", "ignore", "-c", _SCRIPT, *names], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def heavy(modules):
    return set(HEAVY) & set(modules)


def side_by_side(*choices, rounds, clock, python=None):
    """Median seconds that each choice of names takes, in turns: what else the machine does falls on all alike.

    Import them once before, so that nothing comes from the disk.

    Args:
        choices: Tuples of names to import.
        rounds: Turns.
        clock: 0 for the wall, 1 for the processor's own time, which another program does not lengthen by much.
        python: The interpreter, if it is another one.
    """
    times = [[imported(*names, python=python)[clock] for names in choices] for _ in range(rounds)]
    return [median(column) for column in zip(*times, strict=True)]
