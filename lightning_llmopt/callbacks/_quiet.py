"""When nothing is to be printed."""

from .._lightning import ModelSummary, Trainer, messages_are_on


def is_quiet(trainer: Trainer) -> bool:
    """Whether somebody has asked for silence.

    That is ``barebones=True``, a Trainer with neither a progress bar nor a model summary
    (``enable_progress_bar=False, enable_model_summary=False``), or Lightning's logger of messages
    (``lightning.pytorch.utilities.rank_zero``) at a level above INFO. Warnings are not meant.
    """
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    shows = trainer.progress_bar_callback is not None or any(isinstance(one, ModelSummary) for one in callbacks)
    return trainer.barebones or not shows or not messages_are_on()


def shown_elsewhere(trainer: Trainer) -> bool:
    """Whether a callback of this Trainer prints everything that is known at the start of training."""
    return any(getattr(one, "SHOWS_ALL", False) for one in trainer.callbacks)  # type: ignore[attr-defined]
