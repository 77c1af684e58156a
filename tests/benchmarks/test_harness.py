"""The measuring itself, with a clock that is not a clock."""

import gc

import pytest
import torch

from benchmarks import peers
from benchmarks.goals import Goal, of_row, read, verdicts
from benchmarks.harness import Quartiles, Settings, Variant, interleave, ratios
from benchmarks.opcount import count
from benchmarks.params import GPT2_SMALL, TINY
from benchmarks.rows import load, names
from benchmarks.tables import Table


def test_every_variant_runs_once_a_round_after_its_reset():
    seen = []
    variants = [Variant(n, lambda n=n: seen.append(n), before=lambda n=n: seen.append(f"before {n}")) for n in "abc"]
    times = interleave(variants, rounds=4)
    assert {name: len(values) for name, values in times.items()} == {"a": 4, "b": 4, "c": 4}
    assert seen[::2] == [f"before {name}" for name in seen[1::2]]
    rounds = ["".join(seen[1::2][start : start + 3]) for start in range(0, 18, 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 1


def test_collector_is_off_while_measuring_and_on_again_after():
    states = []
    interleave([Variant("a", lambda: states.append(gc.isenabled()))], rounds=1)
    assert not any(states)
    assert gc.isenabled()


def test_repeats_are_divided_out():
    calls = []

    def clock(work):
        work()
        return 10.0

    assert interleave([Variant("a", lambda: calls.append(1))], rounds=1, clock=clock, repeats=5) == {"a": [2.0]}
    assert len(calls) == 5 * (1 + 2)


def test_a_ratio_is_taken_inside_a_round():
    times = {"ours": [2.0, 40.0, 200.0], "reference": [1.0, 10.0, 100.0]}  # the machine got 100 times slower
    assert ratios(times, "ours", "reference") == Quartiles(2.0, 2.0, 3.0)  # of sums 2.2, of medians 4


def test_quartiles_of_nothing_are_refused():
    with pytest.raises(ValueError, match="values must hold at least one number, got none"):
        Quartiles.of([])


def test_a_peer_that_is_not_installed_is_a_line_that_says_so():
    variants = [
        Variant("here", lambda: None),
        Variant("gone", lambda: None, missing=peers.missing("no_peer", pip="no")),
    ]
    table = Table("t", "here", interleave(variants, rounds=1), missing={"gone": variants[1].missing})
    assert "| gone | not installed: pip install no |" in table.markdown()


def table(ours):
    return Table("t", "torch", {"ours": ours, "torch": [1.0] * len(ours)})


@pytest.mark.parametrize(
    ("ours", "met"),
    [
        ([1.0, 1.0, 1.0], True),
        ([1.0, 1.5, 1.5, 1.5, 1.0, 1.0], True),  # a bad minute: the lower quartile is fine
        ([1.5, 1.5, 1.5], False),
    ],
)
def test_a_goal_is_missed_when_even_the_lower_quartile_is_over_it(ours, met):
    assert Goal("row", "t", "ours", "torch", at_most=1.1).verdict(table(ours))[0] is met


def test_a_goal_for_an_unknown_table_is_refused():
    with pytest.raises(ValueError, match="table must be one of \\['t'\\], got 'u'"):
        verdicts([Goal("row", "u", "ours", "torch", at_most=1.1)], [table([1.0])])


def test_every_goal_names_a_row_that_exists():
    assert {goal.row for goal in read()} <= set(names())


def test_a_goal_for_another_device_is_left_out():
    goals = [Goal("row", "t", "a", "b", 1.0), Goal("row", "t", "a", "b", 1.0, device="cuda")]
    assert of_row(goals, "row", device="cpu") == goals[:1]


def test_an_unknown_row_is_refused():
    with pytest.raises(ValueError, match=r"row must be one of .*, got 'nonsense'"):
        load("nonsense")


@pytest.mark.parametrize(("shapes", "millions"), [(GPT2_SMALL, 124.4), (TINY, 0.6)])
def test_parameter_sets_have_the_published_size(shapes, millions):
    assert len(shapes.sizes()) == 148
    assert shapes.numbers() / 1e6 == pytest.approx(millions, abs=0.05)


def test_counting_sees_reads_that_make_no_call_of_their_own():
    pair = [torch.ones(()), torch.ones(())]
    assert count(lambda: torch.ones(3).tolist()).host_reads == 1
    assert count(lambda: torch.tensor(pair)).host_reads == 2
    assert count(lambda: bool(pair[0])).host_reads == 1


def test_quick_run_takes_the_quick_number_of_rounds():
    assert [Settings(quick=quick).rounds(9, quick=2) for quick in (False, True)] == [9, 2]
