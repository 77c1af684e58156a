"""Train the demo's GPT as a YAML file says: python examples/cli.py fit --config examples/configs/pretrain_wsd.yaml."""

from pathlib import Path

import numpy as np
import torch
from corpus import Corpus, ScoredWindows, read_corpus
from gpt import GPT, Batch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from lightning_llmopt.configs import LLMOptCLI


class Crops(Dataset[Batch]):
    """Places of a text drawn at random, the same ones whenever they are asked for.

    Args:
        text: Where to cut from.
        number: How many crops there are.
        seed: Another seed, other places.
    """

    def __init__(self, text: bytes, *, number: int, seed: int) -> None:
        self.text = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        self.places = np.random.default_rng(seed).integers(len(text) - GPT.CONTEXT, size=number)

    def __len__(self) -> int:
        """Number of crops."""
        return len(self.places)

    def __getitem__(self, index: int) -> Batch:
        """Bytes, and the byte that follows each."""
        crop = self.text[self.places[index] : self.places[index] + GPT.CONTEXT + 1].long()
        return crop[:-1], crop[1:]


class Plays(LightningDataModule):
    """Crops of a text for training, and its held-out part for validation.

    Args:
        text: File or folder to train on; by default the seven plays that come with the examples.
        batch: Crops in a batch, on each process.
        crops: Crops in an epoch.
        seed: Another seed, other crops.
    """

    def __init__(self, *, text: Path | None = None, batch: int = 16, crops: int = 16_000, seed: int = 0) -> None:
        super().__init__()
        self.text, self.batch, self.crops, self.seed = text, batch, crops, seed
        self.corpus: Corpus

    def setup(self, stage: str) -> None:
        """Read the text."""
        self.corpus = read_corpus(self.text, least_heldout=GPT.CONTEXT)

    def train_dataloader(self) -> DataLoader[Batch]:
        """All crops once an epoch; with several processes Lightning gives each a share of its own."""
        return DataLoader(Crops(self.corpus.train, number=self.crops, seed=self.seed), batch_size=self.batch)

    def val_dataloader(self) -> ScoredWindows:
        """The whole held-out part, on every process."""
        return ScoredWindows(self.corpus, context=GPT.CONTEXT)


if __name__ == "__main__":
    LLMOptCLI(GPT, Plays)
