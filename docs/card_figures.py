"""What the figures of the cards show: curves that the code itself makes, as numbers; ``draw_cards.py`` draws them."""

import json
import math
import tempfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from draw_curves import RECIPES
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader

from lightning_llmopt.callbacks import (
    GradientNormClip,
    GradientNormMonitor,
    IndependentWeightDecay,
    RunSummary,
    SkipBadSteps,
    UseOptimizer,
)
from lightning_llmopt.gradients import AdaGCRule, ZClipRule, clip_coefficient, clip_units_, clip_values_
from lightning_llmopt.optim import (
    BaseWidth,
    DecaySplit,
    GroupRules,
    LayerDecay,
    combined,
    coordinate_check,
    rate_scale,
    traits_of,
    widths_of,
)
from lightning_llmopt.planning import (
    Job,
    Layout,
    branch_cost,
    effective_batch_size,
    memory,
    of_size,
    published_rates,
    scale_lr,
)
from lightning_llmopt.preview import LRFinding
from lightning_llmopt.recipes import recipe
from lightning_llmopt.reporting.thinning import thinned
from lightning_llmopt.schedules import constant, cosine, one_cycle, wsd

STEPS = 240


@dataclass(frozen=True)
class Line:
    """One curve: its label, its points, and how it is drawn (``-``, ``o``, ``step`` or ``bar``)."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    style: str = "-"


@dataclass(frozen=True)
class Figure:
    """A picture as numbers."""

    xlabel: str
    ylabel: str
    lines: tuple[Line, ...]
    log: str = ""
    names: tuple[str, ...] = ()  # of bars, in place of x


FIGURES: dict[str, Callable[[], Figure]] = {}


def _figure(*cards: str) -> Callable[[Callable[[], Figure]], Callable[[], Figure]]:
    """Enter a function as the figure of these cards."""

    def enter(draw: Callable[[], Figure]) -> Callable[[], Figure]:
        FIGURES.update(dict.fromkeys(cards, draw))
        return draw

    return enter


def line(label: str, x: Sequence[float], y: Sequence[float], style: str = "-") -> Line:
    """A curve of plain numbers."""
    return Line(label, tuple(map(float, x)), tuple(map(float, y)), style)


def _recipe(name: str) -> Figure:
    schedule = RECIPES[name].resolve(total_steps=1_000)
    steps = range(0, 1_001, 4)
    return Figure("update", "multiplier of the base rate", (line(name, steps, [schedule(s) for s in steps], "step"),))


for _name in RECIPES:
    FIGURES[_name] = lambda name=_name: _recipe(name)


@_figure("LRSchedule")
def _two_groups() -> Figure:
    schedule = wsd(warmup="5%", decay="20%").resolve(total_steps=1_000)
    steps = range(0, 1_001, 4)
    rates = {"weights": 3e-4, "embedding": 6e-4, "head": 1e-4}
    lines = [line(f"{name} at {rate:g}", steps, [rate * schedule(s) for s in steps]) for name, rate in rates.items()]
    return Figure("update", "learning rate", tuple(lines))


@_figure("HyperparameterSchedule")
def _momentum() -> Figure:
    schedule = one_cycle(start=0.0, floor=0.0).resolve(total_steps=1_000)
    steps = range(0, 1_001, 4)
    multipliers = [schedule(s) for s in steps]
    beta1 = line("beta1, between 0.95 and 0.85", steps, [0.95 - 0.1 * m for m in multipliers])
    return Figure("update", "value", (line("multiplier of the rate", steps, multipliers), beta1))


@_figure("branch", "branch_many")
def _branches() -> Figure:
    steps = range(601)
    trunk = constant(warmup=20).resolve(total_steps=600)
    lines = [line("trunk", range(481), [trunk(s) for s in range(481)])]
    for total in (200, 400, 600):
        schedule = wsd(warmup=20, decay="20%").resolve(total_steps=total)
        fall = [s for s in steps if total * 0.8 <= s <= total]
        lines.append(line(f"branch of {total}", fall, [schedule(s) for s in fall]))
    return Figure("update", "multiplier of the base rate", tuple(lines))


@_figure("GradientNormClip")
def _clip_norm() -> Figure:
    norms = torch.linspace(0.0, 4.0, 81, dtype=torch.float64)
    lines = [
        line(f"max_norm={limit:g}", norms, [float(n * clip_coefficient(n, max_norm=limit)) for n in norms])
        for limit in (0.5, 1.0, 2.0)
    ]
    return Figure("norm of the gradient", "norm after clipping", tuple(lines))


@_figure("GradientValueClip")
def _clip_value() -> Figure:
    gradient = torch.linspace(-2.0, 2.0, 81)
    clipped = gradient.clone()
    clip_values_([clipped], limit=0.5)
    return Figure("number of the gradient", "after clipping", (line("limit=0.5", gradient, clipped),))


@_figure("AdaptiveGradientClip")
def _clip_units() -> Figure:
    ratios = torch.logspace(-4, 0, 81)
    lines = []
    for factor in (0.01, 0.1):
        weight = nn.Parameter(torch.ones(81, 4))
        weight.grad = weight.detach() * ratios[:, None]
        clip_units_([weight], clip_factor=factor)
        lines.append(line(f"clip_factor={factor:g}", ratios, weight.grad.norm(dim=1) / weight.detach().norm(dim=1)))
    return Figure("|G| / |W| of a unit", "|G| / |W| after clipping", tuple(lines), log="xy")


def _norms() -> torch.Tensor:
    """Norms of a made-up run: log-normal, falling, with three spikes."""
    noise = torch.randn(STEPS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    norms = 0.5 * torch.exp(0.15 * noise - torch.arange(STEPS, dtype=torch.float64) / 400)
    norms[[120, 160, 200]] *= torch.tensor([8.0, 3.0, 20.0], dtype=torch.float64)
    return norms


@_figure("ZClip")
def _zclip() -> Figure:
    rule = ZClipRule()
    state, clipped = rule.start(), []
    for norm in _norms():
        state, limit = rule(state, norm)
        clipped.append(float(torch.minimum(norm, limit)))
    both = (line("norm", range(STEPS), _norms()), line("after ZClip()", range(STEPS), clipped))
    return Figure("update", "norm of the gradient", both, log="y")


@_figure("AdaGC")
def _adagc() -> Figure:
    rule = AdaGCRule()
    calm = torch.full((STEPS,), 0.2, dtype=torch.float64)
    norms = torch.stack([_norms(), calm], dim=1)
    state, clipped = rule.start(2).double(), []
    for both in norms:
        state, factors = rule(state, both)
        clipped.append((both * factors).tolist())
    lines = [
        line("one tensor", range(STEPS), norms[:, 0]),
        line("after AdaGC()", range(STEPS), [one for one, _ in clipped]),
        line("a calm tensor, before and after", range(STEPS), [other for _, other in clipped]),
    ]
    return Figure("update", "norm of the gradient", tuple(lines), log="y")


class Toy(BoringModel):
    """A regression whose loss is told, with bad batches on request."""

    def __init__(self, bad: dict[int, float] | None = None, rate: float = 0.02) -> None:
        super().__init__()
        self.bad, self.rate, self.losses = bad or {}, rate, []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """The loss; times the bad factor of this batch."""
        loss = (self.layer(batch) - batch[:, :2]).square().mean()
        self.losses.append(float(loss.detach()))
        return loss * self.bad.get(len(self.losses) - 1, 1.0)

    def configure_optimizers(self) -> Any:
        """A bare optimizer."""
        return torch.optim.AdamW(self.parameters(), lr=self.rate, weight_decay=0.1)


class Norms(Callback):
    """Keeps what the monitor logs."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        """The values of the update before this batch."""
        if trainer.global_step:
            self.rows.append({key: float(value) for key, value in trainer.callback_metrics.items()})


def _fit(module: Toy, callbacks: list[Callback], updates: int = 120, logger: CSVLogger | None = None) -> Toy:
    seed_everything(0, verbose=False)
    module.load_state_dict(Toy().state_dict())
    loader = DataLoader(torch.randn(updates * 8, 32), batch_size=8)
    silent = dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    run: dict[str, Any] = {"max_steps": updates, "callbacks": callbacks, "logger": logger or False}
    trainer = Trainer(**run, **silent, accelerator="cpu", log_every_n_steps=1)
    trainer.fit(module, loader)
    return module


@_figure("GradientNormMonitor")
def _monitor() -> Figure:
    rows = Norms()
    _fit(Toy(), [GradientNormMonitor(), GradientNormClip(0.5), rows])
    tags = {"grad_norm/total": "grad_norm/total", "grad_norm/clipped": "grad_norm/clipped (max_norm=0.5)"}
    lines = [line(label, range(len(rows.rows)), [row[tag] for row in rows.rows]) for tag, label in tags.items()]
    return Figure("update", "norm", tuple(lines))


@_figure("SkipBadSteps")
def _skipping() -> Figure:
    bad = {80: 1e4}
    losses = {
        "no bad batch": _fit(Toy(), []).losses,
        "a loss of 10,000 times at update 80": _fit(Toy(bad), []).losses,
        "the same with SkipBadSteps()": _fit(Toy(bad), [SkipBadSteps()]).losses,
    }
    return Figure("update", "loss", tuple(line(name, range(len(row)), row) for name, row in losses.items()), log="y")


@_figure("RunSummary")
def _counted() -> Figure:
    bad = dict.fromkeys((80, 95, 110), 1e5)
    with tempfile.TemporaryDirectory() as folder:
        callbacks = [SkipBadSteps(), GradientNormClip(0.5), RunSummary()]
        _fit(Toy(bad), callbacks, logger=CSVLogger(folder, name="", version=""))
        counts = json.loads((Path(folder) / "run_summary.json").read_text())["counts"]
    names = ("applied", "skipped", "clipped")
    found = (sum(counts["applied"]), sum(counts["skipped"].values()), counts["clipped"])
    bars = line("", range(3), found, "bar")
    return Figure("", "updates of 120, three batches bad", (bars,), names=names)


@_figure("report")
def _thinned() -> Figure:
    noise = torch.randn(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = 4 * torch.exp(-torch.arange(20_000, dtype=torch.float64) / 8_000) + 0.05 * noise
    values[[5_050, 13_050]] += 2
    curve = tuple(enumerate(values.tolist()))
    cases = {"every 100th of 20,000 points": curve[::100], "200 points, as drawn": thinned(curve, most=200)}
    lines = []
    for name, points in cases.items():
        lines.append(line(name, [step for step, _ in points], [value for _, value in points]))
    return Figure("update", "loss, made up, with two spikes", tuple(lines))


@_figure("ClipAdvisor")
def _advice() -> Figure:
    norms, _ = _norms().sort()
    bounds = {share: float(norms.quantile(1 - share / 100)) for share in (1, 5, 10)}
    shares = [100 * (1 - place / STEPS) for place in range(STEPS)]
    marks = [line(f"max_norm={bound:.3g} clips {share} %", [bound], [share], "o") for share, bound in bounds.items()]
    return Figure("bound", "share of updates clipped [%]", (line("norms of a run", norms, shares), *marks), log="x")


def _network() -> nn.Sequential:
    layer = nn.TransformerEncoderLayer(16, nhead=2, dim_feedforward=32, batch_first=True)
    blocks = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
    return nn.Sequential(nn.Embedding(32, 16), blocks, nn.Linear(16, 32))


@_figure("LayerwiseLRDecay")
def _layers() -> Figure:
    network, lines = _network(), []
    names = ("embedding", *(f"block {number}" for number in range(6)), "head")
    for decay in (0.9, 0.75):
        rule = LayerDecay.of(network, decay=decay)
        scales = sorted({round(rule.scale(trait), 9) for trait in traits_of(network)})
        lines.append(line(f"LayerwiseLRDecay({decay})", range(8), scales, "bar"))
    return Figure("", "multiplier of the rate", tuple(lines), names=names)


@_figure("WeightDecaySplit")
def _split() -> Figure:
    traits = traits_of(_network())
    settings = DecaySplit().settings(traits)
    names = ("decayed", "spared")
    spared = [setting.weight_decay == 0 for setting in settings]
    tensors = [spared.count(False), spared.count(True)]
    sizes = [
        sum(trait.parameter.numel() for trait, one in zip(traits, spared, strict=True) if one is kind)
        for kind in (False, True)
    ]
    lines = (line("tensors", range(2), tensors, "bar"), line("numbers in them", range(2), sizes, "bar"))
    return Figure("", "number", lines, log="y", names=names)


@_figure("ParamGroups")
def _rules() -> Figure:
    network = _network()
    traits = traits_of(network)
    rules = GroupRules({nn.Embedding: {"lr_scale": 0.1}, "type:*Norm": {"lr_scale": 2.0}, "*.bias": {"lr_scale": 0.5}})
    settings = combined([rules], traits)
    scales = [setting.lr_scale for setting in settings]
    steps = line("", range(len(scales)), scales, "step")
    return Figure("parameter, in the order of the module", "multiplier of the rate", (steps,))


@_figure("IndependentWeightDecay")
def _independent() -> Figure:
    rates, lines = [10 ** (-5 + place / 3) for place in range(10)], []
    callback = IndependentWeightDecay(reference_lr=3e-4, show=False)
    cases = {"AdamW, weight_decay=0.1": [], "with IndependentWeightDecay(reference_lr=3e-4)": [callback]}
    for name, callbacks in cases.items():
        groups = [_fit(Toy(rate=rate), deepcopy(callbacks), updates=1).optimizers().param_groups[0] for rate in rates]
        lines.append(line(name, rates, [group["lr"] * group["weight_decay"] for group in groups]))
    return Figure("learning rate", "part of the weights taken off in an update", tuple(lines), log="xy")


@_figure("UseOptimizer")
def _others() -> Figure:
    losses = {"the module's own AdamW": _fit(Toy(), []).losses}
    for name, settings in (("SGD", {"lr": 0.02, "momentum": 0.9}), ("Adagrad", {"lr": 0.05})):
        use = UseOptimizer(f"torch.optim.{name}", **settings, show=False)
        losses[f"UseOptimizer: {name}"] = _fit(Toy(), [use]).losses
    return Figure("update", "loss", tuple(line(name, range(len(row)), row) for name, row in losses.items()), log="y")


@_figure("UseRecipe")
def _published_runs() -> Figure:
    steps, lines = range(0, 1_001, 4), []
    for name in ("gpt3-125m", "llama2-7b", "deepseek-v3"):
        run = recipe(name).rescaled(batch=1_000, total=1_000_000, rule="keep")
        schedule, peak = run.schedule().resolve(total_steps=1_000), run["peak_lr"].value
        lines.append(line(name, steps, [peak * schedule(step) for step in steps], "-"))
    return Figure("update of a run of 1,000", "learning rate", tuple(lines))


def _mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4))


@_figure("MuTransfer")
def _mup() -> Figure:
    widths = [64, 128, 256, 512, 1024]
    found = [widths_of(traits_of(_mlp(width)), BaseWidth.of(_mlp(64))) for width in widths]
    lines = [
        line(name, widths, [rate_scale(row[place], "adam") for row in found])
        for name, place in (("hidden matrix", 2), ("input layer, biases, readout", 0))
    ]
    return Figure("width", "multiplier of the rate, base width 64", tuple(lines), log="xy")


@_figure("coordinate_check")
def _coordinates() -> Figure:
    seed_everything(0, verbose=False)
    widths, lines = [64, 128, 256], []
    for name, base in (("standard", None), ("muP, base width 64", 64)):
        check = coordinate_check(
            _mlp,
            widths=widths,
            batch=torch.randn(32, 16),
            loss=lambda module, batch: module(batch).sub(1).square().mean(),
            optimizer=lambda module: torch.optim.AdamW(module.parameters(), lr=0.02),
            base_width=base,
        )
        layer = list(check.sizes)[-1]
        lines.append(line(name, widths, list(check.sizes[layer][1])))
    return Figure("width", "size of the readout after one update", tuple(lines), log="xy")


@_figure("LRFinder")
def _finding() -> Figure:
    rates = [10 ** (-6 + 6 * place / 79) for place in range(80)]
    depth = [math.log10(rate) + 3 for rate in rates]
    losses = [2.0 - 1.2 / (1 + math.exp(-5 * x)) + max(0.0, x - 1.4) ** 2 * 4 for x in depth]
    finding = LRFinding(rates=tuple(rates), losses=tuple(losses))
    marks = [
        line(f"{name}: {found.rate:.2g}", [found.rate], [_at(rates, losses, found.rate)], "o")
        for name, found in finding.suggestions.items()
    ]
    return Figure("learning rate", "loss", (line("a made-up curve, steepest at 1e-3", rates, losses), *marks), log="x")


def _at(rates: list[float], losses: list[float], rate: float) -> float:
    return losses[min(range(len(rates)), key=lambda place: abs(math.log(rates[place] / rate)))]


@_figure("scale_lr")
def _scaling() -> Figure:
    batches = [2**power for power in range(5, 15)]
    lines = [
        line(f'rule="{rule}"', batches, [scale_lr(3e-4, 256, batch, rule) for batch in batches])
        for rule in ("linear", "sqrt")
    ]
    return Figure("batch", "learning rate, 3e-4 at 256", tuple(lines), log="xy")


@_figure("effective_batch_size")
def _batches() -> Figure:
    windows = [1, 2, 4, 8, 16, 32]
    lines = [
        line(f"{count} devices", windows, [effective_batch_size(4, n, count, sequence_length=2048) for n in windows])
        for count in (1, 8, 64)
    ]
    return Figure("accumulate_grad_batches", "tokens in an update (4 x 2,048 a device)", tuple(lines), log="xy")


@_figure("plan")
def _memory() -> Figure:
    names = ("ddp", "zero1", "zero2", "zero3", "fsdp2")
    found = [memory(Job(of_size(7_000_000_000)), Layout(name, data=8)) for name in names]
    parts = (
        line("stays", range(5), [one.persistent / 1e9 for one in found], "bar"),
        line("peak", range(5), [one.peak / 1e9 for one in found], "bar"),
    )
    return Figure("", "GB on each of 8 devices, 7B", parts, names=names)


@_figure("branch_cost")
def _saved() -> Figure:
    counts, lines = range(1, 11), []
    for share in (0.1, 0.2, 0.4):
        costs = [branch_cost(totals=[1_000 * (k + 1) for k in range(n)], decay=share) for n in counts]
        lines.append(line(f"decay={share:g}", counts, [100 * cost.saved for cost in costs]))
    return Figure("number of lengths (1, 2, ... thousand updates)", "updates saved [%]", tuple(lines))


@_figure("published_rates")
def _published() -> Figure:
    rates, lines = published_rates(), []
    for family in rates.families:
        rows = [row for row in rates.of(family) if row.rate]
        if rows:
            lines.append(line(family, [row.parameters for row in rows], [row.rate for row in rows], "o"))
    return Figure("parameters", "peak rate", tuple(lines), log="xy")


@_figure("preview")
def _preview() -> Figure:
    steps = range(0, 1_001, 4)
    curves = {"wsd": wsd(warmup="2%", decay="20%"), "cosine": cosine(warmup="2%", floor=0.1)}
    lines = [line(name, steps, [spec.resolve(total_steps=1_000)(s) for s in steps]) for name, spec in curves.items()]
    return Figure("update", "multiplier of the base rate", tuple(lines))


@_figure("preset")
def _sharing() -> Figure:
    devices = [1, 2, 4, 8, 16, 32, 64]
    job = Job(of_size(7_000_000_000))
    lines = [
        line(name, devices, [memory(job, Layout(name, data=count)).persistent / 1e9 for count in devices])
        for name in ("ddp", "zero1", "zero2", "fsdp2")
    ]
    return Figure("devices", "GB a device that stay, 7B", tuple(lines), log="xy")


@_figure("apply_checkpointing")
def _recomputing() -> Figure:
    text = (Path(__file__).parent / "benchmarks.md").read_text().split("\n## checkpointing\n")[1].split("\n## ")[0]
    times, peaks = ({row[0]: float(row[2].split()[0]) for row in _rows(half)} for half in text.split("### ")[1:])
    points = tuple(line(name, [times[name]], [peaks[name]], "o") for name in times)
    return Figure("time, of a pass without", "peak, of a pass without", points)


def _rows(text: str) -> list[list[str]]:
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines() if row.startswith("|")]
    return rows[2:]
