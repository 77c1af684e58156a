"""A path goes in, a diagnosis comes out: files, folders of every kind, and runs with what is left in them."""

import os
import pickle
import shutil
import subprocess
import sys
import zipfile

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_llmopt.callbacks import LRSchedule
from lightning_llmopt.checkpoints import diagnose
from lightning_llmopt.schedules import wsd

from fitting import Regression, loader, trainer


@pytest.mark.parametrize("name", ["one", "ddp"])
def test_a_file_of_a_trainer_is_whole_and_told(saved, name):
    file = saved(name)
    found = diagnose(file)
    assert found.ok
    lines = str(found).splitlines()
    assert lines[0] == f"{file}: checkpoint, no faults"
    told = torch.load(file, weights_only=True)
    version = told["pytorch-lightning_version"]
    assert lines[1] == f"  at update {told['global_step']}, epoch {told['epoch']}, written by Lightning {version}"
    assert lines[2] == "  state of: LRSchedule, SkipBadSteps"
    assert lines[3].startswith("  LRSchedule: in 'decay', after 6 updates of a run of 10 updates, next at 0.003;")
    assert lines[4].endswith("bytes: all checksums are right")


class Evil:
    def __reduce__(self):
        return os.system, ("touch made",)


def test_a_malicious_file_is_named_and_not_executed(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, planted = saved("one"), tmp_path / "planted.ckpt"
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(planted, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith("data.pkl"):
                content = pickle.dumps({"global_step": 6, "pytorch-lightning_version": "2.6.6", "callbacks": Evil()})
            new.writestr(entry.filename, content)
    found = diagnose(planted)
    assert not found.ok
    assert f"unpickling it would call {os.system.__module__}.system: code, which no checkpoint needs" in str(found)
    assert found.contents.step == 6
    assert not (tmp_path / "made").exists()
    torch.load(planted, weights_only=False)  # what it would have done
    assert (tmp_path / "made").exists()


def test_other_files_of_torch_save_are_fine_and_unknown_classes_are_warned_of(tmp_path):
    torch.save({"w": torch.ones(3)}, tmp_path / "a.pt")
    assert (diagnose(tmp_path / "a.pt").ok, diagnose(tmp_path / "a.pt").kind) == (True, "file of torch.save")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "b.pt")
    found = diagnose(tmp_path / "b.pt")
    assert found.ok
    assert "warning  unpickling it would import torch.nn.modules.linear.Linear" in str(found)


def test_nothing_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is nothing at '.*nowhere.ckpt'"):
        diagnose(tmp_path / "nowhere.ckpt")


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    logger = TensorBoardLogger(folder, name="logs", version="")
    saves = ModelCheckpoint(folder / "checkpoints", save_top_k=-1, every_n_train_steps=2)
    trainer(
        folder, LRSchedule(wsd(warmup=2, decay=2)), saves, enable_checkpointing=True, max_steps=6, logger=logger
    ).fit(Regression(), loader())
    return folder


def test_a_run_is_told_with_all_its_checkpoints(run):
    found = diagnose(run)
    assert found.ok
    assert found.kind == "folder of a run"
    assert [part.contents.step for part in found.parts] == [2, 4, 6]
    text = str(found)
    assert "3 of 3 checkpoints are whole" in text
    assert "the newest to go on from: " in text
    assert "step=6.ckpt, update 6" in text
    assert "hyperparameters: " in text
    assert "1 file of TensorBoard events" in text


def test_a_run_with_one_broken_checkpoint_goes_on_from_the_one_before(run):
    (last,) = run.rglob("*step=6.ckpt")
    last.write_bytes(last.read_bytes()[:1000])
    found = diagnose(run)
    assert not found.ok
    assert "2 of 3 checkpoints are whole" in str(found)
    assert "step=4.ckpt, update 4" in str(found)


def test_what_was_left_behind_is_told(run):
    (run / "ANNEAL").touch()
    (run / "checkpoints" / "last.ckpt.tmp").write_bytes(b"half")
    (run / "logs" / "events.out.tfevents.1.host").touch()
    text = str(diagnose(run))
    assert diagnose(run).ok
    assert f"{run / 'ANNEAL'} is there: a run that goes on here will come to its end at once" in text
    assert "last.ckpt.tmp was left behind by a save that was broken off" in text
    assert "is empty: the run ended before it logged anything" in text


def test_folders_of_every_kind_within_a_run_are_one_checkpoint_each(run, saved):
    shutil.move(saved("fsdp2"), run / "checkpoints" / "sharded.ckpt")
    kinds = [part.kind for part in diagnose(run).parts]
    assert kinds == ["checkpoint"] * 3 + ["sharded checkpoint"]


def test_an_empty_folder_is_warned_of(tmp_path):
    assert diagnose(tmp_path).ok
    assert "no checkpoint in it" in str(diagnose(tmp_path))


def test_nothing_of_torch_is_imported():
    code = "import lightning_llmopt.checkpoints, sys; print({'torch', 'lightning', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
