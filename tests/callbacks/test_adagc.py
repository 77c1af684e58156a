"""Clipping by each tensor's past; what all clippers share is in test_clippers."""

import pytest
import torch

from lightning_llmopt.callbacks import AdaGC
from lightning_llmopt.gradients import AdaGCRule

from clips import clipped


def test_adagc_follows_its_rule(tmp_path):
    raw, seen, _ = clipped(tmp_path, AdaGC(1.01, warmup_steps=2, max_norm=0.3), updates=10)
    rule = AdaGCRule(1.01, warmup_steps=2, max_norm=0.3)
    state = rule.start(4).double()
    for before, after in zip(raw, seen, strict=True):
        norms = torch.tensor([float(gradient.double().norm()) for gradient in before.values()], dtype=torch.float64)
        state, factors = rule(state, norms)
        for (name, gradient), factor in zip(before.items(), factors, strict=True):
            assert after[name] == pytest.approx(gradient * float(factor), rel=1e-4)
