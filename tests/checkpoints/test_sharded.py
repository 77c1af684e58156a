"""Sharded checkpoints of FSDP and FSDP2: nothing that is missing or damaged goes unseen, and nothing is run."""

import os
import pickle
import random
import zipfile

import pytest

from lightning_llmopt.checkpoints import diagnose
from lightning_llmopt.checkpoints.pickles import read_pickle

from saves import flip, record_bytes

both = pytest.mark.parametrize("name", ["fsdp2", "fsdp"])


def faults(folder):
    return [finding.text for finding in diagnose(folder).faults]


@both
def test_a_whole_one_is_told(saved, name):
    found = diagnose(saved(name))
    assert found.ok
    assert found.kind == "sharded checkpoint"
    assert (found.contents.step, found.contents.callbacks) == (6, ("LRSchedule", "SkipBadSteps"))
    assert found.contents.schedule[0].startswith(
        "LRSchedule: in 'decay', after 6 updates of a run of 10 updates, next at 0.003;"
    )
    assert [str(finding) for finding in found.findings] == ["ok       2 of 2 shards are whole"]


@both
@pytest.mark.parametrize("rank", [0, 1])
def test_a_missing_shard_is_named(saved, name, rank):
    folder = saved(name)
    (folder / f"__{rank}_0.distcp").unlink()
    (fault,) = faults(folder)
    assert f"shard __{rank}_0.distcp is missing, with " in fault
    assert "1 of 2 shards are whole" in str(diagnose(folder))


def test_a_save_that_was_broken_off_lacks_its_metadata(saved):
    folder = saved("fsdp2")
    (folder / ".metadata").unlink()
    (fault,) = faults(folder)
    assert fault.startswith("has no .metadata: the save was broken off before its end")
    (folder / "meta.pt").unlink()
    assert diagnose(folder).kind == "sharded checkpoint"


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.5, 0.99, 1])
def test_a_shard_that_was_cut_short_is_found(saved, share):
    file = saved("fsdp2") / "__1_0.distcp"
    content = file.read_bytes()
    file.write_bytes(content[: min(int(len(content) * share), len(content) - 1)])
    assert "shard __1_0.distcp was cut short: " in faults(file.parent)[0]


def test_one_bit_anywhere_in_a_shard_is_found(saved):
    folder = saved("fsdp2")
    file = folder / "__0_0.distcp"
    pieces = [
        entry.state for entry in read_pickle((folder / ".metadata").read_bytes()).value.state["storage_data"].values()
    ]
    inside = [
        place
        for piece in pieces
        if piece["relative_path"] == file.name
        for record in record_bytes(file, piece["offset"], piece["length"])
        for place in record
    ]
    whole = file.read_bytes()
    for place in random.Random(0).sample(inside, 20):
        flip(file, place)
        (fault, *_) = faults(folder)
        assert "is damaged (Bad CRC-32" in fault
        file.write_bytes(whole)
    assert faults(folder) == []


def test_one_bit_in_what_lies_beside_is_found(saved):
    folder = saved("fsdp2")
    flip(folder / "meta.pt", record_bytes(folder / "meta.pt")[0][5])
    assert "meta.pt record 'meta/data.pkl': is damaged (Bad CRC-32" in faults(folder)[0]


class Evil:
    def __reduce__(self):
        return os.mkdir, ("made",)


def test_code_in_the_metadata_or_in_a_shard_is_named_and_not_run(saved, monkeypatch):
    folder = saved("fsdp2")
    monkeypatch.chdir(folder.parent)
    whole = (folder / ".metadata").read_bytes()
    (folder / ".metadata").write_bytes(pickle.dumps(Evil()))
    assert any("unpickling it would call posix.mkdir: code" in fault for fault in faults(folder))
    (folder / ".metadata").write_bytes(whole)
    with zipfile.ZipFile(folder / "meta.pt", "w") as archive:
        archive.writestr("meta/data.pkl", pickle.dumps({"epoch": Evil()}))
    assert any("unpickling it would call posix.mkdir: code" in fault for fault in faults(folder))
    assert not (folder.parent / "made").exists()


def test_metadata_that_lead_out_of_the_folder_are_not_followed(saved):
    folder = saved("fsdp2")
    content = (folder / ".metadata").read_bytes()
    (folder / ".metadata").write_bytes(content.replace(b"__0_0.distcp", b"../out.distc"))
    assert any("names a file outside the folder, '../out.distc'" in fault for fault in faults(folder))


def test_metadata_that_say_nothing_of_use_are_faults(saved):
    folder = saved("fsdp2")
    (folder / ".metadata").write_bytes(pickle.dumps({"a": 1}))
    assert faults(folder) == [".metadata does not say where anything is stored"]
    (folder / ".metadata").write_bytes(b"damaged")
    assert ".metadata: pickle is damaged" in faults(folder)[0]


def test_shards_of_another_save_are_told(saved):
    folder = saved("fsdp2")
    (folder / "__7_0.distcp").write_bytes(b"old")
    assert diagnose(folder).ok
    assert "__7_0.distcp: shards that .metadata does not know" in str(diagnose(folder))
