"""The one moment at which parameter groups are made, for all callbacks that have a say in them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from .._lightning import LightningModule, MisconfigurationException, Trainer
from ..optim import Group, Rule, Setting, SplitOptimizer, Trait, combined, contents, follow_, regroup_, traits_of
from ..optim.content import changes, reordered, same_layout
from ..optim.regroup import RATES_OF_GROUPS, Came, rate_unlowered
from ._configured import changed, optimizers_in
from ._replaced import bind, replaces_schedulers
from ._shards import has_engine, refuse_flat_parameters

_FOUND: WeakKeyDictionary[Optimizer, list[dict[str, Any]]] = WeakKeyDictionary()  # groups as modules made them


@dataclass
class Regrouping:
    """What rules have made of one module's optimizers.

    Args:
        rules: What they say, the strongest first.
        who: The callbacks, as messages name them.

    Attributes:
        settings: By parameter.
        traits: By parameter.
        groups: What each optimizer's groups hold.
        known: Groups that the rules have been applied to, one list an optimizer.
        before: What each optimizer's groups held when the module returned it.
        rates: Rates that each optimizer's groups were made with.
    """

    rules: Sequence[Rule]
    who: str
    settings: dict[Tensor, Setting] = field(default_factory=dict)
    traits: dict[Tensor, Trait] = field(default_factory=dict)
    groups: list[list[Group]] = field(default_factory=list)
    known: list[list[dict[str, Any]]] = field(default_factory=list)
    before: list[list[Group]] = field(default_factory=list)
    rates: list[list[float]] = field(default_factory=list)

    def learn(self, model: nn.Module) -> None:
        """Ask the rules about every parameter; freeze what they freeze.

        Raises:
            MisconfigurationException: If a rule finds that the model is not what it was written for.
        """
        self._ask(model)
        for parameter, setting in self.settings.items():
            if setting.frozen:
                parameter.requires_grad_(False)

    def _ask(self, model: nn.Module) -> None:
        traits = traits_of(model)
        try:
            settings = combined(self.rules, traits)
        except ValueError as error:
            raise MisconfigurationException(f"{self.who}: {error}") from error
        self.traits = {trait.parameter: trait for trait in traits}
        self.settings = dict(zip(self.traits, settings, strict=True))

    def apply(self, trainer: Trainer, pl_module: LightningModule, configured: Any) -> Any:
        """Regroup whatever ``configure_optimizers`` has returned, and return it in the same shape.

        Raises:
            MisconfigurationException: If there is nothing to regroup, or an optimizer cannot be.
        """
        if not optimizers_in(configured):
            raise MisconfigurationException(
                f"{self.who} found no optimizer: {type(pl_module).__name__}.configure_optimizers returned none. Return "
                f"one there (also if the DeepSpeed config has one), or remove {self.who} from the callbacks."
            )
        refuse_flat_parameters(trainer, self.who)
        self.learn(trainer.strategy.model or pl_module)
        self.before = [self.contents(optimizer) for optimizer in optimizers_in(configured)]
        made = changed(configured, lambda optimizer, schedulers: self._apply(trainer, optimizer, schedulers))
        self.groups = [
            self.contents(optimizer) for optimizer in optimizers_in(made)
        ]  # DeepSpeed hides parameters later
        self.rates = [[float(group["lr"]) for group in optimizer.param_groups] for optimizer in optimizers_in(made)]
        return made

    def look_at(self, optimizers: Sequence[Optimizer]) -> None:
        """Take down what the groups hold: they are final."""
        self.known = [list(optimizer.param_groups) for optimizer in optimizers]

    def unflatten_(self, optimizers: Sequence[Optimizer]) -> None:
        """Multiply rates by their groups' scales again, where Lightning's LearningRateFinder has made all the same."""
        for optimizer, made in zip(optimizers, self.rates, strict=False):
            found = [float(group["lr"]) for group in optimizer.param_groups]
            if len(set(found)) == 1 and len(found) == len(made) and found != made:
                for group, rate in zip(optimizer.param_groups, made, strict=True):
                    _multiply(group, "lr", group.get("lr_scale", 1.0))
                    if self._over_rate and group.get("weight_decay"):
                        group["weight_decay"] *= rate / float(group["lr"])

    @property
    def _over_rate(self) -> bool:
        """Whether rates times weight decays are to stay what they are."""
        return any(setting.over_rate for setting in self.settings.values())

    def contents(self, optimizer: Optimizer) -> list[Group]:
        """What the groups of one optimizer hold."""
        names = {parameter: trait.name for parameter, trait in self.traits.items()}
        return contents(optimizer, names, {entry for setting in self.settings.values() for entry, _ in setting.entries})

    def adopt(
        self, index: int, optimizer: Optimizer, schedulers: Sequence[Any], learn_anew: Callable[[], nn.Module]
    ) -> bool:
        """Apply the rules to groups that somebody has added since; True if there were any.

        ``learn_anew`` renews the rules for a model that has got new layers, and returns it.
        """
        groups, known = optimizer.param_groups, self.known[index]
        if len(groups) == len(known) and all(one is other for one, other in zip(groups, known, strict=True)):
            return False
        had = {id(parameter) for group in known for parameter in group["params"]}
        new = [at for at, group in enumerate(groups) if all(id(parameter) not in had for parameter in group["params"])]
        if new:
            if any(parameter not in self.settings for at in new for parameter in groups[at]["params"]):
                self._ask(learn_anew())
            kept = dict(zip(map(id, known), self.groups[index], strict=True))  # schedules have written into these
            thawed = {
                parameter: setting for parameter, setting in self.settings.items() if not setting.frozen
            }  # who adds a frozen one means to train it
            before = [group.get("lr_scale", 1.0) for group in groups]
            came = regroup_(optimizer, thawed, positions=new, apart=bool(schedulers))
            _follow(schedulers, came, before)
            found = zip(optimizer.param_groups, self.contents(optimizer), strict=True)
            self.groups[index] = [kept.get(id(group), content) for group, content in found]
        self.known[index] = list(optimizer.param_groups)
        return bool(new)

    def put_back(self, trainer: Trainer, old: Sequence[Sequence[Group]]) -> None:
        """Put settings in force that a checkpoint has overwritten; rates keep what schedules have made of them."""
        for optimizer, before, now in zip(trainer.optimizers, old, self.groups, strict=False):
            ratios = []
            for group, was, wanted in zip(optimizer.param_groups, before, now, strict=True):
                had, has = dict(was.settings), dict(wanted.settings)
                ratio = has.get("lr_scale", 1.0) / (had.get("lr_scale", 1.0) or 1.0)
                for key in RATES_OF_GROUPS:
                    if key in group and ratio != 1.0:
                        _multiply(group, key, ratio)
                for key, value in has.items():
                    group[key] = tuple(value) if isinstance(value, list) else value
                group["name"] = wanted.name
                ratios.append(ratio)
            same: Came = [(at, [group]) for at, group in enumerate(optimizer.param_groups)]
            for config in trainer.lr_scheduler_configs:
                if getattr(config.scheduler, "optimizer", None) is optimizer:
                    follow_(config.scheduler, same, ratios)

    def _apply(self, trainer: Trainer, optimizer: Optimizer, schedulers: list[Any]) -> Optimizer:
        if isinstance(optimizer, SplitOptimizer):
            return self._apply_to_parts(trainer, optimizer, schedulers)
        _as_the_module_made_it(optimizer)
        before = [group.get("lr_scale", 1.0) for group in optimizer.param_groups]
        parts = self._parts(trainer, optimizer, schedulers)
        all_schedulers, schedulers = schedulers, [] if parts else schedulers  # of the whole, and going
        try:
            came = regroup_(optimizer, self.settings, apart=bool(schedulers))
            _follow(schedulers, came, before)
            for part in parts:
                regroup_(part, self.settings)
        except ValueError as error:
            raise MisconfigurationException(f"{self.who}: {error}") from error
        if isinstance(optimizer, LBFGS) and len(optimizer.param_groups) > 1:
            raise MisconfigurationException(
                f"{self.who}: LBFGS knows no groups, and these rules make {len(optimizer.param_groups)}. Use another "
                f"optimizer, or remove {self.who} from the callbacks."
            )
        if not parts:
            return optimizer
        main = [optimizer] if any(group["params"] for group in optimizer.param_groups) else []
        made = SplitOptimizer([*main, *parts])
        bind(all_schedulers, made)
        return made

    def _apply_to_parts(self, trainer: Trainer, optimizer: SplitOptimizer, schedulers: list[Any]) -> Optimizer:
        """Each part by itself: groups of one cannot be merged with those of another."""
        if schedulers and not replaces_schedulers(trainer):
            raise MisconfigurationException(
                f"{self.who}: a scheduler was built on a SplitOptimizer, whose groups are made anew. Return the "
                "optimizer alone, or let LRSchedule(..., replace_schedulers=True) take the scheduler's place."
            )
        made = [self._apply(trainer, part, []) for part in optimizer.parts]
        parts = [one for part in made for one in (part.parts if isinstance(part, SplitOptimizer) else [part])]
        full = [part for part in parts if any(group["params"] for group in part.param_groups)]
        whole = SplitOptimizer(full or parts)
        bind(schedulers, whole)
        return whole

    def _parts(self, trainer: Trainer, optimizer: Optimizer, schedulers: list[Any]) -> list[Optimizer]:
        """Optimizers of their own for parameters that rules give one; they leave ``optimizer``."""
        wanted: dict[Any, list[Tensor]] = {}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                setting = self.settings.get(parameter)
                if setting is not None and setting.optimizer is not None and not setting.frozen:
                    wanted.setdefault(setting.optimizer, []).append(parameter)
        if wanted and ((schedulers and not replaces_schedulers(trainer)) or has_engine(trainer)):
            reason = "DeepSpeed takes one optimizer" if has_engine(trainer) else "its scheduler was built on the first"
            raise MisconfigurationException(
                f"{self.who}: a rule gives parameters an optimizer of their own, and {reason}. Drop optimizer from the "
                "rule, or "
                + ("use another strategy." if has_engine(trainer) else "say LRSchedule(..., replace_schedulers=True).")
            )
        taken = {id(parameter) for parameters in wanted.values() for parameter in parameters}
        for group in optimizer.param_groups:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in taken]
        rate = rate_unlowered(optimizer.param_groups[0]) if optimizer.param_groups else 1e-3
        if taken:
            optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
        try:
            return [make([{"params": parameters}], lr=rate) for make, parameters in wanted.items()]
        except ValueError as error:
            raise MisconfigurationException(f"{self.who}: {error}") from error


def compare(who: str, old: Sequence[Sequence[Group]], new: Sequence[Sequence[Group]], *, adopt: bool) -> bool:
    """Whether the checkpoint's groups hold other parameters or settings than the run's.

    Raises:
        MisconfigurationException: If they do and the run is not to ``adopt`` its own.
    """
    lines = [line for before, now in zip(old, new, strict=False) for line in changes(before, now)]
    if len(old) != len(new):
        lines.append(f"{len(new)} optimizers, the checkpoint had {len(old)}")
    if lines and not adopt:
        said = "\n".join(f"  {line}" for line in lines)
        raise MisconfigurationException(
            f"{who}: parameters would be trained otherwise than in the checkpoint:\n{said}\n"
            'Say on_change="adopt" to go on with the new settings, or put the old ones back.'
        )
    return bool(lines)


def reorder_states(who: str, checkpoint: dict[str, Any], old: Any, new: Any, optimizers: Sequence[Optimizer]) -> None:
    """Put the optimizer states of a checkpoint into the order that the groups have now, in place.

    Raises:
        MisconfigurationException: If they cannot be: other parameters, or schedulers with a state for each group.
    """
    for index, (before, now, optimizer) in enumerate(zip(old, new, optimizers, strict=True)):
        if same_layout(before, now):
            continue
        if checkpoint.get("lr_schedulers") and len(before) != len(now):
            raise MisconfigurationException(
                f"{who}: the checkpoint's scheduler has a rate for each of {len(before)} groups, and there are "
                f"{len(now)} now. Put the old groups back, or use LRSchedule, which asks for no state of a scheduler."
            )
        try:
            checkpoint["optimizer_states"][index] = reordered(
                checkpoint["optimizer_states"][index], before, now, optimizer.state_dict()["param_groups"]
            )
        except ValueError as error:
            raise MisconfigurationException(
                f"{who}: {error} Put the old ones back, or start from its weights alone."
            ) from error


def run_first(trainer: Trainer, kind: type) -> None:
    """Move callbacks of ``kind`` before those that schedule groups, and behind those that tune before a run."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    names = [{ancestor.__name__ for ancestor in type(callback).__mro__} for callback in callbacks]
    tuners = [
        one
        for one, known in zip(callbacks, names, strict=True)
        if known & {"LearningRateFinder", "BatchSizeFinder", "LRFinder"}
    ]
    ours = [one for one in callbacks if isinstance(one, kind)]
    others = [one for one in callbacks if not any(one is other for other in (*tuners, *ours))]
    trainer.callbacks = [*tuners, *ours, *others]  # type: ignore[attr-defined]


def _as_the_module_made_it(optimizer: Optimizer) -> None:
    """Undo what an earlier fit has made of the groups of the same optimizer; its state stays."""
    known = _FOUND.get(optimizer)
    if known is None:
        _FOUND[optimizer] = [{**group, "params": list(group["params"])} for group in optimizer.param_groups]
    else:
        optimizer.param_groups[:] = [{**group, "params": list(group["params"])} for group in known]


def _follow(schedulers: Sequence[Any], came: Came, before: Sequence[float]) -> None:
    scales = [group.get("lr_scale", 1.0) / (before[at] or 1.0) for at, groups in came for group in groups]
    for scheduler in schedulers:
        follow_(scheduler, came, scales)


def _multiply(group: dict[str, Any], key: str, ratio: float) -> None:
    if isinstance(group[key], Tensor):
        with torch.no_grad():
            group[key].mul_(ratio)
    else:
        group[key] *= ratio
