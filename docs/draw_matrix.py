"""Writes the tables of docs/compatibility.md: a cell is filled if a test of that name is collected for that strategy.

.venv/bin/python docs/draw_matrix.py
"""

import contextlib
import io
import multiprocessing
import os
import re
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from lightning_llmopt.selftest._places import PLACES
from lightning_llmopt.strategies import PRESETS

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "compatibility.md"
CALLBACKS = "tests/callbacks/test_"
EVERYWHERE = "clippers.py::test_is_the_same_on_every_strategy"
ROWS = (  # what is claimed, and the tests that hold it
    (
        "`LRSchedule`, `HyperparameterSchedule`",
        "strategies_schedule.py::test_rates_and_counts_are_those_of_one_process",
    ),
    ("resumed", "strategies_schedule.py::test_a_resumed_run_goes_on_at_the_same_rates"),
    (
        "`GradientNormMonitor`, `GradientNormClip`",
        "strategies_norms.py::test_three_clipped_updates_end_at_the_weights_of_one_process",
    ),
    ("`GradientNormClip(per_group=True)`", f"{EVERYWHERE}[group-"),
    ("`GradientValueClip`", f"{EVERYWHERE}[value-"),
    ("`AdaptiveGradientClip`", f"{EVERYWHERE}[agc-"),
    ("`ZClip`", f"{EVERYWHERE}[zclip-"),
    ("`AdaGC`", f"{EVERYWHERE}[adagc-"),
    (
        "`LayerwiseLRDecay`, `WeightDecaySplit`, `ParamGroups`",
        "strategies_groups.py::test_weights_after_three_updates_are_those_of_one_process",
    ),
    ("resumed", "strategies_groups.py::test_a_resumed_run_has_the_same_groups_as_one_that_was_never_stopped"),
    ("`UseOptimizer`", "use_optimizer.py::test_weights_after_three_updates_are_those_of_one_process"),
    ("resumed", "use_optimizer.py::test_a_resumed_run_has_the_weights_of_a_whole_one_on_every_strategy"),
    ("`UseRecipe`", "tests/recipes/test_use_recipe.py::test_weights_on_other_strategies_are_those_of_one_process"),
    ("`MuTransfer`", "strategies_mup.py::test_weights_after_three_updates_are_those_of_one_process"),
    ("`LRFinder`, `find_lr`", "strategies_lr_finder.py::test_no_trace_is_left_on_any_strategy"),
    (
        "`SkipBadSteps`",
        "skip_bad_steps.py::test_a_run_with_bad_updates_is_bit_equal_to_the_run_without_them",
        "skip_bad_steps.py::test_what_only_one_rank_sees_is_skipped_on_all_without_a_hang",
        "skip_bad_steps.py::test_meshes_skip_together",
        "skip_bad_steps_zero.py::test_a_run_with_bad_updates_is_bit_equal_to_the_run_without_them",
    ),
)
COURSE = "tests/strategies/test_distributed.py"
SHORT = {"DDP": "DDP 2", "FSDP1": "FSDP1 2", "1": "ZeRO-1 2", "2": "ZeRO-2 2", "3": "ZeRO-3 2"}  # as some tests say


def whole(test: str) -> str:
    """A test of ROWS with its folder."""
    return test if test.startswith("tests/") else f"{CALLBACKS}{test}"


FILES = sorted({whole(test).split("::")[0] for _, *tests in ROWS for test in tests})


class Names:
    """Keeps the names of the tests that pytest collects."""

    found: tuple[str, ...] = ()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """All of them are there."""
        self.found = tuple(item.nodeid for item in session.items)


def collected() -> list[str]:
    """Names of all tests of strategies, those of `make test-distributed` included.

    In a fork, which has imported torch and Lightning already, and leaves nothing behind in this process.
    """
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe(duplex=False)
    process = fork.Process(target=_collect, args=(there,))
    process.start()
    there.close()
    status, said, found = here.recv()
    process.join()
    if status:
        raise RuntimeError(f"pytest could not collect the tests, exit status {status}:\n{said}")
    return list(found)


def _collect(to: Connection) -> None:
    names, words = Names(), io.StringIO()
    os.chdir(ROOT)
    options = [
        "--collect-only",
        "-q",
        "-m",
        "",
        "-p",
        "no:cacheprovider",
        "--assert=plain",
    ]  # nothing is to be rewritten
    with contextlib.redirect_stdout(words), contextlib.redirect_stderr(words):
        status = pytest.main([*options, *FILES, COURSE], plugins=[names])
    to.send((int(status), words.getvalue(), names.found))


def place_of(test: str) -> str | None:
    """The strategy in the brackets of a test's name."""
    inside = test.partition("[")[2].removesuffix("]")
    if inside in SHORT:
        return SHORT[inside]
    named = [place for place in PLACES if re.search(rf"(^|-){re.escape(place)}($|-|, \d)", inside)]
    return max(named, key=len, default=None)


def callbacks_table(tests: list[str]) -> str:
    """Callbacks by strategies."""
    rows = [f"| | {' | '.join(PLACES)} |", "|---|" + ":-:|" * len(PLACES)]
    for claim, *held_by in ROWS:
        mine = [test for test in tests for name in held_by if test.startswith(whole(name))]
        places = {place_of(test) for test in mine}
        rows.append(f"| {claim} | {' | '.join('yes' if place in places else '' for place in PLACES)} |")
    return "\n".join(rows)


def presets_table(tests: list[str]) -> str:
    """Presets by precisions and processes."""
    found: dict[tuple[str, str], set[str]] = {}
    for test in tests:
        named = re.search(r"takes_the_course_of_one_process\[(\w+)-(\d)-\w+-(fp32|bf16)-\d\]", test)
        if named:
            found.setdefault((named[1], named[3]), set()).add(named[2])
    rows = ["| preset | fp32 | bf16 |", "|---|---|---|"]
    for name in PRESETS:
        cells = [" and ".join(sorted(found.get((name, precision), ()))) for precision in ("fp32", "bf16")]
        if any(cells):
            rows.append(f"| `{name}` | {' | '.join(f'{cell} processes' if cell else '' for cell in cells)} |")
    return "\n".join(rows)


def page(text: str, tests: list[str]) -> str:
    """The page with its tables made anew."""
    for name, table in (("callbacks", callbacks_table(tests)), ("presets", presets_table(tests))):
        marks = f"<!-- {name} -->", f"<!-- end of {name} -->"
        text = re.sub(f"{marks[0]}.*{marks[1]}", f"{marks[0]}\n\n{table}\n\n{marks[1]}", text, flags=re.DOTALL)
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(), collected()))
