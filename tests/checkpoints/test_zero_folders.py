"""Checkpoints of DeepSpeed: a file for every rank, whole, where ``latest`` says."""

import pytest

from lightning_llmopt.checkpoints import diagnose

from saves import flip, record_bytes

both = pytest.mark.parametrize("name", ["zero2", "zero3"])


def faults(folder):
    return [finding.text for finding in diagnose(folder).faults]


@both
def test_a_whole_one_is_told(saved, name):
    found = diagnose(saved(name))
    assert found.ok
    assert found.kind == "DeepSpeed checkpoint"
    assert (found.contents.step, found.contents.callbacks) == (6, ("LRSchedule", "SkipBadSteps"))
    assert found.contents.schedule[0].startswith("LRSchedule: in 'decay', after 6 updates of a run of 10 updates")
    files = {"zero2": 1, "zero3": 2}[name]
    assert [finding.text for finding in found.findings] == [
        f"looked at {files} files of model states and 2 of optimizer states"
    ]


@both
def test_a_rank_that_is_missing_is_named(saved, name):
    folder = saved(name)
    (folder / "checkpoint" / "zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    assert faults(folder) == ["optimizer states of rank 1 are missing: 2 x 1 processes wrote it"]


def test_model_states_of_a_rank_are_missed(saved):
    folder = saved("zero3")
    (folder / "checkpoint" / "zero_pp_rank_0_mp_rank_00_model_states.pt").unlink()
    assert faults(folder) == ["model states of rank 0 are missing: 2 x 1 processes wrote it"]
    folder = saved("zero2")
    (folder / "checkpoint" / "mp_rank_00_model_states.pt").unlink()
    assert faults(folder) == ["does not tell how many processes wrote it: no model states can be read"]


@both
def test_damage_is_found_in_every_file(saved, name):
    folder = saved(name)
    for file in sorted((folder / "checkpoint").iterdir()):
        whole = file.read_bytes()
        flip(file, record_bytes(file)[-1][0])
        assert any(file.name in fault and "is damaged" in fault for fault in faults(folder))
        file.write_bytes(whole[: len(whole) // 2])
        assert any(file.name in fault and "cut short" in fault for fault in faults(folder))
        file.write_bytes(whole)
    assert faults(folder) == []


@pytest.mark.parametrize(
    ("latest", "fault"),
    [
        ("elsewhere", "latest names 'elsewhere', and there is no such folder"),
        ("../other", "latest must name a folder beside it, got '../other'"),
        ("", "latest must name a folder beside it, got ''"),
        (None, "has no readable file latest, which says which of its folders counts"),
    ],
)
def test_latest_must_lead_to_a_folder(saved, latest, fault):
    folder = saved("zero2")
    (folder / "latest").unlink()
    if latest is not None:
        (folder / "latest").write_text(latest)
    assert faults(folder) == [fault]


def test_files_of_an_older_save_with_more_processes_are_told(saved):
    folder = saved("zero2")
    inner = folder / "checkpoint"
    first = inner / "zero_pp_rank_0_mp_rank_00_optim_states.pt"
    (inner / "zero_pp_rank_2_mp_rank_00_optim_states.pt").write_bytes(first.read_bytes())
    assert diagnose(folder).ok
    assert "has optimizer states of 1 ranks more than wrote it" in str(diagnose(folder))
