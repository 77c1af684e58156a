"""Norm of every gradient, norm of all together and clipping, beside clipping alone.

Ours reads the gradients once for all three. What others add to clipping is a second read and one copy to the
host for each parameter, which on a GPU is a stop of the pipeline. GPT-2 small is bound by memory bandwidth, the
tiny set (the same 148 tensors, 0.6 million numbers) by the cost of a call. Gradients are put back to
their first values before each reading, outside the clock.
"""

from collections.abc import Callable

import torch

from lightning_llmopt.gradients import GradientReading

from .. import peers
from ..harness import Settings, Variant, Work, clocks, interleave
from ..opcount import count
from ..params import GPT2_SMALL, TINY, Gradients, Shapes
from ..tables import Table, reasons

NORM = 2.0
CASES = {"clipping needed": NORM / 2, "no clipping needed": NORM * 2}


def run(settings: Settings) -> list[Table]:
    """Two sets of parameters, gradients too large and gradients small enough."""
    rounds = {
        TINY: settings.rounds(301, quick=30),
        GPT2_SMALL: settings.rounds(21 if settings.device == "cpu" else 101, quick=2),
    }
    tables = []
    for shapes, number in rounds.items():
        gradients = Gradients(shapes, device=settings.device, norm=NORM)
        for case, max_norm in CASES.items():
            variants = _variants(gradients, max_norm, device=settings.device)
            for remark, clock in clocks(settings.device).items():
                times = interleave(variants, rounds=number, clock=clock, seed=settings.seed)
                counts = {} if shapes is GPT2_SMALL else {v.name: count(v.run) for v in variants}
                title = f"{shapes.name}, {case}{remark}"
                tables.append(Table(title, "clip_grad_norm_", times, reasons(variants), counts, [_about(shapes)]))
    return tables


def _variants(gradients: Gradients, max_norm: float, *, device: str) -> list[Variant]:
    writes = device != "cpu" or max_norm < NORM  # on CPU a look at the total can save the second pass
    works: dict[str, Work] = {
        f"limit: one read{' and one read-write' if writes else ''} pass": _limit(gradients.flat, writes=writes),
        "clip_grad_norm_": peers.torch_clip(gradients, max_norm),
        "ours: per-tensor norms, total and clip": _ours(gradients, max_norm),
        "ours on a logging step: all norms to the host": _ours_logged(gradients, max_norm),
        "tutorials: .item() loop, then clip_grad_norm_": peers.item_loop_clip(gradients, max_norm),
        "Lightning: grad_norm, then clip_grad_norm_": peers.lightning_clip(gradients, max_norm),
        "Composer's computation, then clip_grad_norm_": peers.composer_clip(gradients, max_norm),
    }
    return [Variant(name, work, before=gradients.reset) for name, work in works.items()]


def _limit(flat: torch.Tensor, *, writes: bool) -> Work:
    def work() -> None:
        flat.sum()
        if writes:
            flat.mul_(1.0)

    return work


def _ours(gradients: Gradients, max_norm: float) -> Callable[[], GradientReading]:
    def work() -> GradientReading:
        reading = GradientReading(gradients.parameters)
        reading.clip_(gradients.parameters, max_norm=max_norm)
        return reading

    return work


def _ours_logged(gradients: Gradients, max_norm: float) -> Work:
    ours = _ours(gradients, max_norm)

    def work() -> list[float]:
        reading = ours()
        return torch.cat([reading.norms, torch.stack([reading.total, reading.clipped])]).tolist()

    return work


def _about(shapes: Shapes) -> str:
    return f"{len(shapes.sizes())} tensors, {shapes.numbers() / 1e6:.1f} million numbers, fp32."
