import xml.etree.ElementTree as ET

import pytest

from lightning_llmopt.reporting.charts import Chart, Line, Stretch
from lightning_llmopt.reporting.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, axes_of, draw

NAN = float("nan")


def drawn(points, phases=(), skips=(), **settings):
    chart = Chart("Loss", (Line("loss", tuple(points)),), **settings)
    axes = axes_of(chart, begin=0, end=points[-1][0])
    return ET.fromstring(draw(chart, axes, phases, skips)), axes


def test_a_curve_lies_where_its_numbers_say():
    svg, axes = drawn([(0, 0.0), (50, 5.0), (100, 10.0)])
    assert axes.x(0) == LEFT
    assert axes.x(100) == WIDTH - RIGHT
    assert axes.y(0.0) == HEIGHT - BOTTOM
    assert axes.y(10.0) == pytest.approx(TOP, abs=0.06 * HEIGHT)
    middle = f"{axes.x(50):.1f} {axes.y(5.0):.1f}"
    assert middle in svg.find("path[@class='line']").get("d")


def test_a_log_axis_puts_the_geometric_mean_in_the_middle():
    _, axes = drawn([(0, 0.01), (1, 100.0)], log=True)
    assert axes.y(1.0) == pytest.approx((axes.y(0.01) + axes.y(100.0)) / 2)


def test_values_that_are_not_finite_break_the_line_and_are_marked():
    svg, _ = drawn([(0, 1.0), (1, 2.0), (2, NAN), (3, 3.0), (4, float("inf")), (5, 1.0)])
    assert svg.find("path[@class='line']").get("d").count("M") == 3
    assert [mark.find("title").text for mark in svg.findall("path[@class='bad']")] == [
        "not finite at 2",
        "not finite at 4",
    ]


def test_a_curve_of_nothing_finite_is_no_line():
    svg, _ = drawn([(0, NAN), (1, NAN)])
    assert svg.find("path[@class='line']") is None
    assert len(svg.findall("path[@class='bad']")) == 2


def test_phases_are_shaded_and_named_where_there_is_room():
    phases = [Stretch("warmup", 0, 2), Stretch("stable", 2, 80), Stretch("decay", 80, 200)]
    svg, axes = drawn([(0, 1.0), (100, 2.0)], phases=phases)
    boxes = svg.findall("rect")
    assert [box.find("title").text for box in boxes] == ["warmup", "stable", "decay"]
    assert float(boxes[2].get("x")) == pytest.approx(axes.x(80), abs=0.1)
    assert float(boxes[2].get("x")) + float(boxes[2].get("width")) == pytest.approx(WIDTH - RIGHT, abs=0.1)
    assert [text.text for text in svg.findall("text[@class='name']")] == ["stable", "decay"]


def test_skipped_updates_are_marked():
    svg, axes = drawn([(0, 1.0), (100, 2.0)], skips=[(40, 3)])
    (mark,) = svg.findall("line[@class='skip']")
    assert mark.get("x1") == f"{axes.x(40):.1f}"
    assert mark.find("title").text == "3 skipped up to update 40"


def test_a_long_noisy_curve_gets_a_mean_over_it():
    noisy = [(step, float(step % 5)) for step in range(5_000)]
    svg, _ = drawn(noisy, smooth=True)
    assert svg.find("path[@class='raw']").get("d").count(" ") <= 1_000
    assert svg.find("path[@class='line']") is not None
    svg, _ = drawn(noisy)
    assert svg.find("path[@class='raw']") is None


def test_names_are_text_and_nothing_else():
    chart = Chart("Loss", (Line('<script>"&', ((0, 1.0), (1, 2.0))),))
    svg = draw(chart, axes_of(chart, begin=0, end=1), [Stretch("<b>", 0, 1)], ())
    assert "<script>" not in svg
    assert ET.fromstring(svg).get("aria-label") == 'Loss: <script>"&'
