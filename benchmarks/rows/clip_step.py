"""Clipping by norm and one step of fused AdamW.

Folded, the step multiplies by the factor while it reads the gradients anyway, and nobody writes them once more.
"""

from collections.abc import Callable
from typing import Any

import torch

from lightning_llmopt.callbacks._folding import fold
from lightning_llmopt.gradients import GradientReading

from ..harness import Settings, Variant, clocks, interleave
from ..params import GPT2_SMALL, TINY, Gradients
from ..tables import Table, reasons

NORM = 2.0


def run(settings: Settings) -> list[Table]:
    """Two sets of parameters, gradients that have to be clipped."""
    tables = []
    for shapes, rounds in {TINY: settings.rounds(301, quick=30), GPT2_SMALL: settings.rounds(15, quick=2)}.items():
        variants = _variants(lambda shapes=shapes: Gradients(shapes, device=settings.device, norm=NORM))  # type: ignore[misc]
        for remark, clock in clocks(settings.device).items():
            times = interleave(variants, rounds=rounds, clock=clock, seed=settings.seed)
            tables.append(Table(f"{shapes.name}{remark}", "clip_grad_norm_, then the step", times, reasons(variants)))
    return tables


def _variants(gradients: Callable[[], Gradients]) -> list[Variant]:
    """One set of gradients, and an optimizer, for each way."""

    def variant(name: str, clip: Callable[[list[torch.nn.Parameter], Any], object]) -> Variant:
        own = gradients()
        optimizer = torch.optim.AdamW(own.parameters, lr=1e-9, fused=True)

        def work() -> None:
            clip(own.parameters, optimizer)
            optimizer.step()

        return Variant(name, work, before=own.reset)

    return [
        variant("clip_grad_norm_, then the step", lambda p, _: torch.nn.utils.clip_grad_norm_(p, NORM / 2)),
        variant("ours, written", lambda p, _: GradientReading(p).clip_(p, max_norm=NORM / 2)),
        variant("ours, folded", lambda p, opt: fold(opt, GradientReading(p).note_clip(max_norm=NORM / 2))),
    ]
