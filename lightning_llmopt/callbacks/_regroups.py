"""What callbacks that make parameter groups have in common."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.optim import Optimizer
from typing_extensions import override

from .._lightning import (
    Callback,
    LightningModule,
    MisconfigurationException,
    Trainer,
    is_logging_step,
    logger_step,
    rank_zero_info,
    rank_zero_only,
)
from ..optim import Group, Rule
from ..optim.content import same_layout
from ..optim.table import Row, rows
from ..structure import Structure, find_blocks
from ._configured import once, optimizers_in, restore
from ._entries import LR
from ._log import write
from ._optimizers import group_names, optimizer_names
from ._page import page, say
from ._quiet import is_quiet, shown_elsewhere
from ._regrouping import Regrouping, compare, reorder_states, run_first
from ._scheduled import Scheduled
from ._strategy import inherits

ON_CHANGE = ("error", "adopt")
_KEY = "param_groups"


class Regroups(Callback):
    """Has a say in the parameter groups of every optimizer.

    All of this kind on one Trainer act together, through the first of them: groups are made once, when
    ``configure_optimizers`` returns, which is after the model was sharded and before DeepSpeed takes the optimizer.
    """

    STRENGTH: ClassVar[int] = 0  # where two set the same value, it is that of the one with the higher number

    def __init__(self, *, on_change: str, show: bool) -> None:
        if on_change not in ON_CHANGE:
            raise ValueError(f"on_change must be one of {list(ON_CHANGE)}, got {on_change!r}.")
        if not isinstance(show, bool):
            raise ValueError(f"show must be True or False, got {show!r}.")
        self.on_change, self.show = on_change, show
        self._regrouping: Regrouping | None = None
        self._checkpoint: dict[str, Any] | None = None
        self._saved: list[list[Group]] | None = None
        self._reordered = False
        self._logged: tuple[int, int] | None = None

    def rule(self, trainer: Trainer, model: nn.Module) -> Rule:
        """What it says of parameters; asked once a fit, when the model is whole."""
        raise NotImplementedError

    def replace(self, trainer: Trainer, pl_module: LightningModule, configured: Any) -> Any:
        """For subclasses: what is to stand in place of what the module has returned, in the same shape."""
        return configured

    def meet(self, trainer: Trainer, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
        """For subclasses: what the module has returned, before anything is done to it."""

    def _structure(self, model: nn.Module) -> Structure | None:
        """Where the blocks are, for the table; ``None`` if there are none."""
        try:
            return find_blocks(model)
        except ValueError:
            return None

    def _prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """For subclasses: the model is not yet wrapped."""

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The first of its kind sees to it that ``configure_optimizers`` is followed by the rules of all."""
        if stage != "fit":
            return
        self._detached()
        self._prepare(trainer, pl_module)
        if self._leads(trainer):
            restore(pl_module)
            once(pl_module, lambda configured: self._configure(trainer, pl_module, configured))
            run_first(trainer, Regroups)

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep hold of what is being restored: groups may have to be put into another order."""
        if self._leads(trainer):
            self._checkpoint = checkpoint
            self._saved = _groups_in(checkpoint) or self._saved

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what was saved until training starts."""
        self._saved = _plain_groups(state_dict) or self._saved

    @override
    def state_dict(self) -> dict[str, Any]:
        """What every group holds, by the names of parameters; of several callbacks, the first has it."""
        if self._regrouping is None:
            return {}
        return {_KEY: [[group.to_plain() for group in groups] for groups in self._regrouping.groups]}

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the groups; rates are what the optimizer was given."""
        if self._regrouping is None:
            if self._leads(trainer):
                restore(pl_module)  # nobody asked for optimizers
            return
        optimizers = list(trainer.optimizers)
        self._regrouping.unflatten_(optimizers)
        self._regrouping.look_at(optimizers)
        if self.show and not is_quiet(trainer) and not shown_elsewhere(trainer):
            self._print(trainer, pl_module)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Everything is restored by now: the groups must be those of the checkpoint, or the run's own."""
        if self._regrouping is None:
            return
        self._checkpoint = None
        resumed = trainer.ckpt_path is not None and trainer.global_step > 0
        if resumed and self._saved is None and self.on_change == "error":
            self._refuse_unknown()
        if self._saved is not None and resumed:
            new = self._regrouping.groups
            if compare(self._who(trainer), self._saved, new, adopt=self._adopts(trainer)):
                self._regrouping.put_back(trainer, new if self._reordered else self._saved)
                rank_zero_info(
                    f"{self._who(trainer)}: the groups' settings have changed, and the new ones are in force."
                )
        self._saved = None
        self._regrouping.look_at(list(trainer.optimizers))

    @override
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Let the rules hold for groups that were added since; log the rates, unless a schedule does."""
        if self._regrouping is None:
            return
        self._adopt_new(trainer)
        if not is_logging_step(trainer) or self._logged == (logger_step(trainer), id(optimizer)):
            return
        self._logged = (logger_step(trainer), id(optimizer))
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        others = [one for one in callbacks if isinstance(one, Scheduled) and one.entry == LR]
        index = next((at for at, one in enumerate(trainer.optimizers) if one is optimizer), 0)
        written = {at for other in others for where, at in other.targeted(trainer) if where == index}
        name, groups = optimizer_names(trainer)[index], trainer.optimizers[index].param_groups
        names = group_names(trainer.optimizers[index])
        rates = {f"lr/{name}/{names[at]}": float(one["lr"]) for at, one in enumerate(groups) if at not in written}
        write(trainer, rates)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the module as it was."""
        restore(pl_module)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the module as it was."""
        restore(pl_module)

    def __getstate__(self) -> dict[str, Any]:
        """What to copy or pickle: the settings, and nothing of a run."""
        return {**self.__dict__, "_regrouping": None, "_checkpoint": None}

    def _configure(self, trainer: Trainer, pl_module: LightningModule, configured: Any) -> Any:
        model = trainer.strategy.model or pl_module
        for one in self._family(trainer):
            configured = one.replace(trainer, pl_module, configured)
        for one in self._by_strength(trainer):
            one.meet(trainer, model, optimizers_in(configured))
        regrouping = Regrouping(self._rules(trainer, model), self._who(trainer))
        configured = regrouping.apply(trainer, pl_module, configured)
        self._regrouping = regrouping
        self._meet_checkpoint(trainer, configured)
        return configured

    def _rules(self, trainer: Trainer, model: nn.Module) -> list[Rule]:
        try:
            return [one.rule(trainer, model) for one in self._by_strength(trainer)]
        except ValueError as error:
            raise MisconfigurationException(f"{self._who(trainer)}: {error}") from error

    def _by_strength(self, trainer: Trainer) -> "list[Regroups]":
        return sorted(self._family(trainer), key=lambda one: -one.STRENGTH)

    def _meet_checkpoint(self, trainer: Trainer, configured: Any) -> None:
        """Refuse or reorder what is about to be loaded, as far as it is at hand."""
        if trainer.ckpt_path is None or self._regrouping is None:
            return
        optimizers = optimizers_in(configured)
        new = [self._regrouping.contents(optimizer) for optimizer in optimizers]
        self._saved = self._saved or _groups_in(_metadata(trainer.ckpt_path))
        checkpoint = self._checkpoint
        if self._saved is None:
            if checkpoint is None or "optimizer_states" not in checkpoint:
                return
            if not self._adopts(trainer):
                self._refuse_unknown()
            self._saved = self._regrouping.before
        compare(self._who(trainer), self._saved, new, adopt=self._adopts(trainer))
        apart = [index for index, pair in enumerate(zip(self._saved, new, strict=False)) if not same_layout(*pair)]
        if not apart and len(self._saved) == len(new):
            return
        if checkpoint is None or "optimizer_states" not in checkpoint or len(self._saved) != len(new):
            raise MisconfigurationException(
                f"{self._who(trainer)}: parameters are in other groups than in the checkpoint, and "
                f"{type(trainer.strategy).__name__} restores states group by group. Put the old rules back, or start "
                "from the checkpoint's weights alone."
            )
        reorder_states(self._who(trainer), checkpoint, self._saved, new, optimizers)
        self._reordered = True

    def _refuse_unknown(self) -> None:
        raise MisconfigurationException(
            f"{type(self).__name__}: the checkpoint knows nothing of these groups: it was written without this "
            'callback. Say on_change="adopt" to train on with them, or remove the callback.'
        )

    def _adopt_new(self, trainer: Trainer) -> None:
        if self._regrouping is None or inherits(trainer.strategy, ("DeepSpeedStrategy",)):
            return
        for index, optimizer in enumerate(trainer.optimizers):
            configs = [config.scheduler for config in trainer.lr_scheduler_configs]
            mine = [one for one in configs if getattr(one, "optimizer", None) is optimizer]
            self._regrouping.adopt(index, optimizer, mine, lambda: self._renew_rules(trainer))

    def _renew_rules(self, trainer: Trainer) -> nn.Module:
        """Ask all callbacks for their rules again, for the model as it is by now."""
        model = trainer.strategy.model or trainer.lightning_module
        if self._regrouping is not None:
            self._regrouping.rules = self._rules(trainer, model)
        return model

    def _adopts(self, trainer: Trainer) -> bool:
        return any(one.on_change == "adopt" for one in self._family(trainer))

    def _family(self, trainer: Trainer) -> "list[Regroups]":
        return [one for one in trainer.callbacks if isinstance(one, Regroups)]  # type: ignore[attr-defined]

    def _leads(self, trainer: Trainer) -> bool:
        return next(iter(self._family(trainer)), None) is self

    def _who(self, trainer: Trainer) -> str:
        return " + ".join(type(one).__name__ for one in self._family(trainer))

    def tables(self, trainer: Trainer, pl_module: LightningModule) -> list[tuple[str, list[Row]]]:
        """Title and rows, one table an optimizer; none if nothing was grouped."""
        regrouping = self._regrouping
        if regrouping is None:
            return []
        found = [one._structure(trainer.strategy.model or pl_module) for one in self._family(trainer)]
        structure = next((one for one in found if one is not None), None)
        sizes = {parameter: _size(trait.shape) for parameter, trait in regrouping.traits.items()}
        depths = (
            {parameter: structure.depth_of(trait.name) for parameter, trait in regrouping.traits.items()}
            if structure is not None
            else {}
        )
        blocks = len(structure.blocks) if structure is not None else 0
        return [
            (f"Parameter groups of {name} ({self._who(trainer)})", rows(optimizer, sizes, depths, blocks))
            for name, optimizer in zip(optimizer_names(trainer), trainer.optimizers, strict=True)
        ]

    @rank_zero_only
    def _print(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for title, lines in self.tables(trainer, pl_module):
            say(trainer, page([], [(title, lines)]))

    def _detached(self) -> None:
        self._regrouping = self._checkpoint = self._saved = self._logged = None
        self._reordered = False


def _groups_in(checkpoint: Mapping[str, Any] | None) -> list[list[Group]] | None:
    """The groups that any of our callbacks has put into a checkpoint."""
    states = (checkpoint or {}).get("callbacks") or {}
    found = [_plain_groups(state) for state in states.values() if isinstance(state, Mapping)]
    return next((groups for groups in found if groups is not None), None)


def _plain_groups(state: Mapping[str, Any]) -> list[list[Group]] | None:
    if _KEY not in state:
        return None
    return [[Group.from_plain(group) for group in groups] for groups in state[_KEY]]


def _metadata(path: Any) -> dict[str, Any] | None:
    """What a checkpoint says beside its tensors, if that can be read by itself and without unpickling."""
    folder = Path(str(path))
    file = folder / "meta.pt" if folder.is_dir() else folder
    if not file.is_file():
        return None
    try:
        return dict(torch.load(file, weights_only=True, map_location="meta", mmap=file is folder))
    except Exception:  # noqa: BLE001 - whoever loads it says what is wrong with it
        return None


def _size(shape: Sequence[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
