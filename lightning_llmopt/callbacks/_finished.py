"""Keeping the model that a cooldown on request has finished."""

from pathlib import Path

from .._lightning import Trainer, rank_zero_info


def keep_finished_model(trainer: Trainer) -> None:
    """Save it beside the other checkpoints, whose rhythm knows nothing of such an end; every rank must ask.

    Where nobody keeps checkpoints, nothing is kept.
    """
    folders = [getattr(callback, "dirpath", None) for callback in trainer.checkpoint_callbacks]
    if folder := next((folder for folder in folders if folder), None):
        file = Path(str(folder)) / f"annealed-step={trainer.global_step}.ckpt"
        trainer.save_checkpoint(file)
        rank_zero_info(f"LRSchedule: the annealed model is in {file}.")
