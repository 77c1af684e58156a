"""Which scalars TensorBoard's custom-scalars page shows on one chart."""

from .._lightning import Trainer

_RATES = {"LRSchedule": "lr/.*", "LearningRateMonitor": "lr-.*"}  # who writes learning rates, and under which tags


def charts_of(trainer: Trainer, *, per_layer: bool) -> dict[str, list[str]]:
    """The charts of a run: under the title of each, regular expressions of the tags on it.

    Args:
        trainer: The Trainer, with its callbacks.
        per_layer: Whether there are norms of layers.
    """
    charts = {
        "gradient norm, raw and clipped": [r"grad_norm/total(/.*)?$", r"grad_norm/clipped(/.*)?$"],
        "clip coefficient": [r"grad_norm/clip_coefficient(/.*)?$"],
    }
    if per_layer:
        charts["gradient norm of each layer"] = [r"grad_norm/layer/.*"]
    names = {type(callback).__name__ for callback in trainer.callbacks}  # type: ignore[attr-defined]
    if rates := [tags for name, tags in _RATES.items() if name in names]:
        charts["learning rate"] = rates
    return charts
