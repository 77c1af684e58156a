"""How well simpler means predict a text: what a language model has to beat.

All in bits per byte of the held-out text; less is better.
"""

import lzma

import numpy as np

UNIFORM = 8.0  # bits of a byte, by definition
SMOOTHING = 0.1  # added to every count, so that a pair never seen in training is unlikely and not impossible
LEAST_DICTIONARY = 1 << 12  # [bytes]; the format has no smaller one
MOST_DICTIONARY = 1 << 26  # [bytes]; what `xz -9` uses, about 0.7 GB of memory


def unigram(train: bytes, heldout: bytes) -> float:
    """Bits per byte if each byte is guessed by how frequent it is in ``train``."""
    counts = np.bincount(_numbers(train), minlength=256) + SMOOTHING
    return float(-np.log2(counts / counts.sum())[_numbers(heldout)].mean())


def bigram(train: bytes, heldout: bytes) -> float:
    """Bits per byte if each byte is guessed from the one before it, by counting pairs in ``train``."""
    counts = np.full((256, 256), SMOOTHING)
    numbers = _numbers(train)
    np.add.at(counts, (numbers[:-1], numbers[1:]), 1)
    bits = -np.log2(counts / counts.sum(axis=1, keepdims=True))
    scored = _numbers(train[-1:] + heldout)
    return float(bits[scored[:-1], scored[1:]].mean())


def xz_alone(heldout: bytes) -> float:
    """Bits per byte of ``heldout`` packed by xz."""
    return 8 * _packed_size(heldout) / len(heldout)


def xz_after(train: bytes, heldout: bytes) -> float:
    """Bits per byte that ``heldout`` adds if xz has packed ``train`` before it in the same stream."""
    return 8 * (_packed_size(train + heldout) - _packed_size(train)) / len(heldout)


def _packed_size(text: bytes) -> int:
    """Size after xz at its strongest, with a dictionary that holds the whole text [bytes]."""
    dictionary = min(max(LEAST_DICTIONARY, len(text)), MOST_DICTIONARY)
    chain = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": dictionary}]
    return len(lzma.compress(text, format=lzma.FORMAT_XZ, filters=chain))


def _numbers(text: bytes) -> np.ndarray:
    return np.frombuffer(text, dtype=np.uint8)
