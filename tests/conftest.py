"""What every test stands on: one thread, no network, and a fit through a real Trainer."""

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
