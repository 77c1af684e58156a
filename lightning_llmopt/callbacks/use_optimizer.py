"""Another optimizer than the one that a module configures."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer
from typing_extensions import override

from .._lightning import LightningModule, MisconfigurationException, Trainer, rank_zero_info
from ..optim import Rule, Setting, check_settings, own, renewed
from ._configured import changed, optimizers_in
from ._regroups import Regroups
from ._replaced import bind, replaces_schedulers
from ._replacing import default_of, kind, matrices, names, path, plain, put, with_settings
from ._shards import has_engine

_KEY, _OTHERS = "optimizer", "others."


class UseOptimizer(Regroups):
    """Trains the module with another optimizer than ``configure_optimizers`` returns, without an edit.

    The new one gets the parameters of the old one, in the same groups and by the same names: a group's rate keeps its
    ratio to the first group's, and a group without weight decay beside others with some stays without; other entries
    are the new optimizer's. It is in place before any group callback (``LayerwiseLRDecay``, ``WeightDecaySplit``,
    ``ParamGroups``, ``MuTransfer``, ...) makes groups of it, and before a strategy sees it, wherever it stands in the
    list. Works in manual optimization, and with several optimizers, all of them or the one that ``replaces`` names.

    A scheduler that was built on the old optimizer would turn rates that nobody reads: it is refused, unless
    ``LRSchedule(replace_schedulers=True)`` takes its place. Other schedulers stay.

    Saved with the checkpoint are the class and the settings. Another class is refused on resume, since its state is not
    the old one's; other settings too, or put in force with ``on_change="adopt"``. Of a checkpoint that was written
    without this callback the class is not known: ``"adopt"`` then loads its states as they are.

    An optimizer with modes of its own (``schedulefree``: ``train()`` before steps, ``eval()`` before validating and
    saving) needs a module that sets them; this callback does not.

    Args:
        optimizer: A class, its path (``"torch.optim.AdamW"``), or a function of ``params``.
        settings: Its arguments, as a mapping; for YAML.
        replaces: Position or class name of the only optimizer that is replaced; by default all.
        others: Optimizer of the parameters that ``optimizer`` is not for, written like ``optimizer`` or as
            ``{"class_path": ..., "init_args": {...}}``; that one then trains the blocks' matrices alone (where
            there are no blocks, all matrices but embeddings) of more than one row and column, as ``torch.optim.Muon``
            asks for. Both step as one.
        on_change: What to do if a checkpoint's groups or settings are others: ``"error"``, or ``"adopt"`` the new ones.
        show: Whether to print the groups.
        **more: Its arguments, by name; in YAML under ``dict_kwargs``.

    Raises:
        ValueError: If there is no such class, or it takes no such argument or value.
        MisconfigurationException: At fit start, if there is no such optimizer to replace, a scheduler was built on it,
            the new one refuses the parameters, or two callbacks replace the same one; with ``others``, if DeepSpeed
            takes one optimizer; on resume, if the checkpoint was trained otherwise; and as ``ParamGroups``.

    Example:
        >>> from lightning_llmopt.callbacks import UseOptimizer
        >>> callback = UseOptimizer("torch.optim.AdamW", lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1)
    """

    STRENGTH = -1

    def __init__(
        self,
        optimizer: str | Callable[..., Any],
        settings: Mapping[str, Any] | None = None,
        *,
        replaces: int | str | None = None,
        others: Any = None,
        on_change: str = "error",
        show: bool = True,
        **more: Any,
    ) -> None:
        twice = sorted((settings or {}).keys() & more.keys())
        if twice:
            raise ValueError(f"settings and arguments by name must not both have {twice[0]!r}.")
        whole = isinstance(replaces, int) and not isinstance(replaces, bool) and replaces >= 0
        if not (replaces is None or whole or (isinstance(replaces, str) and replaces)):
            raise ValueError(f"replaces must be a position >= 0 or a class name, got {replaces!r}.")
        self.optimizer = with_settings(own(optimizer), {**(settings or {}), **more})
        self.others = None if others is None else own(others)
        for one in (self.optimizer, self.others):
            if one is not None:
                check_settings(one)
        if self.others is not None and self.others.make is self.optimizer.make:
            raise ValueError(
                f"others must be another optimizer than {path(self.optimizer)}, got the same. For other settings "
                "of some parameters use ParamGroups."
            )
        self.replaces = replaces
        super().__init__(on_change=on_change, show=show)
        self._before: dict[str, Any] | None = None
        self._mine: list[int] = []

    @property
    @override
    def state_key(self) -> str:
        """Fixed by what it replaces."""
        return "UseOptimizer" if self.replaces is None else f"UseOptimizer({self.replaces!r})"

    @override
    def rule(self, trainer: Trainer, model: nn.Module) -> Rule:
        return _AsTheyAre()

    @override
    def replace(self, trainer: Trainer, pl_module: LightningModule, configured: Any) -> Any:
        found = optimizers_in(configured)
        there = names(found)
        self._mine = [at for at, name in enumerate(there) if self.replaces in (None, at, name)]
        if found and not self._mine:
            raise MisconfigurationException(
                f"UseOptimizer(replaces={self.replaces!r}): there is no such optimizer. "
                f"{type(pl_module).__name__}.configure_optimizers returns {there}."
            )
        self._refuse_second(trainer)
        chosen = [found[at] for at in self._mine]

        def change(optimizer: Optimizer, schedulers: list[Any]) -> Optimizer:
            if all(optimizer is not one for one in chosen):
                return optimizer
            made = self._made(trainer, pl_module, optimizer)
            self._release(trainer, schedulers, made)
            return made

        return changed(configured, change)

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse another class at once: what is loaded next are its states."""
        super().load_state_dict(state_dict)
        before, now = state_dict.get(_KEY), self._described()
        if before is None:
            return
        for what in ("class", "others"):
            if before[what] != now[what]:
                raise MisconfigurationException(
                    f"UseOptimizer: the checkpoint was trained with {before[what]}, and this run uses {now[what]}, to "
                    "which its states mean nothing. Put the old optimizer back, or start from the checkpoint's weights "
                    "alone."
                )
        self._before = before

    @override
    def state_dict(self) -> dict[str, Any]:
        """The class and its settings; of several group callbacks the first has the groups as well."""
        return {**super().state_dict(), _KEY: self._described()} if self._mine else super().state_dict()

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Everything is restored by now: settings must be those of the checkpoint, or are put in force."""
        super().on_train_start(trainer, pl_module)
        before, self._before = self._before, None
        if before is None or trainer.global_step == 0:
            return
        old, new = before["settings"], self._described()["settings"]
        changed_ones = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
        if not changed_ones:
            return
        lines = "\n".join(f"  {key}: {new.get(key)}, the checkpoint had {old.get(key)}" for key in changed_ones)
        theirs = [key for key in changed_ones if key.startswith(_OTHERS)]
        if self.on_change != "adopt" or theirs:
            way_out = "" if theirs else 'Say on_change="adopt" to go on with the new ones, or put the old ones back.'
            raise MisconfigurationException(
                f"UseOptimizer: the optimizer has other settings than in the checkpoint:\n{lines}\n"
                f"{way_out or 'Those of others cannot be adopted: put the old ones back.'}"
            )
        for index in self._mine:
            for part in self._own_parts(trainer.optimizers[index]):
                for key in changed_ones:
                    put(part.param_groups, key, old.get(key, default_of(self.optimizer, key)), part.defaults.get(key))
        rank_zero_info(f"UseOptimizer: the settings have changed, and the new ones are in force:\n{lines}")

    @override
    def __getstate__(self) -> dict[str, Any]:
        """Settings only."""
        return {**super().__getstate__(), "_before": None, "_mine": []}

    def _made(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> Optimizer:
        if self.others is not None and has_engine(trainer):
            raise MisconfigurationException(
                "UseOptimizer(others=...): DeepSpeed takes one optimizer. Use an optimizer for all parameters, or "
                "another strategy."
            )
        fits = matrices(trainer.strategy.model or pl_module) if self.others is not None else None
        try:
            return renewed(optimizer, self.optimizer, others=self.others, fits=fits)
        except ValueError as error:
            advice = (
                " Say others=torch.optim.AdamW for whatever is not a matrix of a block, or use another optimizer."
                if self.others is None
                else " Use another optimizer or another strategy."
            )
            raise MisconfigurationException(f"UseOptimizer: {self.optimizer} is refused: {error}{advice}") from error

    def _release(self, trainer: Trainer, schedulers: list[Any], made: Optimizer) -> None:
        """Bind schedulers that somebody else takes away to the new optimizer, or refuse them."""
        if schedulers and not replaces_schedulers(trainer):
            raise MisconfigurationException(
                f"UseOptimizer: {type(schedulers[0]).__name__} was built on the optimizer that is replaced, and would "
                "turn rates that nobody reads. Return the optimizer alone from configure_optimizers, or let "
                "LRSchedule(..., replace_schedulers=True) take the scheduler's place."
            )
        bind(schedulers, made)

    def _refuse_second(self, trainer: Trainer) -> None:
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        for other in callbacks:
            both = set(other._mine) & set(self._mine) if isinstance(other, UseOptimizer) and other is not self else ()
            if both:
                raise MisconfigurationException(
                    f"UseOptimizer: optimizer {min(both)} is replaced twice. Give each an optimizer of its own "
                    "(replaces=), or remove one."
                )

    @override
    def _detached(self) -> None:
        super()._detached()
        self._mine = []

    def _own_parts(self, optimizer: Any) -> list[Any]:
        """What ``optimizer`` itself is; not what steps parameters of others, or of rules with one of their own."""
        inner = optimizer if isinstance(optimizer, Optimizer) else getattr(optimizer, "optimizer", optimizer)
        parts = list(getattr(inner, "parts", [inner]))
        return [part for part in parts if kind(part) == path(self.optimizer)] or parts[:1]

    def _described(self) -> dict[str, Any]:
        """What is used, in plain types."""
        theirs = () if self.others is None else self.others.settings
        return {
            "class": path(self.optimizer),
            "others": "one optimizer" if self.others is None else f"{path(self.others)} for other parameters",
            "settings": {key: plain(value) for key, value in self.optimizer.settings}
            | {f"{_OTHERS}{key}": plain(value) for key, value in theirs},
        }


class _AsTheyAre:
    """A rule that changes nothing."""

    def settings(self, traits: Any) -> list[Setting]:
        return [Setting() for _ in traits]
