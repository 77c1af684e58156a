"""Clipping of spikes; what all clippers share is in test_clippers."""

import pytest
import torch

from lightning_llmopt.callbacks import ZClip
from lightning_llmopt.gradients import ZClipRule

from clips import clipped, norm
from fitting import Regression, loader, trainer


@pytest.mark.parametrize("stop", [0, 3])
def test_zclip_follows_its_rule_and_goes_on_after_a_resume(tmp_path, stop):
    make = lambda: ZClip(0.5, warmup_steps=3, max_norm=None)  # noqa: E731
    if not stop:
        raw, seen, _ = clipped(tmp_path, make(), updates=12)
        rule = ZClipRule(0.5, warmup_steps=3, max_norm=None)
        state, spikes = rule.start(), 0
        for before, after in zip(raw, seen, strict=True):
            state, limit = rule(state, torch.tensor(norm(before)))
            spikes += float(limit) < norm(before)
            assert norm(after) == pytest.approx(min(norm(before), float(limit)), rel=1e-4)
        assert spikes >= 2
        return
    whole, rest = make(), make()
    trainer(tmp_path, whole, max_steps=12).fit(Regression(), loader(12))
    first = trainer(tmp_path, make(), max_steps=5)
    first.fit(Regression(), loader(12))
    first.save_checkpoint(tmp_path / "stop.ckpt")
    assert torch.load(tmp_path / "stop.ckpt", weights_only=True)["callbacks"]["ZClip"]["states"][0][0] == 5
    rest_of_them = iter(list(loader(12))[5:])  # without a length: Lightning would begin it anew in the middle
    run = trainer(tmp_path, rest, max_steps=12)
    run.fit(Regression(), rest_of_them, ckpt_path=tmp_path / "stop.ckpt")
    assert rest.state_dict()["states"][0] == pytest.approx(whole.state_dict()["states"][0], rel=1e-6)
    assert rest.state_dict()["states"][0][0] == 12
