"""Finetuning Scheduler's callback beside ours: layers are thawed while training, in groups with rates of their own."""

import warnings

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # theirs, at import
    from finetuning_scheduler import FinetuningScheduler

from given import Made, given
from shipped import Case

PHASES = {
    0: {"params": [r"layers\.4\..*"], "max_transition_epoch": 0},
    1: {"params": [r"layers\.2\..*"], "max_transition_epoch": 1, "lr": 1e-3},
    2: {"params": [r"layers\.[01]\..*"], "max_transition_epoch": 2, "lr": 1e-4},
}


class Layers(L.LightningModule):
    """What Finetuning Scheduler asks for: an optimizer over what is thawed."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))

    def training_step(self, batch, batch_idx):
        return self.layers(batch).pow(2).mean()

    def configure_optimizers(self):
        thawed = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(thawed, lr=1e-2, weight_decay=0.1)


def vectors(index):
    return torch.randn(8, generator=torch.Generator().manual_seed(index))


def fit(folder, callbacks, logger):
    thaw = FinetuningScheduler(PHASES, epoch_transitions_only=True, restore_best=False)
    settings = {"max_epochs": len(PHASES), "enable_checkpointing": True}
    given(lambda: (Layers(), DataLoader(Made(vectors))), **settings)(
        folder, [callbacks[0], thaw, *callbacks[1:]], logger
    )


CASES = [Case("three phases", "finetuning-scheduler", fit, own=False)]
