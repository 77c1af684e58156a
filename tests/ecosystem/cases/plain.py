"""A network in the plainest of modules: its loss, and a bare optimizer."""

import lightning as L
import torch
from torch.utils.data import DataLoader

from given import Made, given
from shipped import Case


class Plain(L.LightningModule):
    def __init__(self, entry):
        super().__init__()
        self.model, self.loss = entry.build(), entry.loss

    def training_step(self, batch, batch_idx):
        torch.manual_seed(batch_idx)
        return self.loss(self.model)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=0.1)


def plain(entry):
    """The case of a network of a zoo."""
    fit = given(lambda: (Plain(entry), DataLoader(Made(float))))
    return Case(entry.name, entry.package, fit, own=False, blocks=entry.blocks)
