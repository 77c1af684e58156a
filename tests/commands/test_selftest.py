"""``llmopt selftest``: names, and what its exit status means."""

import pytest

import lightning_llmopt.selftest.__main__ as selftest
from lightning_llmopt.cli import main


def test_a_strategy_by_the_first_word_of_its_name(capsys):
    assert main(["selftest", "ddp"]) == 0
    out = capsys.readouterr().out
    assert "\nDDP 2 " in out
    assert "FSDP2" not in out.partition("strategy, ranks")[2]
    assert "over 1e-06: none" in out


def test_an_error_over_the_limit_is_a_no(monkeypatch, capsys):
    monkeypatch.setattr(selftest, "LIMIT", 0.0)  # rounding alone is more
    assert main(["selftest", "DDP 2"]) == 1
    assert "over 0: DDP 2" in capsys.readouterr().out


def test_a_rank_that_fails_is_a_no(monkeypatch, capsys):
    def failed(name):
        raise RuntimeError("DDP 2, rank 1: it fell over")

    monkeypatch.setattr(selftest, "run", failed)
    assert main(["selftest", "ddp"]) == 1
    assert capsys.readouterr().err == "DDP 2, rank 1: it fell over\n"


@pytest.mark.parametrize(("word", "hint"), [("dpp", " Did you mean DDP?"), ("zzz", "")])
def test_an_unknown_strategy_is_a_sentence(capsys, word, hint):
    assert main(["selftest", word]) == 2
    err = capsys.readouterr().err
    assert err.startswith("llmopt: STRATEGY must be one of DDP, FSDP1, FSDP2, ")
    assert err.endswith(f"got {word!r}.{hint}\n")
