"""The self-test: right where we are right, and it says so where we are not."""

import math

import pytest

from lightning_llmopt.gradients import shards
from lightning_llmopt.selftest import __main__ as command
from lightning_llmopt.selftest._fits import Found
from lightning_llmopt.selftest._matrix import errors, run


def test_a_strategy_that_is_right_exits_with_0(capsys):
    assert command.main(["DDP 2"]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[:2] for line in printed.splitlines() if line.startswith("DDP")] == [["DDP", "2"]]
    assert "over 1e-06: none" in printed


def test_a_norm_of_one_ranks_part_exits_with_1(capsys, monkeypatch):
    monkeypatch.setattr(shards, "_groups_of", lambda tensor, placements: ())
    assert command.main(["FSDP2 2", "DDP 2"]) == 1
    assert "over 1e-06: FSDP2 2\n" in capsys.readouterr().out


def test_a_missing_deepspeed_is_said_and_no_error(capsys, monkeypatch):
    monkeypatch.setattr(command, "deepspeed_is_here", lambda: False)
    assert command.main(["ZeRO-1 2"]) == 0
    assert "not run: pip install 'lightning-llmopt[deepspeed]'" in capsys.readouterr().out


def test_an_unknown_strategy_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["DDP"])
    assert "STRATEGY must be one of ['DDP 2', " in capsys.readouterr().err


def test_a_rank_that_fails_is_reported_with_its_traceback(monkeypatch):
    monkeypatch.setattr("lightning_llmopt.selftest._matrix.fit", lambda *args, **rest: 1 / 0)
    with pytest.raises(RuntimeError, match="(?s)DDP 2, rank 0:.*ZeroDivisionError"):
        run("DDP 2")


def made(norm=1.0, total=2.0, weight=3.0):
    import numpy

    points = {f"grad_norm/{name}": {0: total} for name in ("total", "clipped")}
    return {("GPT", 1): Found([{"a": norm}] * 3, points, {"a": numpy.array([weight, 0.0])}, 3)}


def test_errors_are_relative_and_the_largest_over_ranks():
    found = errors([made(), made(norm=1.1, weight=3.3)], made())
    assert found == pytest.approx({"total": 0.0, "clipped": 0.0, "each tensor": 0.1, "weights": 0.1})
    assert errors([made(total=2.5)], made())["clipped"] == pytest.approx(0.25)


def test_a_missing_update_or_tensor_is_an_infinite_error():
    short, other = made(), made()
    short["GPT", 1].norms.pop()
    other["GPT", 1].norms[0] = {"b": 1.0}
    assert errors([short], made())["each tensor"] == errors([other], made())["each tensor"] == math.inf
