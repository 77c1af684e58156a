"""``llmopt find-lr``: a range test of a module by its import path, or of a YAML file."""

import csv
import re
import subprocess
import sys

import pytest
import torch

from lightning_llmopt.callbacks import find_lr
from lightning_llmopt.cli import main

MINE = """
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch.utils.data import DataLoader, TensorDataset


class Model(LightningModule):
    def __init__(self, width: int = 8, lr: float = 0.01):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Tanh(), torch.nn.Linear(width, 1))
        self.lr = lr

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Flat(Model):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) * 0


class Data(LightningDataModule):
    def __init__(self, batch_size: int = 16):
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self):
        x = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(x, 2 * x[:, :1]), batch_size=self.batch_size)


def loader(batch_size=16):
    return Data(batch_size).train_dataloader()
"""
CONFIG = """
seed_everything: 3
trainer:
  accelerator: cpu
  max_steps: 50
  callbacks:
    - class_path: lightning_llmopt.callbacks.LayerwiseLRDecay
      init_args: {decay: 0.5, blocks: ["net.*"]}
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    return f"{tmp_path}/mine.py"


def suggestions(out):
    """Name and rate of each line."""
    return {name: float(rate) for name, rate in re.findall(r"^(steepest|third|tenth|edge) +(\S+) ", out, re.MULTILINE)}


def test_the_suggestions_are_those_of_find_lr(capsys, path, tmp_path):
    from lightning.pytorch import Trainer, seed_everything

    assert main(["find-lr", f"{path}:Model", "--data", f"{path}:Data", "--steps", "40", "--accelerator", "cpu"]) == 0
    out, err = capsys.readouterr()
    space = {}
    exec(MINE, space)
    seed_everything(0, verbose=False)
    model = space["Model"]()
    trainer = Trainer(
        max_steps=40, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    expected = find_lr(trainer, model, datamodule=space["Data"](), steps=40)
    assert suggestions(out) == {one.name: float(f"{one.rate:.3g}") for one in expected.suggestions.values()}
    assert max(map(len, out.splitlines())) <= 80
    assert not err


def test_options_reach_the_test(capsys, path, tmp_path):
    words = ["--data", f"{path}:loader", "--data-init", "batch_size=8", "--init", "lr=0.5", "--init", "width=3"]
    more = ["--steps", "20", "--from", "1e-3", "--to", "0.1", "--accelerator", "cpu"]
    status = main(["find-lr", f"{path}:Model", *words, *more, "--csv", f"{tmp_path}/rates.csv"])
    rows = list(csv.DictReader((tmp_path / "rates.csv").read_text().splitlines()))
    assert [float(rows[at]["rate"]) for at in (0, -1)] == [pytest.approx(0.5e-3), pytest.approx(0.05)]
    assert len(rows) == 20
    assert (status == 0) == ("steepest" in capsys.readouterr().out)


def test_a_picture_is_drawn(capsys, path, tmp_path):
    pytest.importorskip("matplotlib")
    words = ["--data", f"{path}:Data", "--accelerator", "cpu", "--png", f"{tmp_path}/rates.png"]
    assert main(["find-lr", f"{path}:Model", *words]) == 0
    assert f"Wrote {tmp_path}/rates.png." in capsys.readouterr().out
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")


def test_a_loss_that_never_falls_is_a_no(capsys, path):
    assert main(["find-lr", f"{path}:Flat", "--data", f"{path}:Data", "--steps", "20", "--accelerator", "cpu"]) == 1
    assert "No rate is suggested: the loss does not fall beyond its noise." in capsys.readouterr().out


def test_a_yaml_file_brings_trainer_and_callbacks(capsys, path, tmp_path, monkeypatch):
    pytest.importorskip("jsonargparse")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(CONFIG + "model: {width: 6}\nckpt_path: null\n")
    assert main(["find-lr", "mine.py:Model", "--data", "mine.py:Data", "--config", "run.yaml"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^group +base rate +steepest", out, re.MULTILINE)
    assert re.search(r"^block_0 +0.00125 ", out, re.MULTILINE)
    assert sorted(one.name for one in tmp_path.iterdir() if one.name != "__pycache__") == ["mine.py", "run.yaml"]


def test_a_yaml_file_may_name_everything(capsys, path, tmp_path, monkeypatch):
    pytest.importorskip("jsonargparse")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    named = "model: {class_path: mine.Model, init_args: {lr: 0.02}}\ndata: {class_path: mine.Data}\n"
    (tmp_path / "run.yaml").write_text("fit:" + (CONFIG + named).replace("\n", "\n  ") + "\n")
    assert main(["find-lr", "--config", "run.yaml", "--steps", "30"]) == 0
    assert re.search(r"^block_0 +0.0025 ", capsys.readouterr().out, re.MULTILINE)


def test_nothing_but_the_result_is_printed(path):
    words = ["find-lr", f"{path}:Model", "--data", f"{path}:Data", "--steps", "10", "--accelerator", "cpu"]
    found = subprocess.run([sys.executable, "-m", "lightning_llmopt.cli", *words], capture_output=True, text=True)
    assert found.stdout.startswith("Learning-rate range test: 10 points")
    assert not found.stderr


def test_the_logger_of_a_yaml_file_is_not_even_made(path, tmp_path, monkeypatch):
    pytest.importorskip("jsonargparse")
    monkeypatch.chdir(tmp_path)
    logger = "  logger: {class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: 3, name: [1]}}\n"
    (tmp_path / "run.yaml").write_text(CONFIG + logger)  # one that would be refused
    assert main(["find-lr", "mine.py:Model", "--data", "mine.py:Data", "--config", "run.yaml", "--steps", "10"]) in (
        0,
        1,
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "MODULE must be given, or --config FILE that names it."),
        (["{path}:Model"], "must be implemented to be used with the Lightning Trainer. Give --data."),
        (["{path}:Modl"], "has no 'Modl'. Did you mean Model?"),
        (["{path}:Data", "--data", "{path}:Data"], "MODULE must be a LightningModule or make one, got Data."),
        (["{path}:Model", "--data", "{path}:Data", "--data-init", "bach=3"], "--data-init KEY=VALUE gives arguments."),
        (["{path}:Model", "--from", "10", "--to", "1"], "--from must be below --to (1), got 10."),
        (["{path}:Model", "--steps", "3"], "--steps must be a whole number >= 10, got '3'."),
        (["{path}:Model", "--accelerator", "abacus"], "--accelerator 'abacus': "),
        (["--config", "{path}"], "is no YAML"),
        (["--config", "{folder}/run.yaml"], "does not name a model (model: class_path: ...): give MODULE as well"),
        (["{path}:Model", "--config", "{folder}/bad.yaml"], "max_stepz"),
    ],
)
def test_what_is_wrong_is_a_sentence(capsys, path, tmp_path, words, sentence):
    pytest.importorskip("jsonargparse")
    (tmp_path / "run.yaml").write_text(CONFIG)
    (tmp_path / "bad.yaml").write_text("trainer: {max_stepz: 3}")
    assert main(["find-lr", *(word.format(path=path, folder=tmp_path) for word in words)]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("llmopt: ")
    assert sentence in err
    assert err.count("\n") == 1
    assert not out
    assert torch.is_grad_enabled()
