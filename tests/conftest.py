"""What every test stands on: one thread, no network, and a fit through a real Trainer."""

import logging
import os
import signal

os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")

import pytest
import torch

torch.set_num_threads(1)  # a fork after a multi-threaded OpenMP region hangs


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))


@pytest.fixture(autouse=True)
def _time_limit():
    """A test that hangs fails instead of stopping the whole run."""

    def fail(signum, frame):
        raise TimeoutError("the test took more than 150 seconds")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(150)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def _levels_of_loggers():
    """Examples and benchmarks run in this process silence Lightning for good, and what is quiet prints less."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero")]
    before = [(logger.level, list(logger.filters), list(logger.handlers)) for logger in loggers]
    disabled = logging.root.manager.disable
    yield
    logging.disable(disabled)
    for logger, (level, filters, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.filters[:], logger.handlers[:] = filters, handlers
