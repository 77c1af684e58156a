"""Cases that come as a module and a loader, trained by a Trainer of the test's own."""

from collections.abc import Callable, Iterable
from typing import Any

import lightning as L
from torch.utils.data import Dataset

from fitting import trainer

BATCHES = 6


class Made(Dataset):
    """As many items as there are batches, each made from its number."""

    def __init__(self, make: Callable[[int], Any]):
        self.make = make

    def __len__(self) -> int:
        return BATCHES

    def __getitem__(self, index: int) -> Any:
        if index >= BATCHES:
            raise IndexError(index)
        return self.make(index)


def given(build: Callable[[], tuple[L.LightningModule, Iterable[Any]]], **settings: Any):
    """Train what ``build`` returns for one epoch.

    Args:
        build: Makes the module and its batches.
        settings: Of the Trainer, where the model needs them.
    """

    def fit(folder, callbacks, logger):
        module, batches = build()
        usual = {"max_epochs": 1, "limit_val_batches": 0, "num_sanity_val_steps": 0, "logger": logger}
        trainer(folder, *callbacks, **{**usual, "log_every_n_steps": 1, **settings}).fit(module, batches)

    return fit
