"""Short fields in the Trainer's progress bar, whichever bar it is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from .._lightning import LightningModule, ProgressBar, Trainer
from ._bar_lines import Squeezed, TwoLines

Field = Callable[[], str | None]


@dataclass(frozen=True)
class _Shown:
    """A field in full, and where the bar is too narrow for all of them."""

    field: Field
    short_name: str
    short: Field


@dataclass
class _Bar:
    """What was done to a bar."""

    fields: dict[str, _Shown]
    before: Any
    two_lines: TwoLines
    squeezed: Squeezed


_BARS: "WeakKeyDictionary[ProgressBar, _Bar]" = WeakKeyDictionary()


def show(trainer: Trainer, name: str, field: Field, *, short: tuple[str, Field] | None = None) -> None:
    """Show ``field()`` as ``name`` each time the bar is drawn; ``None`` hides it for now.

    Texts cannot go through ``self.log``, and numbers that do are copied to the host every batch, so
    the fields are added where bars ask for them, in ``get_metrics``. Where not all values fit on the line of the bar,
    Rich gets a second line for them, and tqdm, which cuts, the ``short`` names and fields.
    """
    bar = trainer.progress_bar_callback
    if bar is None:
        return
    if bar not in _BARS:
        _BARS[bar] = _Bar({}, bar.__dict__.get("get_metrics"), TwoLines(), Squeezed())
        bar.get_metrics = _with_fields(bar, bar.get_metrics, _BARS[bar])  # type: ignore[method-assign]
    short_name, short_field = short or (name, field)
    _BARS[bar].fields[name] = _Shown(field, short_name, short_field)


def hide(trainer: Trainer, *names: str) -> None:
    """Take the fields away again; the bar is left as it was found once the last one is gone."""
    bar = trainer.progress_bar_callback
    if bar is None or bar not in _BARS:
        return
    for name in names:
        _BARS[bar].fields.pop(name, None)
    if not _BARS[bar].fields:
        known = _BARS.pop(bar)
        known.two_lines.undo()
        known.squeezed.undo()
        del bar.__dict__["get_metrics"]
        if known.before is not None:
            bar.__dict__["get_metrics"] = known.before


def _with_fields(bar: ProgressBar, get_metrics: Callable[..., dict[str, Any]], known: _Bar) -> Callable[..., Any]:
    def get_metrics_and_fields(trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        others = get_metrics(trainer, pl_module)
        whole = {**others, **_texts({name: one.field for name, one in known.fields.items()})}
        if trainer.progress_bar_callback is not bar:
            return whole
        known.two_lines.give_to(getattr(bar, "progress", None))
        tqdm = getattr(bar, "_train_progress_bar", None)
        if known.squeezed.fits(tqdm, whole):
            return whole
        return _in_order(others, _texts({one.short_name: one.short for one in known.fields.values()}))

    return get_metrics_and_fields


def _texts(fields: dict[str, Field]) -> dict[str, str]:
    shown = {name: field() for name, field in fields.items()}
    return {name: text for name, text in shown.items() if text is not None}


def _in_order(others: dict[str, Any], ours: dict[str, str]) -> dict[str, Any]:
    """Losses, ours, and what may be cut off; the logger's version is on every path that it writes to."""
    others = {name: value for name, value in others.items() if name != "v_num"}
    losses = {name: value for name, value in others.items() if "loss" in name.lower()}
    return {**losses, **ours, **{name: value for name, value in others.items() if name not in losses}}
