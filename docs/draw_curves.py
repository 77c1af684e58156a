"""Draws every recipe, every shape and a preview with the code itself: the pictures of docs/curves.md and preview.md.

.venv/bin/python docs/draw_curves.py docs/images
"""

import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from lightning_llmopt.preview import preview
from lightning_llmopt.schedules import (
    SHAPES,
    ScheduleSpec,
    constant,
    cosine,
    cosine_restarts,
    half_life,
    inverse_sqrt,
    linear,
    multi_step,
    one_cycle,
    piecewise,
    polynomial,
    power,
    rewarm,
    sequence,
    wsd,
    wsd_s,
)

STEPS = 1_000
RECIPES: dict[str, ScheduleSpec] = {
    "constant": constant(warmup="5%"),
    "linear": linear(warmup="5%", floor=0.1),
    "cosine": cosine(warmup="5%", floor=0.1),
    "polynomial": polynomial(power=3.0, warmup="5%"),
    "inverse_sqrt": inverse_sqrt(warmup="5%", cooldown="20%"),
    "power": power(warmup="2%", knee="10%", decay="10%"),
    "cosine_restarts": cosine_restarts(first_cycle=143, cycle_factor=2, floor=0.1),
    "one_cycle": one_cycle(),
    "wsd": wsd(warmup="5%", decay="20%"),
    "wsd_s": wsd_s(periods=["20%", "30%", "50%"], decay=0.2, warmup="5%", floor=0.1),
    "multi_step": multi_step(warmup="2%"),
    "half_life": half_life(warmup="5%", decay="40%", half_life="10%"),
    "rewarm": rewarm(first_warmup="10%", share=0.5),
    "sequence": sequence(parts=[(wsd(warmup="10%"), "60%"), (rewarm(first_warmup="20%"), None)]),
    "piecewise": piecewise(points={0: 0.2, "10%": 1.0, "50%": 0.4, "80%": 0.4, "100%": 0.0}),
}
SETTINGS = {"piecewise": (0.3, 0.2), "power_law": (100,), "halving": (200,), "polynomial": (3.0,)}


def draw_recipes(file: Path) -> None:
    """One small picture a recipe, phases shaded."""
    figure, grid = plt.subplots(3, 5, figsize=(15, 7.5), sharex=True, sharey=True, layout="constrained")
    for axes, (name, spec) in zip(grid.flat, RECIPES.items(), strict=True):
        schedule = spec.resolve(total_steps=STEPS)
        begin = 0
        for number, phase in enumerate(schedule.phases):
            axes.axvspan(
                begin, min(begin + phase.steps, STEPS), color="tab:blue", alpha=0.04 + 0.08 * (number % 2), lw=0
            )
            begin += phase.steps
        axes.step(range(STEPS), [schedule(step) for step in range(STEPS)], where="post", color="black", lw=1.5)
        axes.set(title=name, xlim=(0, STEPS), ylim=(0, 1.05))
    figure.supxlabel("update")
    figure.supylabel("multiplier of the base rate")
    figure.savefig(file, dpi=80)


def draw_shapes(file: Path) -> None:
    """All shapes from 1 to 0.05 on one page."""
    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    for name, shape in SHAPES.items():
        style = ":" if name in ("power_law", "halving") else "-"
        axes.plot(range(STEPS + 1), values(shape, SETTINGS.get(name, ())), style, label=label(name))
    axes.set(xlabel="updates into the fall", ylabel="multiplier", xlim=(0, STEPS), ylim=(0, 1.02))
    axes.legend()
    figure.savefig(file, dpi=80)


def draw_preview(file: Path) -> None:
    """The run of the preview page."""
    preview(
        wsd(warmup=2_000, decay="20%"),
        total_steps=100_000,
        groups={"weights": 3e-4, "norms": 3e-4, "embedding": 6e-4, "head": 1e-4},
        values={"beta2": lambda step: 0.95 + 0.04 * step / 100_000, "weight decay": lambda step: 0.1},
        tokens_per_update=4_194_304,
    ).png(file)


def values(shape: Callable[..., float], settings: tuple[float, ...]) -> list[float]:
    """The shape at every update."""
    return [shape(1.0, 0.05, over, STEPS, *settings) for over in range(STEPS + 1)]


def label(name: str) -> str:
    """The shape as it is written, settings included."""
    settings = SETTINGS.get(name, ())
    return f"{name}({', '.join(map(str, settings))})" if settings else name


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    draw_recipes(folder / "recipes.png")
    draw_shapes(folder / "shapes.png")
    draw_preview(folder / "preview.png")
