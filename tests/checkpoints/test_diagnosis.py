"""How findings are told."""

import pytest

from lightning_llmopt.checkpoints.diagnosis import Contents, Diagnosis, Finding


def test_only_errors_are_faults_and_those_of_parts_count():
    part = Diagnosis("b", "checkpoint", (Finding("error", "cut short"),))
    whole = Diagnosis("a", "folder of a run", (Finding("warning", "odd"), Finding("note", "fine")))
    assert whole.ok
    assert not part.ok
    both = Diagnosis("a", "folder of a run", whole.findings, parts=(whole, part))
    assert [str(fault) for fault in both.faults] == ["error    cut short"]


def test_the_text_has_all_of_it_in_order():
    contents = Contents(6, 1, "2.6.6", ("LRSchedule", "Own{'every': None, 'cut o"), ("LRSchedule: in 'decay'",))
    text = str(Diagnosis("a.ckpt", "checkpoint", (Finding("ok", "good"),), contents))
    assert text.splitlines() == [
        "a.ckpt: checkpoint, no faults",
        "  at update 6, epoch 1, written by Lightning 2.6.6",
        "  state of: LRSchedule, Own",
        "  LRSchedule: in 'decay'",
        "  ok       good",
    ]


def test_names_from_a_file_cannot_steer_the_terminal():
    text = str(Diagnosis("a", "checkpoint", (Finding("note", "\x1b[2Jgone\r"),)))
    assert "\x1b" not in text
    assert text.endswith("\\x1b[2Jgone\\x0d")


def test_a_level_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"level must be one of \['ok', .*\], got 'bad'"):
        Finding("bad", "")
