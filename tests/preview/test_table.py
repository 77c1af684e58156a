import csv

import pytest

from lightning_llmopt.preview import preview
from lightning_llmopt.schedules import cosine, wsd


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_number_reads_back_to_the_same_bits(tmp_path):
    spec, total_steps = cosine(warmup="7%", floor=0.1), 12_345
    schedule, groups = spec.resolve(total_steps=total_steps), {"decay": 3e-4, "no, decay": 1 / 3}
    seen = preview(
        spec, total_steps=total_steps, groups=groups, values={"beta2": lambda step: 1 - (step + 1) ** -0.8},
        tokens_per_update=1_000,
    )  # fmt: skip
    rows = read(seen.csv(tmp_path / "new" / "folder" / "run.csv"))
    assert list(rows[0]) == ["update", "phase", "multiplier", "decay", "no, decay", "beta2", "tokens"]
    assert [int(row["update"]) for row in rows] == list(seen.steps)
    for row in rows:
        step = int(row["update"])
        assert row["phase"] == schedule.phase_at(step).name
        assert float(row["multiplier"]) == schedule(step)
        assert [float(row[name]) for name in groups] == [base * schedule(step) for base in groups.values()]
        assert float(row["beta2"]) == 1 - (step + 1) ** -0.8
        assert float(row["tokens"]) == 1_000 * step


def test_a_short_run_has_a_line_for_every_update(tmp_path):
    rows = read(preview(wsd(), total_steps=10).csv(tmp_path / "run.csv"))
    assert [row["update"] for row in rows] == [str(step) for step in range(10)]
    assert list(rows[0]) == ["update", "phase", "multiplier", "rate"]


def test_a_function_leaves_the_phase_empty(tmp_path):
    rows = read(preview(lambda step: 0.5, total_steps=2).csv(str(tmp_path / "run.csv")))
    assert [row["phase"] for row in rows] == ["", ""]


@pytest.mark.parametrize("name", ["update", "phase", "multiplier", "tokens"])
def test_no_column_is_there_twice(name):
    with pytest.raises(ValueError, match=f"names of groups and values must be printable .* got '{name}'"):
        preview(wsd(), total_steps=10, groups={name: 1.0})
