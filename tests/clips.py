"""Clippers in a real Trainer, and what they make of the gradients."""

import math

import lightning as L

from lightning_llmopt.callbacks import (
    AdaGC,
    AdaptiveGradientClip,
    GradientNormClip,
    GradientNormMonitor,
    GradientValueClip,
    ZClip,
)

from fitting import MemoryLogger, Regression, loader, trainer

CLIPPERS = {
    "norm": lambda: GradientNormClip(0.1),
    "group": lambda: GradientNormClip(0.1, per_group=True),
    "value": lambda: GradientValueClip(0.01),
    "agc": lambda: AdaptiveGradientClip(0.01),
    "zclip": lambda: ZClip(1.5, warmup_steps=2, max_norm=0.2),
    "adagc": lambda: AdaGC(warmup_steps=1, max_norm=0.2),
}


class Gradients(L.Callback):
    """What the optimizer's step really gets."""

    def __init__(self):
        self.raw, self.seen = [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.raw.append({name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None})

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        gradients = {name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None}
        if gradients and len(self.seen) < len(self.raw):
            self.seen.append(gradients)


def clipped(tmp_path, clipper, updates=8, module=None, **settings):
    watch, logger = Gradients(), MemoryLogger()
    settings = {"max_steps": updates, "logger": logger, "log_every_n_steps": 1, **settings}
    run = trainer(tmp_path, clipper, GradientNormMonitor(), watch, **settings)
    run.fit(module or Regression(), loader(4))
    seen = [*watch.seen, {name: p.grad for name, p in run.lightning_module.named_parameters() if p.grad is not None}]
    return watch.raw, seen[: len(watch.raw)], logger.points


def norm(gradients):
    return math.sqrt(sum(float(gradient.double().pow(2).sum()) for gradient in gradients.values()))
