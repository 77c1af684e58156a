"""Text for a byte-level model: read from files, split, cut into batches."""

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from gpt import IGNORED, Batch

SHAKESPEARE = Path(__file__).parent / "data" / "shakespeare"
UNREADABLE = (OSError, EOFError, zlib.error)  # what a broken or forbidden file raises, packed or not


@dataclass(frozen=True)
class Corpus:
    """A text in two parts.

    Attributes:
        train: First nine tenths of every file, one after the other.
        heldout: Last tenth of every file, one after the other.
        files: Number of files.
    """

    train: bytes
    heldout: bytes
    files: int


def read_corpus(path: Path | None, *, least_heldout: int) -> Corpus:
    """Read a file, every text file below a folder, or by default the seven plays.

    Args:
        path: File or folder, ``.gz`` or not; ``None`` for the plays that come with the example.
        least_heldout: How long the held-out part must be [bytes].

    Raises:
        ValueError: If there is nothing at ``path``, nothing readable in it, or too little of it.
    """
    texts = [read(file) for file in sorted(SHAKESPEARE.glob("*.txt.gz"))] if path is None else _texts_at(path)
    cuts = [len(text) - len(text) // 10 for text in texts]
    corpus = Corpus(
        train=b"".join(text[:cut] for text, cut in zip(texts, cuts, strict=True)),
        heldout=b"".join(text[cut:] for text, cut in zip(texts, cuts, strict=True)),
        files=len(texts),
    )
    if len(corpus.heldout) < least_heldout:
        raise ValueError(
            f"--text must hold at least {10 * least_heldout} bytes, since the last tenth of each file is held out "
            f"and {least_heldout} are needed there; got {len(corpus.train) + len(corpus.heldout)} in {path}."
        )
    return corpus


def read(file: Path) -> bytes:
    """Content of a file, unpacked if its name ends in ``.gz``."""
    content = file.read_bytes()
    return gzip.decompress(content) if file.suffix == ".gz" else content


def _texts_at(path: Path) -> list[bytes]:
    if not path.exists():
        raise ValueError(f"--text must be a file or folder that exists, got {path}.")
    if path.is_file():
        try:
            return [read(path)]
        except UNREADABLE as error:
            raise ValueError(f"--text must be a readable file, got {path}: {error}.") from None
    texts = list(_texts_below(path))
    if not texts:
        raise ValueError(f"--text must hold at least one readable text file, found none in {path}.")
    return texts


def _texts_below(folder: Path) -> Iterator[bytes]:
    """Every text below ``folder``; hidden, broken and binary files are passed over."""
    for file in sorted(folder.rglob("*")):
        if any(part.startswith(".") for part in file.relative_to(folder).parts) or not file.is_file():
            continue
        try:
            text = read(file)
        except UNREADABLE:
            continue
        if text and b"\0" not in text:
            yield text


class RandomCrops:
    """Batches cut from random places of a text, one for each update of a run.

    Batch ``u`` depends on ``(seed, u)`` alone. Lightning saves ``state_dict`` with every checkpoint and
    gives it back on resume, so that a resumed run goes on with the very bytes it would have seen.

    Args:
        text: Where to cut from, longer than ``context``.
        context: Length of a crop [bytes].
        batch: Crops in a batch.
        updates: Number of batches.
        seed: Another seed, other places.
    """

    def __init__(self, text: bytes, *, context: int, batch: int, updates: int, seed: int) -> None:
        self.text = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        self.span = torch.arange(context + 1)
        self.batch = batch
        self.updates = updates
        self.seed = seed
        self.update = 0

    def __len__(self) -> int:
        """Number of batches in the run."""
        return self.updates

    def __iter__(self) -> Iterator[Batch]:
        """Batches from the current update on."""
        while self.update < self.updates:
            self.update += 1
            yield self.crops(self.update - 1)

    def crops(self, update: int) -> Batch:
        """Bytes and the byte that follows each, both of shape ``(batch, context)``."""
        draw = np.random.default_rng((self.seed, update))
        places = draw.integers(len(self.text) - len(self.span) + 1, size=self.batch)
        crops = self.text[torch.from_numpy(places)[:, None] + self.span].long()
        return crops[:, :-1], crops[:, 1:]

    def state_dict(self) -> dict[str, int]:
        """Number of the next batch."""
        return {"update": self.update}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on with the batch that ``state`` names."""
        self.update = state["update"]


class ScoredWindows:
    """Batches that score every held-out byte once, each with at least half a context before it.

    A window slides on by half its length, and only its new half is scored: the other targets are
    ``IGNORED``. The first window begins with the end of the training text.

    Args:
        corpus: Whose held-out text to cut.
        context: Length of a window [bytes], even.
        batch: Windows in a batch.
    """

    def __init__(self, corpus: Corpus, *, context: int, batch: int = 64) -> None:
        text = torch.frombuffer(bytearray(corpus.train[-context:] + corpus.heldout), dtype=torch.uint8).long()
        half, total = context // 2, len(corpus.heldout)
        ends = [min(begin + half, total) for begin in range(0, total, half)]
        inputs = torch.stack([text[end - 1 : end - 1 + context] for end in ends])
        targets = torch.stack([text[end : end + context] for end in ends])
        targets[:, :half] = IGNORED
        targets[-1, : context - (total - half * (len(ends) - 1))] = IGNORED  # the last one may have less that is new
        self.batches = list(zip(torch.split(inputs, batch), torch.split(targets, batch), strict=True))

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        """Bytes and the byte that follows each, both of shape ``(<= batch, context)``."""
        return iter(self.batches)
