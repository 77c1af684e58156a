"""All fits of a strategy in its own processes, and how far they are from one process that holds everything."""

import logging
import multiprocessing
import os
import queue
import socket
import sys
import tempfile
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ._doubles import deepspeed_is_here
from ._fits import UPDATES, Found, fit
from ._models import MODELS
from ._places import PLACES

WINDOWS = (1, 3)  # accumulate_grad_batches
QUANTITIES = ("total", "clipped", "each tensor", "weights")

Cells = dict[tuple[str, int], Found]


def run(name: str | None, *, timeout: float = 300.0) -> list[Cells]:
    """The fits of both models and windows, one answer a rank.

    Args:
        name: A key of ``PLACES``; ``None`` for one process that holds everything.
        timeout: When to give up [s].

    Raises:
        RuntimeError: If a rank fails, with its traceback, or does not answer in time.
    """
    ranks = 1 if name is None else PLACES[name].ranks
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    answers, port = context.Queue(), _free_port()
    processes = [context.Process(target=_rank, args=(rank, ranks, port, name, answers)) for rank in range(ranks)]
    for process in processes:
        process.start()
    try:
        found = dict(answers.get(timeout=timeout) for _ in processes)
    except queue.Empty:
        raise RuntimeError(f"{name}: the ranks did not answer within {timeout:.0f} s.") from None
    finally:
        for process in processes:
            process.join(5)
            process.kill()
    failures = [answer for answer in found.values() if isinstance(answer, str)]
    if failures:
        raise RuntimeError("\n".join(failures))
    return [found[rank] for rank in range(ranks)]


def errors(found: list[Cells], truth: Cells) -> dict[str, float]:
    """The largest relative error of each quantity over models, windows, updates and ranks."""
    worst = dict.fromkeys(QUANTITIES, 0.0)
    for key, expected in truth.items():
        for rank, cells in enumerate(found):
            mine = cells[key]
            worst["each tensor"] = max(worst["each tensor"], _of_updates(mine.norms, expected.norms))
            worst["weights"] = max(worst["weights"], _of_weights(mine.weights, expected.weights))
            for quantity in QUANTITIES[:2] if rank == 0 else ():
                tag = f"grad_norm/{quantity}"
                worst[quantity] = max(worst[quantity], _of_numbers(mine.points.get(tag, {}), expected.points[tag]))
    return worst


def _rank(rank: int, ranks: int, port: int, name: str | None, answers: Any) -> None:
    """One process: train and answer."""
    rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": ranks, "NODE_RANK": 0}
    os.environ.update({key: str(value) for key, value in {**rendezvous, "RANK": rank, "LOCAL_RANK": rank}.items()})
    torch.set_num_threads(1)
    _be_quiet()
    place = None if name is None else PLACES[name]
    if place is not None and place.divides_twice:
        deepspeed_is_here()
    try:
        with tempfile.TemporaryDirectory() as folder:
            cells = {
                (model, window): fit(Path(folder), model, accumulate=window, place=place, rank=rank)
                for model in MODELS
                for window in WINDOWS
            }
        answers.put((rank, cells))
    except BaseException:  # noqa: BLE001 - reported by the parent
        answers.put((rank, f"{name}, rank {rank}:\n{traceback.format_exc()}"))


def _be_quiet() -> None:
    """Keep out of the table what Lightning, DeepSpeed and torch's C++ say; errors go to the parent as text."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def _of_updates(found: list[dict[str, float]], expected: list[dict[str, float]]) -> float:
    if len(found) != UPDATES:
        return float("inf")
    return max(_of_numbers(mine, theirs) for mine, theirs in zip(found, expected, strict=True))


def _of_numbers(found: Mapping[Any, float], expected: Mapping[Any, float]) -> float:
    """Largest relative error of numbers under the same names; infinite if the names differ."""
    if found.keys() != expected.keys():
        return float("inf")
    return max(abs(found[key] - there) / abs(there) if there else abs(found[key]) for key, there in expected.items())


def _of_weights(found: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    """Largest error of any weight, relative to the largest of its tensor; infinite if the names differ."""
    if found.keys() != expected.keys():
        return float("inf")
    return max(
        float(abs(found[key] - there).max() / abs(there).max()) for key, there in expected.items() if there.any()
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
