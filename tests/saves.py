"""Real checkpoints of a small run, for tests that take them apart."""

import io
import struct
import warnings
import zipfile

import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_llmopt.callbacks import GradientNormClip, LRSchedule, SkipBadSteps
from lightning_llmopt.schedules import wsd

from curves import LENGTH, WORDS, Encoder, arguments
from fitting import trainer
from ranks import on_ranks

RANKS = {"one": 1, "ddp": 2, "fsdp": 2, "fsdp2": 2, "zero2": 2, "zero3": 2}
UPDATES, TOTAL = 6, 10


def _fit(rank, name, folder):
    warnings.simplefilter("ignore")
    text = torch.randint(WORDS, (48, LENGTH + 1), generator=torch.Generator().manual_seed(0))
    where = {} if name == "one" else arguments(name, "Encoder")
    callbacks = [LRSchedule(wsd(warmup=2, decay=4), total=TOTAL), GradientNormClip(1.0), SkipBadSteps()]
    run = trainer(folder, *callbacks, **{**where, "devices": RANKS[name], "max_steps": UPDATES})
    run.fit(Encoder(layers=1), DataLoader(TensorDataset(text[:, :-1], text[:, 1:]), batch_size=4))
    run.save_checkpoint(folder / "run.ckpt")


def save(folder, name):
    """Path of a checkpoint that a real Trainer has written there, after 6 of 10 updates, under that strategy."""
    on_ranks(RANKS[name], _fit, name, folder)
    return folder / "run.ckpt"


def record_bytes(file, start=0, length=None):
    """Places of every byte of every record's data in an archive of ``torch.save`` that begins at ``start``."""
    content = file.read_bytes()[start : None if length is None else start + length]
    places = []
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in archive.infolist():
            name, extra = struct.unpack_from("<HH", content, entry.header_offset + 26)
            begin = start + entry.header_offset + 30 + name + extra
            places.append(range(begin, begin + entry.file_size))
    return places


def flip(file, place):
    """Turn one bit round, and say which."""
    content = bytearray(file.read_bytes())
    content[place] ^= 1 << (place % 8)
    file.write_bytes(content)
