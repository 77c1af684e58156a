"""Files of torch.save, whole and damaged: every damage to what they hold is found."""

import io
import os
import pickle
import random
import zipfile

import pytest
import torch

from lightning_llmopt.checkpoints.archives import Stretch, examine

from saves import flip, record_bytes

PLACES = 200


def errors(file):
    return [finding.text for finding in examine(file).findings if finding.level == "error"]


def test_a_file_of_torch_save_is_whole_and_read(tmp_path):
    torch.save({"step": 3, "w": torch.ones(5), "half": torch.ones(3, dtype=torch.bfloat16)}, tmp_path / "a.pt")
    archive = examine(tmp_path / "a.pt")
    assert archive.findings == ()
    assert archive.pickled.value["step"] == 3
    assert [identity[4] for identity in archive.pickled.persistent] == [5, 3]


@pytest.mark.parametrize("share", [place / 64 for place in range(64)])
def test_a_file_that_was_cut_short_anywhere_is_found(saved, share):
    file = saved("one")
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    (fault,) = errors(file)
    assert "cut short while it was written" in fault if share else fault == "is empty"


@pytest.mark.parametrize("missing", [1, 2, 21, 22, 23, 100])
def test_a_file_that_lacks_its_last_bytes_is_found(saved, missing):
    file = saved("one")
    file.write_bytes(file.read_bytes()[:-missing])
    assert errors(file)


def test_one_bit_anywhere_in_a_record_is_found(saved):
    file = saved("one")
    places = [place for record in record_bytes(file) for place in record]
    whole = file.read_bytes()
    assert errors(file) == []
    for place in random.Random(0).sample(places, PLACES):
        flip(file, place)
        (fault, *_) = errors(file)
        assert "is damaged (Bad CRC-32" in fault
        file.write_bytes(whole)


def test_one_bit_anywhere_at_all_leads_to_a_finding_or_to_the_same_contents(saved):
    file = saved("one")
    whole, before = file.read_bytes(), examine(file)
    draw = random.Random(1)
    directory = whole.rindex(b"PK\x01\x02", 0, len(whole)) - 2_000
    for place in [draw.randrange(len(whole)) for _ in range(60)] + [
        draw.randrange(directory, len(whole)) for _ in range(60)
    ]:
        flip(file, place)
        after = examine(file)
        assert after.findings or (after.records, after.size) == (before.records, before.size)
        file.write_bytes(whole)


def test_a_storage_that_is_not_there_is_missed(tmp_path):
    torch.save({"w": torch.ones(5), "v": torch.zeros(7)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as old, zipfile.ZipFile(tmp_path / "b.pt", "w") as new:
        for entry in old.infolist():
            if not entry.filename.endswith("data/1"):
                new.writestr(entry.filename, old.read(entry)[: -4 if entry.filename.endswith("data/0") else None])
    assert errors(tmp_path / "b.pt") == [
        "record 'a/data/0' has 16 bytes, and its tensor needs 20",
        "record 'a/data/1' of a tensor is missing or damaged",
    ]


class Evil:
    def __reduce__(self):
        return os.mkdir, ("made",)


def zipped(file, *records, how=zipfile.ZIP_STORED):
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, content in records:
            archive.writestr(name, content)
    return file


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("records", "how", "message"),
    [
        (
            [("a/data.pkl", b"N."), ("a/data.pkl", b"K\x01.")],
            zipfile.ZIP_STORED,
            "two records of one name, 'a/data.pkl'",
        ),
        ([("a/data.pkl", b"N."), ("b/data.pkl", b"N.")], zipfile.ZIP_STORED, "must hold one data.pkl, and holds 2"),
        ([("a/other", b"N.")], zipfile.ZIP_STORED, "must hold one data.pkl, and holds 0"),
        ([("a/data.pkl", b"N." * 99)], zipfile.ZIP_DEFLATED, "is compressed, which torch.save never does"),
        ([("a/data.pkl", b"e.")], zipfile.ZIP_STORED, "a/data.pkl: pickle is damaged"),
        ([("a/data.pkl", b"K\x01Q.")], zipfile.ZIP_STORED, "asks for something that is no storage of torch"),
    ],
)
def test_odd_archives_are_faults(tmp_path, records, how, message):
    assert message in errors(zipped(tmp_path / "a.pt", *records, how=how))[0]


def test_a_file_without_checksums_is_told_and_read_all_the_same(tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"step": 3, "w": torch.ones(5)}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    archive = examine(tmp_path / "a.pt")
    assert [finding.level for finding in archive.findings] == ["warning"]
    assert "has no checksums" in archive.findings[0].text
    assert archive.pickled.value["step"] == 3
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:-1])
    assert errors(tmp_path / "a.pt")


def test_other_files_are_told_apart(tmp_path):
    file = tmp_path / "a.pt"
    file.write_bytes(b"hello")
    assert errors(file) == ["is no file of torch.save (File is not a zip file); 5 bytes are there"]
    file.write_bytes((16).to_bytes(8, "little") + b'{"__metadata__":{}}')
    assert errors(file) == [
        "is a file of safetensors: weights alone, without checksums, which doctor does not check; 27 bytes are there"
    ]
    torch.save({"a": 1}, file, _use_new_zipfile_serialization=False)
    assert "is in torch's old format, which has no checksums" in errors(file)[0]


def test_nothing_of_a_malicious_file_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    archive = examine(zipped(tmp_path / "a.pt", ("a/data.pkl", pickle.dumps(Evil()))))
    assert archive.pickled.globals == ("posix.mkdir",)
    assert not (tmp_path / "made").exists()


def test_a_stretch_is_a_file_of_its_own():
    stretch = Stretch(io.BytesIO(b"0123456789"), start=2, length=5)
    assert (stretch.read(3), stretch.tell(), stretch.read()) == (b"234", 3, b"56")
    assert (stretch.seek(-2, 2), stretch.read(9), stretch.read(1)) == (3, b"56", b"")
    with pytest.raises(OSError, match="before the beginning"):
        stretch.seek(-1)
