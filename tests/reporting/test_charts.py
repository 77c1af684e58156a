from lightning_llmopt.reporting.charts import Stretch, charts, facts, left_out, skips, stretches
from lightning_llmopt.reporting.log import Log


def log(points, **summary):
    return Log({tag: tuple(values) for tag, values in points.items()}, (), summary)


def titles(points):
    return {chart.title: [line.name for line in chart.lines] for chart in charts(log(points))}


def test_every_curve_finds_its_chart():
    one = [(0, 1.0), (1, 2.0)]
    tags = ["train/loss", "val_loss", "lr/AdamW/decay", "grad_norm/total", "grad_norm/layer/blocks.0", "val/accuracy"]
    found = titles(dict.fromkeys([*tags, "schedule/progress", "param_norm/total"], one))
    assert found == {
        "Loss": ["train/loss", "val_loss"],
        "Learning rate": ["AdamW/decay"],
        "Gradient norm": ["norm"],
        "Gradient norm by layer": ["blocks.0"],
        "val/accuracy": ["val/accuracy"],
    }


def test_norms_before_and_after_clipping_share_a_chart():
    points = {"grad_norm/total": [(0, 2.0), (1, 0.5)], "grad_norm/clipped": [(0, 1.0), (1, 0.5)]}
    assert titles(points)["Gradient norm"] == ["before clipping", "after clipping"]
    points["grad_norm/clipped"] = points["grad_norm/total"]
    assert titles(points)["Gradient norm"] == ["norm"]


def test_norms_of_several_optimizers_are_told_apart():
    points = {f"grad_norm/{kind}/Adam{which}": [(0, 1.0)] for kind in ("total", "clipped") for which in ("", "-1")}
    assert titles(points)["Gradient norm"] == ["norm/Adam", "norm/Adam-1"]


def test_groups_with_the_same_rates_share_a_line():
    same, other = [(0, 0.1), (1, 0.2)], [(0, 0.3), (1, 0.2)]
    points = {"lr/AdamW/a": same, "lr/AdamW/b": same, "lr/AdamW/c": other, "lr-SGD": other[:1]}
    assert titles(points)["Learning rate"] == ["AdamW/a and 1 more", "AdamW/c", "SGD"]


def test_a_loggers_prefix_is_passed_over():
    assert titles({"run-lr/AdamW/a": [(0, 0.1)]})["Learning rate"] == ["AdamW/a"]


def test_a_wide_range_of_norms_is_on_a_log_scale():
    def scale(low):
        (chart,) = charts(log({"grad_norm/total": [(0, low), (1, 100.0), (2, 0.0)]}))
        return chart.log

    assert (scale(0.1), scale(50.0)) == (True, False)


def test_skipped_updates_are_found_where_the_total_rises():
    points = {"skipped/total": [(9, 0.0), (19, 2.0), (29, 2.0), (39, 3.0)]}
    assert skips(log(points)) == ((19, 2), (39, 1))
    assert "Skipped updates, in all" in titles(points)
    assert titles({"skipped/total": [(9, 0.0)]}) == {}


PLANNED = [
    {"number": 0, "name": "warmup", "begin": 0, "end": 12},
    {"number": 1, "name": "stable", "begin": 12, "end": 40},
]


def test_phases_begin_where_planned_and_change_where_logged():
    points = {"schedule/phase": [(9, 0.0), (19, 1.0), (29, 1.0), (39, 2.0)]}  # the third was asked for on the way
    assert stretches(log(points, phases=PLANNED)) == (
        Stretch("warmup", 0, 12),
        Stretch("stable", 12, 39),
        Stretch("phase 2", 39, 40),
    )
    assert stretches(log(points))[0] == Stretch("phase 0", 0, 19)


def test_without_a_log_of_them_the_planned_phases_count():
    assert stretches(log({"loss": [(9, 1.0)]}, phases=PLANNED)) == (Stretch("warmup", 0, 12), Stretch("stable", 12, 40))
    assert stretches(log({"loss": [(9, 1.0)]})) == ()


def test_numbers_that_come_first():
    points = {
        "loss": [(0, 3.0), (1, float("nan")), (2, 1.0), (3, 2.0)],
        "lr/AdamW/a": [(0, 0.1), (3, 0.05)],
        "grad_norm/clip_coefficient": [(0, 0.5), (1, 1.0), (2, 1.0), (3, 1.0)],
        "skipped/total": [(3, 7.0)],
    }
    assert dict(facts(log(points))) == {
        "loss, last": "2", "loss, lowest": "1", "learning rate, last logged": "0.05",
        "clipped, of logged updates": "25.0%", "skipped": "7",
    }  # fmt: skip


def test_what_has_no_chart_is_counted():
    assert left_out(log({f"metric{number}": [(0, 1.0)] for number in range(11)})) == 3
