"""The answer follows from the clock, whatever the clock says."""

import pytest
import torch

from lightning_llmopt.strategies import bf16_is_fast, hardware


@pytest.mark.parametrize(("brain", "fast"), [(0.5, True), (0.79, True), (0.81, False), (10.0, False)])
def test_fast_means_at_most_four_fifths_of_the_time(monkeypatch, brain, fast):
    monkeypatch.setattr(hardware, "_seconds", lambda matrix: brain if matrix.dtype == torch.bfloat16 else 1.0)
    assert bf16_is_fast("cpu", size=2) is fast


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "512"])
def test_no_size_is_refused(size):
    with pytest.raises(ValueError, match=f"size must be a whole number >= 1, got {size!r}"):
        bf16_is_fast("cpu", size=size)


def test_answers_on_this_machine():
    assert bf16_is_fast("cpu", size=64) in (True, False)
