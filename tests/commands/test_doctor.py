"""``llmopt doctor``: its exit status is the diagnosis."""

import pytest
import torch

from lightning_llmopt.checkpoints import diagnose
from lightning_llmopt.cli import main


@pytest.fixture
def checkpoint(tmp_path):
    """A whole one."""
    file = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"weight": torch.arange(1000.0)}, "global_step": 7, "epoch": 0}, file)
    return file


def test_a_whole_checkpoint_is_a_yes(capsys, checkpoint):
    assert main(["doctor", str(checkpoint)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{diagnose(checkpoint)}\n"
    assert "no faults" in out
    assert not err


def test_a_broken_one_is_a_no(capsys, checkpoint):
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2])
    assert main(["doctor", str(checkpoint)]) == 1
    assert "1 fault" in capsys.readouterr().out


def test_a_folder_is_a_no_if_one_of_its_checkpoints_is_broken(capsys, checkpoint):
    (checkpoint.parent / "first.ckpt").write_bytes(b"")
    assert main(["doctor", str(checkpoint.parent)]) == 1
    out = capsys.readouterr().out
    assert "first.ckpt" in out
    assert "last.ckpt" in out


def test_in_a_terminal_faults_are_red(monkeypatch, capsys, checkpoint):
    pytest.importorskip("rich")
    monkeypatch.setenv("FORCE_COLOR", "1")
    checkpoint.write_bytes(b"")
    assert main(["doctor", str(checkpoint)]) == 1
    assert "\x1b[31m  error" in capsys.readouterr().out


def test_nothing_is_a_sentence(capsys, tmp_path):
    assert main(["doctor", str(tmp_path / "none.ckpt")]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("llmopt: path must be a checkpoint or a run's folder, and there is nothing at ")
    assert not out
