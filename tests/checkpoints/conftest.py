"""Checkpoints of real runs, made once and copied by the tests that damage them."""

import functools
import shutil

import pytest

from doubles import deepspeed_is_here
from saves import save


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """Of a strategy, the checkpoint that its Trainer wrote."""
    return functools.cache(lambda name: save(tmp_path_factory.mktemp(name), name))


@pytest.fixture
def saved(written, tmp_path):
    """The same as a copy, to be damaged."""

    def copy(name):
        if "zero" in name and not deepspeed_is_here():
            pytest.skip("deepspeed is not installed: pip install 'lightning-llmopt[deepspeed]'")
        source, target = written(name), tmp_path / f"{name}.ckpt"
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
        return target

    return copy
