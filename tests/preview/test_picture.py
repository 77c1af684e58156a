import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import lightning_llmopt
from lightning_llmopt.preview import picture, preview
from lightning_llmopt.schedules import Phase, Schedule, cosine_restarts, wsd, wsd_s

SPEC = wsd(warmup="5%")


def panel(seen):
    """The drawn panel of rates, its texts that are shown, and its frame in pixels."""
    axes = picture._drawn(seen).figure.axes[0]
    return axes, axes.texts, axes.get_window_extent()


def overlaps(boxes):
    boxes = sorted(boxes, key=lambda box: box.x0)
    return any(before.x1 + picture._GAP - 1 > after.x0 for before, after in pairwise(boxes))


def test_the_file_is_the_picture(tmp_path):
    seen = preview(SPEC, total_steps=1_000)
    path = seen.png(tmp_path / "new" / "folder" / "run.png")
    assert path == tmp_path / "new" / "folder" / "run.png"
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    image = seen.rgb()
    assert (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")) == (image.shape[1], image.shape[0])


def test_rgb_is_what_tensorboard_takes():
    image = preview(SPEC, total_steps=100).rgb()
    assert image.shape == (420, 900, 3)
    assert image.dtype == np.uint8
    assert image.flags.owndata
    assert tuple(image[0, 0]) == (255, 255, 255)


def test_every_further_curve_gets_a_panel_and_the_picture_grows():
    values = {"beta2": lambda step: 0.95, "weight_decay": lambda step: 0.1 * step}
    seen = preview(SPEC, total_steps=100, values=values)
    axes = picture._drawn(seen).figure.axes
    assert [one.get_title(loc="left") for one in axes] == ["", "beta2", "weight_decay"]
    assert list(axes[2].lines[0].get_ydata()) == [*(0.1 * step for step in range(100)), 0.1 * 99]
    assert seen.rgb().shape == (680, 900, 3)


def test_the_line_is_the_schedule():
    seen = preview(SPEC, total_steps=100, groups={"all": 3e-4})
    axes, _, _ = panel(seen)
    schedule = SPEC.resolve(total_steps=100)
    assert list(axes.lines[0].get_xdata()) == list(range(101))
    assert list(axes.lines[0].get_ydata())[:-1] == [3e-4 * schedule(step) for step in range(100)]
    assert axes.lines[0].get_drawstyle() == "steps-post"
    assert axes.get_ylabel() == "learning rate of all"
    assert axes.get_legend() is None


def test_the_line_of_a_long_run_is_no_stair():
    axes, _, _ = panel(preview(SPEC, total_steps=10**12))
    assert axes.lines[0].get_drawstyle() == "default"


def test_phases_next_to_each_other_are_shaded_differently():
    schedule = Schedule(Phase("a", 50, 1.0, 1.0), Phase("b", 50, 1.0, 1.0))
    seen = preview(schedule)
    _, _, frame = panel(seen)
    image = seen.rgb()
    row = image[image.shape[0] // 2]
    left, right = (row[int(frame.x0 + part * frame.width)] for part in (0.25, 0.75))
    assert tuple(left) != tuple(right)
    assert tuple(left) != (255, 255, 255)


def test_a_function_is_not_shaded():
    seen = preview(lambda step: 1.0, total_steps=100)
    image = seen.rgb()
    assert tuple(image[image.shape[0] // 2, 450]) == (255, 255, 255)


def test_every_phase_of_a_usual_schedule_is_named_over_itself():
    seen = preview(wsd(warmup="20%"), total_steps=1_000)
    _, texts, _ = panel(seen)
    assert {text.get_text() for text in texts} == {"warmup", "stable", "decay"}
    for text in texts:
        assert seen.phase_at(int(text.get_position()[0])) == text.get_text()


@pytest.mark.parametrize("groups", [None, {"a" * 28: 1.0, "b": 0.5}], ids=["whole", "beside a legend"])
@pytest.mark.parametrize("cycles", [2, 8, 9, 10, 11, 12, 30, 300, 5_000])
def test_names_never_overprint(cycles, groups):
    seen = preview(cosine_restarts(first_cycle=100, warmup=10), total_steps=100 * cycles, groups=groups)
    _, texts, frame = panel(seen)
    boxes = [text.get_window_extent() for text in texts]
    assert boxes
    assert not overlaps(boxes)
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)
    assert f"cycle {cycles}" in {text.get_text() for text in texts}


def test_names_stand_above_the_highest_rate():
    axes, texts, _ = panel(preview(SPEC, total_steps=100, groups={"all": 5.0}))
    top = axes.transData.transform((0, 5.0))[1]
    assert all(text.get_window_extent().y0 > top for text in texts)


def legend(seen):
    axes, _, _ = panel(seen)
    return axes.get_legend().get_title().get_text(), [text.get_text() for text in axes.get_legend().get_texts()]


def test_groups_of_one_base_rate_share_a_line():
    groups = {"decay": 3e-4, "no_decay": 3e-4, "_head": 1e-4, "em$b$_{": 6e-4, **{f"layer{n}": 2e-4 for n in range(9)}}
    title, names = legend(preview(SPEC, total_steps=10, groups=groups))
    assert title == "base rates of 13 groups"
    assert names == ["em$b$_{: 0.0006", "decay, no_decay: 0.0003", "layer0 and 8 more: 0.0002", "_head: 0.0001"]


def test_two_hundred_groups_are_a_colour_scale_with_both_ends_named():
    seen = preview(SPEC, total_steps=10, groups={f"layer{n}": 1e-3 * 0.98**n for n in range(200)})
    axes, _, _ = panel(seen)
    assert len(axes.lines) == 60
    assert legend(seen) == ("base rates of 200 groups", ["layer0: 0.001", f"layer199: {1e-3 * 0.98**199:.3g}"])


def test_the_legend_covers_no_curve():
    axes, _, frame = panel(preview(SPEC, total_steps=10, groups={"a" * 99: 1.0, "b": 0.5}))
    assert axes.get_legend().get_window_extent().x0 >= frame.x1
    assert frame.width > 400


def test_names_are_no_formulas():
    name = r"$\frac{$"
    schedule = Schedule(Phase(name, 9, 1.0, 1.0))
    for groups in ({name: 1.0}, {name: 1.0, "b": 0.5}):
        assert preview(schedule, groups=groups, values={name + "v": float}, unit=name).rgb().std() > 5


def test_of_many_phases_only_those_with_room_are_named():
    phases = [Phase(f"short {number}", 1, 1.0, 1.0) for number in range(20)]
    seen = preview(Schedule(*phases, Phase("long", 500, 1.0, 1.0), *phases))
    assert {text.get_text() for text in panel(seen)[1]} == {"short 0", "long", "short 19"}
    seen = preview(cosine_restarts(first_cycle=100), total_steps=4_000)
    assert {text.get_text() for text in panel(seen)[1]} == {"cycle 1", "cycle 40"}


def test_a_name_gives_way_to_its_neighbour_within_its_phase():
    seen = preview(wsd_s(periods=["20%", "30%", "50%"], warmup="1%"), total_steps=50_000)
    assert len(seen.phases) == len(panel(seen)[1]) == 7


def test_tokens_are_a_second_axis():
    seen = preview(SPEC, total_steps=1_000, tokens_per_update=500_000)
    canvas = picture._drawn(seen)
    canvas.draw()
    (second,) = canvas.figure.axes[0].child_axes
    assert second.get_xlim() == pytest.approx((0, 5e8))
    assert "300M" in {label.get_text() for label in second.get_xticklabels()}


def test_warnings_are_a_caption_that_makes_the_picture_higher():
    seen = preview(wsd(warmup="50%"), total_steps=1_000, groups={"frozen": 0.0, "all": 1.0})
    assert picture._drawn(seen).figure.get_supxlabel() == "\n".join(seen.warnings)
    assert seen.rgb().shape[0] == 452


def test_of_many_warnings_five_are_shown():
    assert picture._caption([f"warning {number}" for number in range(9)])[-2:] == [
        "warning 4",
        "... and 4 more warnings.",
    ]


@pytest.mark.parametrize("total_steps", [1, 2, 10**12, 10**24])
def test_any_length_is_drawn(total_steps):
    image = preview(SPEC, total_steps=total_steps, tokens_per_update=1e6, groups={"all": 0.0}).rgb()
    assert image.std() > 5


def test_pictures_are_drawn_in_threads_alike():
    seen = [preview(wsd(warmup=number), total_steps=100) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda one: one.rgb(), seen))
    assert all((one.rgb() == image).all() for one, image in zip(seen, drawn, strict=True))


def run(code):
    root = Path(lightning_llmopt.__file__).parent.parent
    return subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=100)


def test_importing_needs_neither_matplotlib_nor_numpy_nor_torch():
    code = "import sys, lightning_llmopt.preview; sys.exit(str({'matplotlib', 'numpy', 'torch'} & sys.modules.keys()))"
    assert run(code).stderr.strip() == "set()"


def test_drawing_leaves_pyplot_and_the_backend_alone(tmp_path):
    code = (
        "import sys; from lightning_llmopt.preview import preview\n"
        f"preview(lambda step: 1.0, total_steps=9).png({str(tmp_path / 'run.png')!r})\n"
        "import matplotlib; assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert matplotlib.get_backend(auto_select=False) is None"
    )
    assert run(code).stderr == ""
    assert (tmp_path / "run.png").exists()


def test_without_matplotlib_the_message_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match="pip install 'lightning-llmopt\\[plot\\]'"):
        preview(SPEC, total_steps=9).png(tmp_path / "new" / "run.png")
    assert not (tmp_path / "new").exists()
    assert "│" in preview(SPEC, total_steps=9).text()
