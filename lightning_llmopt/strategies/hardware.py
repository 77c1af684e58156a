"""What the hardware at hand is good at."""

import time

import torch


def bf16_is_fast(device: str | torch.device | None = None, *, size: int = 512) -> bool:
    """Whether matrix products are faster in bfloat16 than in single precision, by trying.

    Takes a few milliseconds: both are timed in turns and the medians compared. Some CPUs have bfloat16
    units and most do not, and no public flag tells them apart.

    Args:
        device: Where to try; by default the GPU if there is one, else the CPU.
        size: Width of the square matrices, >= 1.

    Returns:
        True if bfloat16 takes at most 0.8 of the time.

    Raises:
        ValueError: If ``size`` is no whole number >= 1.
    """
    if type(size) is not int or size < 1:
        raise ValueError(f"size must be a whole number >= 1, got {size!r}.")
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    operands = {dtype: torch.ones(size, size, device=place, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)}
    times: dict[torch.dtype, list[float]] = {dtype: [] for dtype in operands}
    for _ in range(9):
        for dtype, matrix in operands.items():
            times[dtype].append(_seconds(matrix))
    single, brain = (sorted(times[dtype][1:])[4] for dtype in operands)
    return brain <= 0.8 * single


def _seconds(matrix: torch.Tensor) -> float:
    """Time of one product, until its result is there."""
    start = time.perf_counter()
    float((matrix @ matrix)[0, 0])
    return time.perf_counter() - start
