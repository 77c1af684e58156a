"""Clipping by the norm of the whole gradient."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from .._lightning import LightningModule, MisconfigurationException, Trainer
from ..gradients import GradientReading, check_max_norm, clip_coefficient
from ._clipper import Clipper
from ._folding import fold, refuse_folding
from ._optimizers import group_names
from ._readings import reading_for
from ._sets import Sets
from ._shards import whole_parameters

_REST = "the groups that are not named"


class GradientNormClip(Clipper):
    """Shrink the gradient of every update whose norm is above ``max_norm``.

    The norm is that of the whole gradient of the optimizer that steps, whatever the strategy: one device, DDP, FSDP,
    ``ModelParallelStrategy`` (FSDP2, tensor parallel, hybrid) and DeepSpeed ZeRO-1, 2 and 3. It is read once and shared
    with ``GradientNormMonitor``. Clipping comes after fp16 unscaling and after every callback has seen the
    raw gradient, wherever it stands in the list; it works in manual optimization too. A gradient whose
    norm is NaN is left alone: scaling it would spread it to every parameter.

    Args:
        max_norm: Largest norm left alone [unit of the unscaled gradient], > 0.
        per_group: ``True`` clips every parameter group by its own norm. A dict does so for the groups that it names
            (by ``name`` entry or position), each with a largest norm of its own; the others share ``max_norm``.
        folded: Whether to let a fused optimizer (torch's AdamW, Adam, SGD or Adagrad with ``fused=True``) multiply by
            the factor while it reads the gradients anyway, instead of writing them once more. Not with fp16
            scaling, DTensors or DeepSpeed; hooks that run after the clipping still see the raw gradient.

    Raises:
        ValueError: If a norm is not a finite number > 0, ``per_group`` or ``folded`` is nothing of the kind, or both
            are given.
        MisconfigurationException: At fit start, if ``folded`` is not possible, if another clipper,
            ``Trainer(gradient_clip_val=...)`` or DeepSpeed's ``gradient_clipping`` is set as well, if DeepSpeed
            offloads the optimizer, or if ``per_group`` names a group that is not there.

    Source:
        Pascanu et al. 2013, https://arxiv.org/abs/1211.5063.

    Example:
        >>> GradientNormClip(max_norm=1.0, per_group={"embeddings": 0.1}).max_norm
        1.0
    """

    def __init__(
        self, max_norm: float, *, per_group: bool | Mapping[int | str, float] = False, folded: bool = False
    ) -> None:
        self.max_norm = check_max_norm(max_norm)
        self.per_group = _checked(per_group)
        if not isinstance(folded, bool) or (folded and self.per_group is not False):
            raise ValueError(f"folded must be True or False, and False with per_group, got {folded!r}.")
        self.folded = folded
        self._sets: dict[int, tuple[tuple[int, ...], Sets]] = {}

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at what the strategy has made of the model, and for the groups that are named."""
        super().on_train_start(trainer, pl_module)
        if self.folded:
            refuse_folding(trainer)
        if isinstance(self.per_group, dict):
            there = [group_names(optimizer) for optimizer in trainer.optimizers]
            known = {key for names in there for at, name in enumerate(names) for key in (at, name)}
            if missing := [name for name in self.per_group if name not in known]:
                raise MisconfigurationException(
                    f"GradientNormClip(per_group=...): there is no group {missing[0]!r}. The groups are {there}."
                )

    @override
    def clip(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer, parameters: list[Tensor]
    ) -> None:
        """Scale the gradients in place."""
        reading = reading_for(trainer, optimizer, self)
        if self.folded:
            fold(optimizer, reading.note_clip(max_norm=self.max_norm))
        elif self.per_group is False:
            reading.clip_(parameters, max_norm=self.max_norm)
        else:
            reading.clip_each_(parameters, factors=self._factors(trainer, optimizer, reading))

    def _factors(self, trainer: Trainer, optimizer: Optimizer, reading: GradientReading) -> Tensor:
        """A factor for every parameter: that of its group, or of all the groups that are not named."""
        sets = self._sets_of(trainer, optimizer)
        limits = self.per_group if isinstance(self.per_group, dict) else {}
        totals = sets.norms(reading.norms).unbind()
        return sets.spread(
            torch.stack([
                clip_coefficient(total, max_norm=limits.get(name, self.max_norm))
                for name, total in zip(sets.names, totals, strict=True)
            ])
        )  # fmt: skip

    def _sets_of(self, trainer: Trainer, optimizer: Optimizer) -> Sets:
        """Which parameters share a norm; looked up again only if there are others."""
        groups = whole_parameters(trainer, optimizer)
        key = tuple(id(parameter) for group in groups for parameter in group)
        known = self._sets.get(id(optimizer))
        if known is None or known[0] != key:
            shared = dict.fromkeys(parameter for group in groups for parameter in group)
            names: dict[Tensor, Any] = {}
            for at, (name, group) in enumerate(zip(group_names(optimizer), groups, strict=False)):
                for parameter in group:
                    names.setdefault(parameter, self._name(at, name))
            known = self._sets[id(optimizer)] = key, Sets([names[parameter] for parameter in shared])
        return known[1]

    def _name(self, at: int, name: str) -> Any:
        """What a group's norm goes by: a key of ``per_group``, or one for all that are not named there."""
        if not isinstance(self.per_group, dict):
            return name
        return name if name in self.per_group else at if at in self.per_group else _REST

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of what was looked up."""
        self._sets.clear()


def _checked(per_group: Any) -> bool | dict[int | str, float]:
    if isinstance(per_group, bool):
        return per_group
    keys = isinstance(per_group, Mapping) and all(
        isinstance(name, str | int) and not isinstance(name, bool) for name in per_group
    )
    if not keys or not per_group:
        raise ValueError(f"per_group must be True, False or a dict from groups to norms, got {per_group!r}.")
    limits: dict[int | str, float] = {}
    for name, max_norm in per_group.items():
        try:
            limits[name] = check_max_norm(max_norm)
        except ValueError as error:
            raise ValueError(f"per_group[{name!r}]: {error}") from None
    return limits
