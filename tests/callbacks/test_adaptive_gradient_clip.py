"""Clipping unit by unit; what all clippers share is in test_clippers."""

import lightning as L
import pytest
import torch

from lightning_llmopt.callbacks import AdaptiveGradientClip

from clips import Gradients
from fitting import Regression, loader, trainer


def test_adaptive_clip_keeps_every_unit_below_its_ratio(tmp_path):
    weights = []

    class Weights(L.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            weights.append({name: parameter.detach().clone() for name, parameter in pl_module.named_parameters()})

    watch = Gradients()
    run = trainer(tmp_path, AdaptiveGradientClip(0.01, exclude=["head.*"]), Weights(), watch, max_steps=4)
    run.fit(Regression(), loader(4))
    seen = [*watch.seen, {name: p.grad for name, p in run.lightning_module.named_parameters()}][:4]
    for before, after, held in zip(watch.raw, seen, weights, strict=True):
        assert torch.equal(after["head.weight"], before["head.weight"])
        limit = 0.01 * held["body.weight"].norm(dim=1, keepdim=True).clamp(min=1e-3)
        size = before["body.weight"].norm(dim=1, keepdim=True)
        expected = torch.where(size > limit, before["body.weight"] * (limit / size), before["body.weight"])
        assert after["body.weight"] == pytest.approx(expected, rel=1e-5)
