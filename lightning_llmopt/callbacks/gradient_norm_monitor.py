"""Gradient norms, and what updates do to the weights, in the logger and in the progress bar."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from .._lightning import Callback, LightningModule, Trainer, is_logging_step, not_compiled
from ..gradients import GradientReading
from ..structure import find_blocks
from ..structure.blocks import EMBEDDING, HEAD
from ..structure.tree import without_wrappers
from ._bar import hide, show
from ._charts import charts_of
from ._clipper import bound_of_others, others_clip_otherwise
from ._heat_maps import LAYER, HeatMaps
from ._log import write, write_histogram, write_layout
from ._optimizers import group_names, index_of, optimizer_names
from ._readings import loss_scale_of, reading_for, run_last
from ._sets import Division, Names, divide, signature_of
from ._shards import (
    parameters_of_update,
    refuse_flat_parameters,
    refuse_unknown_shards,
    update_is_due,
    warn_of_unsharded,
    whole_parameters,
)
from ._tags import EACH, Numbers, add_gradients, add_weights, to_host
from ._weights import WeightWatch

Blocks = Sequence[str] | Callable[[str, nn.Module], bool]


@dataclass
class _Seen:
    """What was seen of an update that is to be logged, before the optimizer stepped."""

    reading: GradientReading
    weights: WeightWatch | None
    update: int
    parameters: list[Tensor] | None = None  # to be measured again, where somebody clips after all callbacks
    loss_scale: Tensor | None = None


class GradientNormMonitor(Callback):
    """Log the norm of the gradient, before and after clipping; on request of its parts, of weights and of updates.

    The norm is that of the whole gradient of the optimizer that steps, under every strategy that
    ``GradientNormClip`` names, after fp16 unscaling, after every other callback and before our clipping, read once
    and shared with ``GradientNormClip``; those of layers, groups and parameters are sums over the same reading. Values
    stay on the device until a logging step copies all of them at once. Needs no logger.

    Logged at each logging step, on the x axis of ``self.log``:

    - ``grad_norm/total``: L2 norm of the raw gradient;
    - ``grad_norm/clipped``: L2 norm of what the optimizer got (the same where nothing clips);
    - ``grad_norm/clip_coefficient``: the factor between them, in [0, 1].

    On request:

    - ``per_layer``: ``grad_norm/layer/<block>``, raw, for each block as ``structure.find_blocks`` finds and names
      them (``blocks.3``), ``embedding`` and ``head``;
    - ``per_group``: ``grad_norm/group/<group>``, raw, by the ``name`` of the parameter group, else ``group0``, ...;
    - ``per_parameter``: ``grad_norm/parameter/<name>``, raw;
    - ``parameters``: ``param_norm/total``, L2 norm of the weights before the update;
    - ``updates``: ``update_norm/total``, L2 norm of what the update added to them; ``update_ratio/total``, that over
      the norm of the weights [1], inf if weights that were 0 have moved; ``angular_update/total``, the angle between
      weights before and after [radians], in fp64, 0 if either is 0;
    - ``moments``: ``moment_norm/<key>/total``, L2 norm of each tensor of the parameter's shape that the optimizer
      keeps, after the update (``exp_avg``, ``exp_avg_sq``, ``momentum_buffer``, ...);
    - ``per_layer`` with these: ``param_norm/layer/<block>``, ``update_norm/layer/<block>``, ``update_ratio/<block>``,
      ``angular_update/<block>``, ``moment_norm/<key>/<block>``;
    - ``histogram``: ``grad_norm/histogram``, of the log10 of the norm of each parameter that has one above 0, for
      loggers with TensorBoard's ``add_histogram``;
    - ``heatmap``: ``grad_norm/heatmap``, a picture of the log10 of the norm of each block (top: embedding, bottom:
      head) over the run (left to right), for loggers with TensorBoard's ``add_image``. It has up to 256 columns, of 1,
      then 2, 4, ... logging steps each, and is written with every 32nd column and at the end of training. Its colours
      have a scale in powers of ten; red is NaN or infinite, grey 0. Its numbers are saved with checkpoints.

    Frozen parameters are in none of these, tied ones once; one without a gradient has norm 0. With several
    optimizers each tag ends in the optimizer's name, as in ``grad_norm/total/Adam-1``. The progress bar shows the last
    logged total as ``grad_norm``. TensorBoard's custom-scalars page gets charts of norms, coefficient, layers and
    rates.

    Args:
        every_n_steps: Updates from one logging step to the next, >= 1; by default the Trainer's
            ``log_every_n_steps``.
        per_layer: Norms of blocks.
        per_group: Norms of parameter groups.
        per_parameter: Norms of parameters: hundreds of scalars.
        updates: How far and by what angle updates move the weights. For each update that is logged this rank keeps a
            copy of what it holds of the weights, until the batch is over.
        parameters: Norms of the weights.
        moments: Norms of the optimizer's state.
        blocks: Which modules are blocks, as ``find_blocks`` takes it, if they are not to be found.
        histogram: One histogram of the norms of parameters.
        heatmap: One picture of the norms of blocks over time, without their scalars if those are not asked for.

    Raises:
        ValueError: If ``every_n_steps`` is not a whole number >= 1, or ``blocks`` are given without ``per_layer``
            or ``heatmap``; at fit start, if these find no blocks.
        MisconfigurationException: At fit start, if DeepSpeed offloads the optimizer; if layers or parameters are asked
            for under ``FSDPStrategy(use_orig_params=False)``.

    Source:
        Angles and ratios: Kosson et al. 2023, https://arxiv.org/abs/2305.17212.

    Example:
        >>> GradientNormMonitor(every_n_steps=10, per_layer=True).every_n_steps
        10
    """

    def __init__(
        self,
        every_n_steps: int | None = None,
        *,
        per_layer: bool = False,
        per_group: bool = False,
        per_parameter: bool = False,
        updates: bool = False,
        parameters: bool = False,
        moments: bool = False,
        blocks: Blocks | None = None,
        histogram: bool = False,
        heatmap: bool = False,
    ) -> None:
        if every_n_steps is not None and (
            isinstance(every_n_steps, bool) or not isinstance(every_n_steps, int) or every_n_steps < 1
        ):
            raise ValueError(f"every_n_steps must be a whole number of updates >= 1, got {every_n_steps!r}.")
        if blocks is not None and not (per_layer or heatmap):
            raise ValueError(
                f"blocks says what the layers are and needs per_layer=True or heatmap=True, got only blocks={blocks!r}."
            )
        self.every_n_steps, self.blocks = every_n_steps, blocks
        self.per_layer, self.per_group, self.per_parameter = per_layer, per_group, per_parameter
        self.updates, self.parameters, self.moments, self.histogram = updates, parameters, moments, histogram
        self.heatmap, self._maps = heatmap, HeatMaps()
        self._saved: dict[str, Any] | None = None
        self._left_at = 0
        self._readings: dict[int, _Seen] = {}
        self._divisions: dict[int, Division] = {}
        self._kept: dict[int, list[str]] = {}
        self._called, self._names = Names({}), list[str]()
        self._due: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._bar_may_measure, self._measures_again, self._bound = True, False, math.inf

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Move behind those who change gradients."""
        if stage == "fit":
            self._saved = None
            run_last(trainer, self)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at what the strategy has made of the model; add the field to the progress bar, and charts."""
        self._refuse(trainer)
        warn_of_unsharded(trainer, "GradientNormMonitor")
        self._forget(trainer)
        self._called = _names_of(pl_module, self.blocks, per_layer=self.per_layer or self.heatmap)
        self._names = optimizer_names(trainer)
        self._bound, self._measures_again = bound_of_others(trainer), others_clip_otherwise(trainer)
        watches = self._watches_weights or self._measures_again
        self._bar_may_measure = trainer.world_size == 1 or not watches
        show(trainer, "grad_norm", self._shown, short=("norm", self._shown))
        write_layout(trainer, "training", charts_of(trainer, per_layer=self.per_layer))

    @override
    @not_compiled
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Take a reading if this update is to be logged."""
        if not (update_is_due(trainer) and is_logging_step(trainer, self.every_n_steps)):
            return
        index, reading = index_of(trainer, optimizer), reading_for(trainer, optimizer, self)
        before = self._readings.get(index)
        if before is not None and before.update == trainer.global_step:  # a closure that runs again
            before.reading = reading
            return
        self._divide(index, trainer, pl_module, optimizer)
        weights = self._watch(trainer, optimizer) if self._watches_weights else None
        seen = self._readings[index] = _Seen(reading, weights, trainer.global_step)
        if self._measures_again:
            seen.parameters = parameters_of_update(trainer, optimizer)
            seen.loss_scale = loss_scale_of(trainer, optimizer)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log what this update's readings say."""
        self._copy_to_host()
        if self._due:
            self._log(trainer, self._due)
        self._due = {}

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the last heat map; remember where it belongs."""
        self._left_at = trainer.global_step
        self._maps.write(trainer)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the progress bar as it was."""
        self._readings.clear()
        hide(trainer, "grad_norm")

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the progress bar as it was."""
        self._left_at = trainer.global_step
        self._readings.clear()
        hide(trainer, "grad_norm")

    @override
    def state_dict(self) -> dict[str, Any]:
        """What the heat maps show, in plain types and tensors; nothing without one."""
        return {"heatmap": self._maps.state_dict()} if self.heatmap else {}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what was saved until training starts."""
        self._saved = state_dict

    @property
    def _watches_weights(self) -> bool:
        return self.updates or self.parameters or self.moments

    def _refuse(self, trainer: Trainer) -> None:
        """Refuse what a strategy hides."""
        refuse_unknown_shards(trainer, "GradientNormMonitor")
        for name in ("per_layer", "per_parameter", "histogram", "heatmap"):
            if getattr(self, name):
                refuse_flat_parameters(trainer, f"GradientNormMonitor({name}=True)")

    def _forget(self, trainer: Trainer) -> None:
        """Nothing of one fit is for the next, but for maps that go on from the checkpoint or from the last fit."""
        before = self._saved
        if before is None and trainer.global_step and trainer.global_step == self._left_at:
            before = self.state_dict()
        self._maps.begin((before or {}).get("heatmap", {}))
        self._readings.clear()
        self._divisions.clear()
        self._kept.clear()
        self._due, self._last = {}, {}

    def _divide(self, index: int, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Find out once which parameter belongs where, and again when others have come or are trained."""
        parts = (self.per_layer, self.per_group, self.per_parameter, self.histogram, self.heatmap)
        if not (any(parts) or self._watches_weights):
            return
        groups = whole_parameters(trainer, optimizer)
        now, known = signature_of(groups), self._divisions.get(index)
        if known is None or known.parameters != now:
            if any(one not in self._called.parameters for one, _ in now):  # a module that came after the start
                self._called = _names_of(pl_module, self.blocks, per_layer=self.per_layer or self.heatmap)
            self._divisions[index] = divide(groups, group_names(optimizer), self._called)

    def _watch(self, trainer: Trainer, optimizer: Optimizer) -> WeightWatch:
        parameters = dict.fromkeys(one for group in whole_parameters(trainer, optimizer) for one in group)
        return WeightWatch(trainer, optimizer, parameters, updates=self.updates)

    def _copy_to_host(self) -> None:
        """Turn the readings of this update into numbers, all at once; a bar that is drawn first has done so."""
        seen = {index: one for index, one in sorted(self._readings.items()) if any(one.reading.present)}
        self._readings.clear()
        if seen:
            self._last = self._due = to_host(
                {index: self._numbers(index, one) for index, one in seen.items()}, self._names
            )

    def _numbers(self, index: int, seen: _Seen) -> Numbers:
        """Everything that is logged of one optimizer, on the device."""
        numbers, division = Numbers(), self._divisions.get(index)
        if seen.parameters is not None and not seen.reading.skipped:
            seen.reading.measured_again(seen.parameters, loss_scale=seen.loss_scale)
        if division is None:
            add_gradients(numbers, seen.reading, {}, bound=self._bound)
            return numbers
        wanted = {
            "layer": division.layers,
            "group": division.groups if self.per_group else None,
            "parameter": division.each if self.per_parameter or self.histogram else None,
        }
        asked = {kind: sets for kind, sets in wanted.items() if sets is not None}
        add_gradients(numbers, seen.reading, asked, bound=self._bound)
        if seen.weights is not None:
            moments = self._moments_of(index, seen.weights)
            add_weights(
                numbers, seen.weights.after(moments), division if self.per_layer else replace(division, layers=None),
                parameters=self.parameters, updates=self.updates, moments=moments,
            )  # fmt: skip
        return numbers

    def _moments_of(self, index: int, weights: WeightWatch) -> list[str]:
        """What the optimizer keeps; asked until there is an answer, which is the same on every rank."""
        if self.moments and not self._kept.get(index):
            self._kept[index] = weights.moment_names()
        return self._kept.get(index, [])

    def _log(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Hand everything to the loggers."""
        each = {tag: norm for tag, norm in metrics.items() if tag.startswith(f"{EACH}/")}
        hidden = () if self.per_parameter else tuple(each)
        if self.heatmap:
            several = len(self._names) > 1
            self._maps.follow(trainer, metrics, [f"/{name}" if several else "" for name in self._names])
            hidden = hidden if self.per_layer else (*hidden, *(tag for tag in metrics if tag.startswith(LAYER)))
        unwanted = set(hidden)
        write(trainer, {tag: number for tag, number in metrics.items() if tag not in unwanted} if hidden else metrics)
        sizes = [math.log10(norm) for norm in each.values() if 0 < norm < math.inf]
        if self.histogram and sizes:
            write_histogram(trainer, "grad_norm/histogram", sizes)

    def _shown(self) -> str | None:
        """The norm in the progress bar: the last one that was, or is about to be, logged."""
        if self._bar_may_measure:
            self._copy_to_host()
        return f"{next(iter(self._last.values())):.3g}" if self._last else None


def _names_of(model: LightningModule, blocks: Blocks | None, *, per_layer: bool) -> Names:
    """What the parameters and blocks of ``model`` are called."""
    parameters = {id(parameter): without_wrappers(name) for name, parameter in model.named_parameters()}
    if not per_layer:
        return Names(parameters)
    structure = find_blocks(model, blocks=blocks)
    return Names(parameters, structure.block_of, (EMBEDDING, *(block.name for block in structure.blocks), HEAD))
