"""The YAML file that ``llmopt init`` writes, from a user's choices."""

import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from ..recipes import Recipe, recipe
from ..schedules import RECIPES, ScheduleSpec, parse_duration
from ._signatures import documented, schedule_from
from ._toy import BATCH, LENGTH

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "bf16_pure": "bf16-true", "fp16": "16-mixed"}
STRATEGIES = ("auto", "ddp", "fsdp", "fsdp2", "hybrid", "zero1", "zero2", "zero3")
"""Those that need nothing but a name; tensor parallelism needs a plan of the model's layers."""

_EXAMPLES: dict[str, Any] = {
    "first_warmup": 100,
    "first_cycle": "49%",
    "points": {0: 1.0, "50%": 0.2, "100%": 0.1},
    "parts": [[{"class_path": "lightning_llmopt.schedules.linear", "init_args": {"floor": 0.5}}, "50%"], [
        {"class_path": "lightning_llmopt.schedules.constant"}, None]],
}  # fmt: skip
_CALLBACKS = "lightning_llmopt.callbacks"


@dataclass(frozen=True)
class Choices:
    """What a user wants to begin with.

    Attributes:
        schedule: Name of a schedule.
        total: Length of the run [updates].
        lr: Base rate.
        clip: Largest gradient norm; ``None`` clips nothing.
        precision: A key of ``PRECISIONS``.
        strategy: One of ``STRATEGIES``.
        warmup: Length of the rise; ``None`` leaves that of the schedule.
        layer_decay: Rate of a layer over that of the one above it; ``None`` for one rate.
        split_decay: Whether norms and biases go without weight decay.
        recipe: Name of a published run, which brings all of the above but ``total``, ``precision``, ``strategy`` and
            ``layer_decay``; ``None`` for none.
    """

    schedule: str = "wsd"
    total: int = 200
    lr: float = 1e-3
    clip: float | None = 1.0
    precision: str = "bf16"
    strategy: str = "auto"
    warmup: str | None = "2%"
    layer_decay: float | None = None
    split_decay: bool = True
    recipe: str | None = None

    def __post_init__(self) -> None:
        if self.recipe is not None:
            recipe(self.recipe)  # which refuses an unknown one
        for name, known in (("schedule", RECIPES), ("precision", PRECISIONS), ("strategy", STRATEGIES)):
            value = getattr(self, name)
            if value not in known:
                near = get_close_matches(str(value), known, n=1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise ValueError(f"--{name} must be one of {', '.join(known)}, got {value!r}.{hint}")
        if self.warmup is not None:
            parse_duration("--warmup", self.warmup)
        made = schedule_from(RECIPES[self.schedule], self.schedule_settings())
        if isinstance(made, ScheduleSpec):
            made.resolve(total_steps=self.total)  # which refuses what does not fit

    def schedule_settings(self) -> dict[str, Any]:
        """Settings of the schedule: what has no default gets an example."""
        known = inspect.signature(RECIPES[self.schedule]).parameters
        found = {name: _EXAMPLES[name] if rule.default is rule.empty else rule.default for name, rule in known.items()}
        if self.warmup is not None and "warmup" in found:
            found["warmup"] = self.warmup
        return found


def yaml_of(choices: Choices, *, config: str, script: str) -> str:
    """The YAML file, with what each setting means.

    Args:
        choices: What the user wants.
        config: Name of the file.
        script: Name of the script that is run with it.
    """
    strategy = "auto" if choices.strategy == "auto" else f"llmopt_{choices.strategy}"
    lines = [
        "# Written by `llmopt init`; yours to change.",
        f"#   python {script} fit --config {config}",
        f"#   llmopt preview --config {config}" + ("" if choices.recipe else f" --lr {choices.lr:g}"),
        f"#   llmopt find-lr {script}:Model --data {script}:Data --config {config}",
        "seed_everything: 0",
        "trainer:",
        "  # Length of the run [updates]; the schedule below is fitted to it.",
        f"  max_steps: {choices.total}",
        "  accelerator: auto",
        "  devices: auto",
        "  # On what to run: auto, or llmopt_ and one of ddp, fsdp, fsdp2, hybrid, zero1, zero2, zero3.",
        f"  strategy: {strategy}",
        "  # 32-true, bf16-mixed (the default of large models), bf16-true, or 16-mixed with loss scaling.",
        f"  precision: {PRECISIONS[choices.precision]}",
        "  log_every_n_steps: 10",
        "  callbacks:",
        *(_by_hand(choices) if choices.recipe is None else _published(recipe(choices.recipe), choices)),
        *_layers(choices),
        "    # Says before and after the run what it is and what came of it; `llmopt report` shows it too.",
        f"    - class_path: {_CALLBACKS}.RunSummary",
        *_model(choices),
        "data:",
        f"  batch_size: {BATCH}",
    ]
    return "\n".join(lines) + "\n"


def _schedule(choices: Choices) -> Iterator[str]:
    function = RECIPES[choices.schedule]
    yield from _comment((function.__doc__ or "").strip().splitlines()[0], 4)
    yield from _callback("LRSchedule")
    yield "        schedule:"
    yield f"          class_path: lightning_llmopt.schedules.{choices.schedule}"
    yield "          init_args:"
    what = documented(function, by="llmopt init")
    for name, value in choices.schedule_settings().items():
        yield from _comment(what.get(name, ""), 12)
        yield f"            {name}: {_flow(value)}"


def _by_hand(choices: Choices) -> Iterator[str]:
    """What a recipe brings otherwise."""
    yield from _schedule(choices)
    if choices.split_decay:
        yield "    # No weight decay for norms and biases."
        yield f"    - class_path: {_CALLBACKS}.WeightDecaySplit"
    yield "    # Logs the gradient norm, and how much of it is clipped."
    yield f"    - class_path: {_CALLBACKS}.GradientNormMonitor"
    if choices.clip is not None:
        yield "    # Scales gradients down whose norm, over the whole model, is larger."
        yield from _callback("GradientNormClip")
        yield f"        max_norm: {_flow(choices.clip)}"


def _published(found: Recipe, choices: Choices) -> Iterator[str]:
    """The recipe as one callback; of one whose batch is known, rate and lengths are fitted to the run."""
    yield f"    # Optimizer, schedule, groups, clipping and monitor of {found.title}; `llmopt recipes {found.name}`."
    yield "    - class_path: lightning_llmopt.recipes.UseRecipe"
    yield "      init_args:"
    yield f"        name: {_flow(found.name)}"
    if "batch" in found:
        batch = BATCH * LENGTH
        yield "        # Tokens of an update and of the run: rate and lengths are changed to fit them, as is said by"
        yield f"        # llmopt recipes {found.name} --batch {batch} --total {batch * choices.total} --extrapolate"
        yield f"        batch: {batch}"
        yield f"        total: {batch * choices.total}"
        yield "        # This toy is far from anything published, so its rate is a guess; not for your own."
        yield "        extrapolate: true"


def _layers(choices: Choices) -> Iterator[str]:
    if choices.layer_decay is not None:
        yield "    # Every layer trains at this ratio of the rate of the layer above it."
        yield from _callback("LayerwiseLRDecay")
        yield f"        decay: {_flow(choices.layer_decay)}"


def _model(choices: Choices) -> Iterator[str]:
    if choices.recipe is None:
        yield "model:"
        yield "  # Base rate of the optimizer: what the schedule's multiplier 1 stands for."
        yield f"  lr: {_flow(choices.lr)}"


def _callback(name: str) -> Iterator[str]:
    yield f"    - class_path: {_CALLBACKS}.{name}"
    yield "      init_args:"


def _comment(text: str, indent: int) -> list[str]:
    start = " " * indent + "# "
    return textwrap.wrap(text.replace("``", ""), 100, initial_indent=start, subsequent_indent=start)


def _flow(value: Any) -> str:
    """A value on one line of YAML.

    Example:
        >>> [_flow(value) for value in (None, True, 3e-5, "2%", {0: 1.0, "50%": "x: y"}, [1, None])]
        ['null', 'true', '3.0e-05', '2%', '{0: 1.0, 50%: "x: y"}', '[1, null]']
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str):
        plain = all(letter.isalnum() or letter in "_.%" for letter in value) and value[:1] not in ("%", "")
        return value if plain else json.dumps(value)
    if isinstance(value, float) and "e" in repr(value) and "." not in repr(value):
        return repr(value).replace("e", ".0e")  # without a point it is text to YAML 1.1
    return json.dumps(value)
