"""Clipping number by number; what all clippers share is in test_clippers."""

import torch

from lightning_llmopt.callbacks import GradientValueClip

from clips import clipped


def test_value_clip_is_torchs_clamp(tmp_path):
    raw, seen, _ = clipped(tmp_path, GradientValueClip(0.01))
    for before, after in zip(raw, seen, strict=True):
        for name in before:
            assert torch.equal(after[name], before[name].clamp(-0.01, 0.01))
