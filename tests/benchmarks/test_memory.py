"""The benchmark of a GPU's peaks: its networks and ways of checkpointing, here against torch's tracker on the CPU."""

import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker

from benchmarks.memory import GOAL, MODES, made, main
from lightning_llmopt.planning import Job, Layout, memory
from lightning_llmopt.planning.reading import network_of


@pytest.mark.parametrize("mode", MODES)
def test_the_plan_is_within_the_goal_of_torchs_tracker(mode):
    model, data = made(6, 128, 4, 1000, (4, 257), mode=mode, device="cpu")
    adamw, tracker = torch.optim.AdamW(model.parameters(), foreach=True), MemTracker()
    tracker.track_external(model, adamw, data)
    with tracker:
        for first in (True, False):
            model(data).backward()
            adamw.step()
            adamw.zero_grad()
            if first:
                tracker.reset_mod_stats()
    found = next(iter(tracker.get_tracker_snapshot("peak").values()))["Total"]
    planned = memory(Job(network_of(model), 256, 4, precision="fp32"), Layout("single"), checkpointing=mode).peak
    assert planned == pytest.approx(found, rel=GOAL / 2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="measures here")
def test_without_a_gpu_it_says_so(capsys):
    assert main() == 0
    assert capsys.readouterr().out.startswith("Skipped: torch sees no GPU here")
