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


def _loggers():
    names = ("lightning", "lightning.pytorch", "lightning.pytorch.utilities.rank_zero")
    return [logging.getLogger(name) for name in names]


@pytest.fixture(scope="session", autouse=True)
def _loggers_at_first():
    import lightning.pytorch  # noqa: F401 - which sets its loggers up

    return [(logger.level, list(logger.filters), list(logger.handlers)) for logger in _loggers()]


@pytest.fixture(autouse=True)
def _loggers_as_at_first(_loggers_at_first):
    """Examples and benchmarks run in this process silence Lightning for good, and what is quiet prints less."""
    logging.disable(logging.NOTSET)
    for logger, (level, filters, handlers) in zip(_loggers(), _loggers_at_first, strict=True):
        logger.setLevel(level)
        logger.filters[:], logger.handlers[:] = filters, handlers
