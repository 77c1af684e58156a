"""What somebody trained with, as a value: to read, to print, to rescale, and to attach to a module of one's own."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..schedules import PhaseSpec, ScheduleSpec, by_name, parse_duration
from ._tables import table_of
from .receipts import Change, Receipt
from .rescaling import rescaled

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from .._lightning import Callback

PHASES = "phases"


@dataclass(frozen=True)
class Recipe:
    """The settings of a published run, each with its source; ``print`` shows them as a table.

    Attributes:
        name: Such as ``"llama2-70b"``.
        title: What was trained.
        receipts: The values, in the order of the table.
        family: Its name in ``planning.published_rates``; "" if it is not in there.
        size_rule: How the rate goes with the size: ``"family"`` (between the published sizes), ``"compute"`` (DeepSeek
            LLM's fits), ``"mup"`` (not at all) or "" (nobody knows).
        not_done: What the callbacks leave to you.
        changes: What ``rescaled`` has changed.
    """

    name: str
    title: str
    receipts: tuple[Receipt, ...]
    family: str = ""
    size_rule: str = ""
    not_done: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()

    def __getitem__(self, name: str) -> Receipt:
        """The value of that name, with its source.

        Raises:
            KeyError: If the recipe states none; the message has those that it states.
        """
        for receipt in self.receipts:
            if receipt.name == name:
                return receipt
        raise KeyError(f"{self.name} states no {name!r}. It states {[receipt.name for receipt in self.receipts]}.")

    def __contains__(self, name: object) -> bool:
        return any(receipt.name == name for receipt in self.receipts)

    def __iter__(self) -> Iterator[Receipt]:
        return iter(self.receipts)

    def value(self, name: str, default: Any = None) -> Any:
        """The bare value of that name, or ``default`` if the recipe states none."""
        return self[name].value if name in self else default

    @property
    def unverified(self) -> tuple[Receipt, ...]:
        """What was not found where it should stand."""
        return tuple(receipt for receipt in self.receipts if receipt.checked == "unverified")

    def schedule(self) -> ScheduleSpec:
        """The schedule as a description: lengths in updates or tokens as published, or parts of the run.

        Example:
            >>> from lightning_llmopt.recipes import recipe
            >>> recipe("llama2-7b").schedule()
            cosine(warmup='2000 steps', floor=0.1)
        """
        kind = self["schedule"].value
        settings = [(one.name.partition(".")[2], one.value) for one in self if one.name.startswith("schedule.")]
        if kind != PHASES:
            return by_name(kind, **{name: dict(v) if name == "milestones" else v for name, v in settings})
        phases: list[PhaseSpec] = []
        level = 0.0
        for name, pairs in settings:
            phase = dict(pairs)
            written = phase.get("until", phase.get("length"))
            length = None if written is None else parse_duration(name, written)
            start, end = float(phase.get("from", level)), float(phase["to"])
            phases.append(PhaseSpec(name, length, start, end, phase.get("shape", "linear"), until="until" in phase))
            level = end
        return ScheduleSpec(self.name, tuple(phases))

    def optimizer_settings(self, prefix: str = "optimizer") -> dict[str, Any]:
        """What the optimizer is called with: rate, betas, eps, weight decay, and its own settings.

        Args:
            prefix: ``"optimizer"``, or ``"others"`` for the one that trains what the first is not for.

        Example:
            >>> from lightning_llmopt.recipes import recipe
            >>> recipe("llama2-70b").optimizer_settings()
            {'lr': 0.00015, 'betas': (0.9, 0.95), 'eps': 1e-05, 'weight_decay': 0.1}
        """
        names = {"lr": "peak_lr", "betas": "betas", "eps": "eps", "weight_decay": "weight_decay"}
        if prefix != "optimizer":
            names = {"lr": "peak_lr"}
        found = {key: self.value(name) for key, name in names.items() if name in self}
        own = {one.name.partition(".")[2]: one.value for one in self if one.name.startswith(f"{prefix}.")}
        return {**found, **own}

    def optimizer(self, module: "nn.Module") -> "Optimizer":
        """The recipe's optimizer over a module's trainable parameters, norms and biases without weight decay.

        For ``configure_optimizers``; ``UseOptimizer`` and ``UseRecipe`` do it for modules that are not yours to edit.

        Args:
            module: Whatever has parameters.

        Raises:
            ValueError: If the module has no trainable parameter, or a package that has the optimizer is missing.

        Example:
            >>> import torch
            >>> from lightning_llmopt.recipes import recipe
            >>> optimizer = recipe("llama2-7b").optimizer(torch.nn.Linear(4, 4))
            >>> [(group["name"], group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
            [('decay', 0.0003, 0.1), ('no_decay', 0.0003, 0.0)]
        """
        from ._attached import optimizer_of

        return optimizer_of(self, module)

    def callbacks(
        self,
        *,
        schedule: bool = True,
        optimizer: bool = False,
        groups: bool = True,
        clipping: bool = True,
        monitor: bool = True,
        total: int | str | None = None,
        tokens: "Callable[[Any], int] | None" = None,
        replace_schedulers: bool = False,
        on_change: str = "error",
        show: bool = True,
    ) -> "list[Callback]":
        """The recipe as callbacks for a Trainer.

        A batch ramp is data: nothing here plays it. The run ends where the Trainer ends it; if lengths as published do
        not fit into it, say ``rescaled(total=...)`` first.

        Args:
            schedule: Whether to bring ``LRSchedule``.
            optimizer: Whether to bring ``UseOptimizer`` with the recipe's optimizer; without it rates are those that
                the module configures.
            groups: Whether to bring ``WeightDecaySplit``.
            clipping: Whether to bring ``GradientNormClip``.
            monitor: Whether to bring ``GradientNormMonitor``.
            total: Length of the run, if not the Trainer's own; as in ``LRSchedule``.
            tokens: Counts the tokens in a batch, where phases are tokens; as in ``LRSchedule``.
            replace_schedulers: Whether to drop schedulers that the module returns; as in ``LRSchedule``.
            on_change: What to do if a checkpoint says otherwise: ``"error"`` or ``"adopt"``.
            show: Whether to print the parameter groups.

        Raises:
            ValueError: If an argument is nothing of the kind, or a package that has the optimizer is missing.

        Example:
            >>> from lightning_llmopt.recipes import recipe
            >>> [type(callback).__name__ for callback in recipe("llama2-7b").callbacks()]
            ['WeightDecaySplit', 'LRSchedule', 'GradientNormClip', 'GradientNormMonitor']
        """
        from ._attached import Parts, callbacks_of

        parts = Parts(schedule, optimizer, groups, clipping, monitor)
        return callbacks_of(
            self,
            parts,
            total=total,
            tokens=tokens,
            replace_schedulers=replace_schedulers,
            on_change=on_change,
            show=show,
        )

    def rescaled(
        self,
        *,
        batch: int | str | None = None,
        total: int | str | None = None,
        size: int | str | None = None,
        rule: str = "sqrt",
        extrapolate: bool = False,
    ) -> "Recipe":
        """The recipe for another batch, length or size; the table then says what was changed, how and why.

        - ``size``: the rate lies between those that the recipe's family published (``planning.rate_for_size``), with
          the batch of the nearest size; DeepSeek LLM's comes from its fits over compute; under muP it stays.
        - ``total``: lengths in updates or tokens become the parts of the run that they were. Rates stay, but where a
          fit over compute says otherwise.
        - ``batch``: the rate goes with its square root (or in proportion, or stays); lengths as with ``total``.

        Args:
            batch: Tokens of an update: ``524_288``, ``"500k"``.
            total: Tokens of the run: ``10**10``, ``"10B"``, ``"10B tokens"``; or ``"chinchilla"``, 20 for each
                parameter.
            size: Parameters: ``1_300_000_000``, ``"1.3B"``.
            rule: How the rate goes with the batch: ``"sqrt"``, ``"linear"``, or ``"keep"`` to leave it.
            extrapolate: Whether to go beyond the family's sizes, and far beyond the fits over compute.

        Raises:
            ValueError: If nothing is asked for, a number makes no sense, or the recipe states nothing to scale from.

        Source:
            Batch: Malladi et al. 2022, https://arxiv.org/abs/2205.10287 (``"sqrt"``), Goyal et al. 2017,
            https://arxiv.org/abs/1706.02677 (``"linear"``). 20 tokens a parameter: Hoffmann et al. 2022,
            https://arxiv.org/abs/2203.15556, as its 70B and 1.4T come to. Fits over compute: Bi et al. 2024,
            https://arxiv.org/abs/2401.02954. That lengths keep their part of the run is ours.

        Example:
            >>> from lightning_llmopt.recipes import recipe
            >>> smaller = recipe("llama2-7b").rescaled(batch="1M", total="20B")
            >>> smaller["peak_lr"].value, smaller.schedule()
            (0.00015, cosine(warmup='0.4%', floor=0.1))
        """
        return rescaled(self, batch=batch, total=total, size=size, rule=rule, extrapolate=extrapolate)

    def __str__(self) -> str:
        return table_of(self)
