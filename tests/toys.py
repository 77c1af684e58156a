"""What every page may use without saying where it comes from: a module and a loader as people have them."""

import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.utils.data import DataLoader


class AnyLightningModule(BoringModel):
    """A module as people write them: a bare optimizer."""

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def toys() -> dict[str, object]:
    torch.manual_seed(0)  # pages show numbers
    loader = DataLoader(torch.randn(512, 32), batch_size=4)
    return {"any_lightning_module": AnyLightningModule(), "any_loader": loader, "__name__": "page"}
