"""Short fields in the Trainer's progress bar, whichever bar it is."""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from .._lightning import LightningModule, ProgressBar, Trainer

Field = Callable[[], str | None]

_FIELDS: "WeakKeyDictionary[ProgressBar, dict[str, Field]]" = WeakKeyDictionary()
_BEFORE: "WeakKeyDictionary[ProgressBar, Any]" = WeakKeyDictionary()


def show(trainer: Trainer, name: str, field: Field) -> None:
    """Show ``field()`` as ``name`` each time the bar is drawn; ``None`` hides it for now.

    Texts cannot go through ``self.log``, and numbers that do are copied to the host every batch, so
    the fields are added where bars ask for them, in ``get_metrics``.
    """
    bar = trainer.progress_bar_callback
    if bar is None:
        return
    if bar not in _FIELDS:
        _FIELDS[bar] = {}
        _BEFORE[bar] = bar.__dict__.get("get_metrics")
        bar.get_metrics = _with_fields(bar.get_metrics, _FIELDS[bar])  # type: ignore[method-assign]
    _FIELDS[bar][name] = field


def hide(trainer: Trainer, *names: str) -> None:
    """Take the fields away again; the bar is left as it was found once the last one is gone."""
    bar = trainer.progress_bar_callback
    if bar is None or bar not in _FIELDS:
        return
    for name in names:
        _FIELDS[bar].pop(name, None)
    if not _FIELDS[bar]:
        del _FIELDS[bar], bar.__dict__["get_metrics"]
        if (own := _BEFORE.pop(bar)) is not None:
            bar.__dict__["get_metrics"] = own


def _with_fields(get_metrics: Callable[..., dict[str, Any]], fields: dict[str, Field]) -> Callable[..., dict[str, Any]]:
    def get_metrics_and_fields(trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        shown = {name: field() for name, field in fields.items()}
        return {**get_metrics(trainer, pl_module), **{name: text for name, text in shown.items() if text is not None}}

    return get_metrics_and_fields
