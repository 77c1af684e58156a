"""Lightning's own demos, and Finetuning Scheduler's callback beside ours."""

import torch
from lightning.pytorch.demos import LightningTransformer
from lightning.pytorch.demos.boring_classes import BoringModel, DemoModel, ManualOptimBoringModel
from lightning.pytorch.demos.lstm import LightningLSTM
from torch.utils.data import DataLoader

from given import BATCHES, Made, given
from shipped import Case

WORDS = 50


def text(index):
    generator = torch.Generator().manual_seed(index)
    words = torch.randint(WORDS, (9,), generator=generator)
    return words[:-1], words[1:]


def vectors(index):
    return torch.randn(32, generator=torch.Generator().manual_seed(index))


def with_text(kind):
    """As shipped they download WikiText-2 in ``prepare_data``: that alone is taken out."""

    def build():
        module = kind(vocab_size=WORDS)
        module.prepare_data = lambda: None
        return module, DataLoader(Made(text))

    return build


def with_vectors(kind):
    return lambda: (kind(), DataLoader(Made(vectors)))


assert BATCHES >= 4
CASES = [
    Case("BoringModel", "lightning", given(with_vectors(BoringModel)), scheduler="StepLR"),
    Case(
        "ManualOptimBoringModel", "lightning", given(with_vectors(ManualOptimBoringModel)), manual=True,
        scheduler="StepLR",
    ),
    Case("DemoModel", "lightning", given(with_vectors(DemoModel))),
    Case("LightningTransformer", "lightning", given(with_text(LightningTransformer)), blocks=4),
    Case("LightningLSTM", "lightning", given(with_text(LightningLSTM))),
]  # fmt: skip
