"""Every file in examples/configs, run as its first lines say, at toy size."""

import os
import re
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import yaml

from ranks import on_ranks

EXAMPLES = Path(__file__).parents[2] / "examples"
CONFIGS = {file.stem: file for file in sorted((EXAMPLES / "configs").glob("*.yaml"))}
SEVERAL = {"ddp": 2, "fsdp2": 2}
TOY = [
    "--model.width=16", "--model.heads=2", "--data.batch=2", "--data.crops=160", "--trainer.max_steps=40",
    "--trainer.limit_val_batches=0", "--trainer.val_check_interval=1.0", "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]  # fmt: skip


def train(rank, name, folder, processes):
    """What the command does, in a process that has imported everything already; returns the last rates."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.chdir(folder)
    device = ["--trainer.accelerator=cpu", f"--trainer.devices={processes}", f"--trainer.default_root_dir={folder}"]
    sys.argv = ["examples/cli.py", "fit", f"--config={CONFIGS[name]}", *TOY, *device]
    sys.path.insert(0, str(EXAMPLES))
    example = runpy.run_path(str(EXAMPLES / "cli.py"))
    trainer = example["LLMOptCLI"](example["GPT"], example["Plays"]).trainer
    return trainer.global_step, [type(one).__name__ for one in trainer.callbacks]


@pytest.mark.parametrize("name", CONFIGS.keys() - {"zero"})
def test_every_file_trains(tmp_path, name):
    processes = SEVERAL.get(name, 1)
    wanted = [entry["class_path"] for entry in yaml.safe_load(CONFIGS[name].read_text())["trainer"]["callbacks"]]
    for steps, callbacks in on_ranks(processes, train, name, tmp_path, processes):
        assert steps == 40
        assert set(wanted) <= set(callbacks)
    assert list(tmp_path.rglob("*.ckpt"))


def command(name, *words, folder):
    line = re.search(r"python (examples/\S+ fit --config )", (EXAMPLES / "cli.py").read_text())[1].split()
    words = [sys.executable, *line, CONFIGS[name], f"--trainer.default_root_dir={folder}", *words]
    return subprocess.run(words, cwd=EXAMPLES.parent, capture_output=True, text=True, timeout=240, check=False)


def test_the_command_that_the_example_names_trains(tmp_path):
    done = command("pretrain_wsd", *TOY, "--trainer.accelerator=cpu", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "`Trainer.fit` stopped: `max_steps=40` reached." in done.stderr + done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there ZeRO runs")
def test_zero_is_refused_for_want_of_gpus_and_nothing_else(tmp_path):
    done = command("zero", *TOY, folder=tmp_path)
    assert done.returncode == 2
    assert "error: `CUDAAccelerator` can not run on your system" in done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_zero_trains_on_gpus(tmp_path):
    done = command("zero", *TOY, "--trainer.devices=1", folder=tmp_path)
    assert done.returncode == 0, done.stderr


def test_every_file_begins_with_what_it_is_for():
    assert all(file.read_text().startswith("# ") for file in CONFIGS.values())


def test_clashes_that_only_the_run_finds_out_are_sentences_too(tmp_path):
    done = command("continued_pretraining", *TOY, "--trainer.max_steps=4", "--trainer.accelerator=cpu", folder=tmp_path)
    assert done.returncode == 2
    assert "error: LRSchedule: rewarm does not fit into the run: warmup 10 = 10 updates" in done.stderr
    assert "Traceback" not in done.stderr
