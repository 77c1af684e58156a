import pytest

from lightning_llmopt.preview import preview
from lightning_llmopt.schedules import cosine_restarts, wsd

EIGHTHS = " ▁▂▃▄▅▆▇█"


def bars(text, height):
    """Height of every column in rows, from the characters alone."""
    rows = [line for line in text.split("\n") if "┤" in line or "│" in line]
    assert len(rows) == height
    width = len(next(line for line in text.split("\n") if "└" in line))
    begin = rows[0].index("┤") + 1
    cells = [row.ljust(width)[begin:] for row in rows]
    return [sum(EIGHTHS.index(row[column]) / 8 for row in cells) for column in range(width - begin)]


@pytest.mark.parametrize(("width", "height"), [(72, 14), (40, 4), (200, 50)])
def test_columns_are_as_high_as_the_rate(width, height):
    total_steps = 700
    seen = preview(lambda step: 1.0 - step / total_steps, total_steps=total_steps, groups={"all": 7e-4})
    columns = bars(seen.text(width=width, height=height), height)
    for column, bar in enumerate(columns):
        begin = column * total_steps // len(columns)
        end = max((column + 1) * total_steps // len(columns), begin + 1)
        mean = 1 - (begin + end - 1) / 2 / total_steps
        assert bar == pytest.approx(mean * height, abs=1 / 16 + 1e-9)


def test_labels_are_rates_of_the_first_group():
    lines = preview(wsd(), total_steps=100, groups={"head": 3e-4, "body": 6e-4}).text(width=100).split("\n")
    assert lines[0] == (
        "learning rate by updates: head (base rate 0.0003, base rates of all 2 groups 0.0003 to 0.0006)"
    )
    assert lines[1].split()[0] == "0.0003"
    assert lines[8].split()[0] == "0.00015"
    assert lines[15].split()[0] == "0"


def test_the_axis_tells_updates_and_tokens():
    lines = preview(wsd(), total_steps=20_000, tokens_per_update=500_000, unit="steps").text().split("\n")
    assert lines[0] == "multiplier of the base rate by steps"
    assert lines[16].split() == ["0", "10,000", "20,000"]
    assert lines[17].split() == ["0", "5B", "10B", "tokens"]


def test_phases_curves_and_warnings_stand_below():
    seen = preview(
        wsd(warmup=20, decay=20), total_steps=100,
        values={"beta2": lambda step: 0.9 + step / 1_000, "weight_decay": lambda step: 0.1},
    )  # fmt: skip
    assert seen.text(width=200).split("\n")[-4:] == [
        "warmup 0 to 19; stable 20 to 79; decay 80 to 99",
        "beta2: 0.9 at first, 0.999 at last, between 0.9 and 0.999",
        "weight_decay: 0.1 at first, 0.1 at last",
        f"! {seen.warnings[0]}",
    ]


def test_a_column_that_cannot_show_its_swings_is_shaded_between_them():
    text = preview(cosine_restarts(first_cycle=10, floor=0.5), total_steps=10_000).text(width=60, height=8)
    rows = [set(line.split("┤")[-1].split("│")[-1]) for line in text.split("\n")[1:9]]
    assert rows == [{"░"}] * 4 + [{"█"}] * 4  # a long run is looked at on both sides of every turn: 0.512 to 1
    assert "... (993 more); cycle 1000 9,990 to 9,999" in " ".join(line.strip() for line in text.split("\n"))


@pytest.mark.parametrize("total_steps", [1, 2, 41, 2_001, 10**12])
@pytest.mark.parametrize("width", [40, 72])
def test_no_line_is_longer_than_asked(total_steps, width):
    seen = preview(wsd(), total_steps=total_steps, groups={"a" * 99: 1.23456e-5, "b": 1.0}, tokens_per_update=4.2e6)
    assert max(map(len, seen.text(width=width).split("\n"))) <= width


def test_a_rate_of_zero_throughout_is_a_plot_too():
    assert set(bars(preview(lambda step: 0.0, total_steps=9).text(), 14)) == {0.0}


def test_printing_shows_the_plot():
    seen = preview(wsd(), total_steps=9)
    assert str(seen) == seen.text(width=72, height=14)


@pytest.mark.parametrize(
    ("size", "rule"),
    [
        ({"width": 39}, "width must be a whole number of characters >= 40, got 39"),
        ({"width": 72.0}, "width must be a whole number of characters >= 40, got 72.0"),
        ({"height": 3}, "height must be a whole number of characters >= 4, got 3"),
        ({"height": True}, "height must be a whole number of characters >= 4, got True"),
    ],
)
def test_no_room_is_refused(size, rule):
    with pytest.raises(ValueError, match=rule):
        preview(wsd(), total_steps=9).text(**size)
