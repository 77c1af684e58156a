"""Self-supervised learning as lightly's pages write it: its heads, losses and LARS, in the plainest of modules."""

import warnings

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # theirs, at import
    from lightly.loss import NegativeCosineSimilarity, NTXentLoss
    from lightly.models import ResNetGenerator
    from lightly.models.modules import SimCLRProjectionHead, SimSiamPredictionHead, SimSiamProjectionHead
    from lightly.utils.lars import LARS

from given import Made, given
from shipped import Case

WIDTH = 16


def views(index):
    generator = torch.Generator().manual_seed(index)
    return torch.randn(2, 4, 3, 32, 32, generator=generator).unbind()


def backbone():
    network = ResNetGenerator("resnet-9", width=WIDTH / 64)
    return nn.Sequential(*list(network.children())[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten())


class SimCLR(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = backbone()
        self.head = SimCLRProjectionHead(self.backbone(torch.zeros(1, 3, 32, 32)).shape[1], WIDTH, WIDTH)
        self.loss = NTXentLoss()

    def training_step(self, batch, batch_idx):
        first, second = (self.head(self.backbone(view)) for view in batch)
        return self.loss(first, second)

    def configure_optimizers(self):
        return LARS(self.parameters(), lr=0.3, momentum=0.9, weight_decay=1e-6)


class SimSiam(SimCLR):
    def __init__(self):
        super().__init__()
        self.head = SimSiamProjectionHead(self.head.layers[0].in_features, WIDTH, WIDTH)
        self.prediction, self.loss = SimSiamPredictionHead(WIDTH, WIDTH, WIDTH), NegativeCosineSimilarity()

    def training_step(self, batch, batch_idx):
        projected = [self.head(self.backbone(view)) for view in batch]
        first, second = (self.prediction(view) for view in projected)
        return self.loss(first, projected[1].detach()) + self.loss(second, projected[0].detach())


def of(kind):
    return given(lambda: (kind(), DataLoader(Made(views), batch_size=None)))


CASES = [
    Case("SimCLR", "lightly", of(SimCLR), own=False),
    Case("SimSiam", "lightly", of(SimSiam), own=False),
]
