"""Charts: where points are, what the axes say, and that no text can become markup."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import pytest

from autoseg.reporting import axes, curves

HOSTILE = '<script>alert("x")</script>'


def elements(svg: str, tag: str, kind: str) -> list[ElementTree.Element]:
    return [e for e in ElementTree.fromstring(svg).iter(tag) if kind in e.get("class", "").split()]


def texts(svg: str) -> list[str]:
    return [element.text for element in ElementTree.fromstring(svg).iter("text")]


def chart(rows, **changes) -> str:
    options = {"x": "step", "lines": {"loss": "training"}, "title": "Loss", "x_label": "iteration", "y_label": "loss"}
    return curves.line_chart(rows, **{**options, **changes})


def test_points_lie_where_the_ticks_say():
    svg = chart([{"step": 0, "loss": 0.0}, {"step": 10, "loss": 4.0}, {"step": 20, "loss": 1.0}])
    (line,) = elements(svg, "polyline", "curve")
    left, right = curves.LEFT, curves.WIDTH - curves.RIGHT
    top, bottom = curves.TOP, curves.HEIGHT - curves.BOTTOM
    points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
    assert points == [(left, bottom), ((left + right) / 2, top), (right, pytest.approx(bottom - (bottom - top) / 4))]
    assert {"0", "1", "2", "3", "4", "5", "10", "15", "20", "iteration", "loss", "Loss"} <= set(texts(svg))


def test_logarithmic_axis_puts_equal_factors_at_equal_distances():
    svg = chart([{"step": n, "loss": 10.0**-n} for n in range(4)], log_y=True)
    (line,) = elements(svg, "polyline", "curve")
    heights = [float(point.split(",")[1]) for point in line.get("points").split()]
    steps = [b - a for a, b in zip(heights, heights[1:], strict=False)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.11) and steps[0] > 0
    assert {"1", "0.1", "0.01", "0.001"} <= set(texts(svg))


def test_rows_without_a_value_or_with_nan_are_no_points():
    svg = chart([{"step": 0, "loss": 1.0}, {"step": 1}, {"step": 2, "loss": math.nan}, {"step": 3, "loss": 2.0}])
    assert len(elements(svg, "polyline", "curve")[0].get("points").split()) == 2


def test_two_lines_have_a_legend_and_one_has_none():
    rows = [{"step": 0, "loss": 1.0, "check": 2.0}, {"step": 1, "loss": 0.5, "check": 1.5}]
    both = chart(rows, lines={"loss": "training", "check": "validation", "absent": "nothing"})
    assert {"training", "validation"} <= set(texts(both)) and "nothing" not in texts(both)
    assert "training" not in texts(chart(rows))


def test_a_legend_that_does_not_fit_beside_the_title_stands_below_in_rows_within_the_chart():
    names = [f"segmentation.cross_entropy_{place}" for place in range(6)]
    svg = ElementTree.fromstring(chart([{"step": step} | dict.fromkeys(names, 1.0 + step) for step in (0, 1)],
                                       lines={name: name for name in names}))
    placed = [element for element in svg.iter("text") if element.text in names]
    assert [element.text for element in placed] == names
    assert all(float(element.get("x")) + curves.CHARACTER * len(element.text) <= curves.WIDTH for element in placed)
    rows = sorted({float(element.get("y")) for element in placed})
    assert len(rows) == 3 and rows[0] >= curves.HEIGHT and rows[-1] <= float(svg.get("viewBox").split()[3])


def test_chart_without_points_is_empty_and_one_point_is_a_dot():
    assert chart([]) == ""
    assert chart([{"step": 1, "loss": 0.0}], log_y=True) == ""
    assert len(elements(chart([{"step": 1, "loss": 3.0}]), "circle", "dot")) == 1


def test_constant_curve_has_an_axis_of_more_than_one_value():
    svg = chart([{"step": 0, "loss": 0.5}, {"step": 1, "loss": 0.5}])
    assert "nan" not in svg and len(elements(svg, "line", "grid")) >= 4


@pytest.mark.parametrize(("low", "high", "expected"), [
    (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), (0.38, 0.9, [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
    (3, 47, [0, 10, 20, 30, 40, 50]),
    (-1.0, 1.0, [-1.0, -0.5, 0.0, 0.5, 1.0]), (5.0, 5.0, [5.0, 6.0]),
])
def test_ticks_are_round_and_enclose_the_values(low, high, expected):
    assert axes.ticks(low, high) == pytest.approx(expected)


def test_log_ticks_are_powers_of_ten_that_enclose_the_values():
    assert axes.log_ticks(2e-4, 3e-2) == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1])
    assert axes.log_ticks(1.0, 1.0) == pytest.approx([1.0, 10.0])


def test_dot_plot_has_one_dot_per_defined_score_and_the_mean():
    scores = {"Anterior": {"a": 0.0, "b": 1.0, "c": math.nan}, "Posterior": {"a": 0.5, "b": 0.5}}
    svg = curves.dot_plot(scores, title="Dice", x_label="Dice", baseline={"Anterior": {"a": 0.25}})
    assert len(elements(svg, "circle", "s0")) == 4 and len(elements(svg, "circle", "hollow")) == 1
    dots = {e.find("title").text: float(e.get("cx")) for e in elements(svg, "circle", "s0")}
    means = [float(e.get("x1")) for e in elements(svg, "line", "mean")]
    assert means[0] == pytest.approx((dots["a: 0"] + dots["b: 1"]) / 2, abs=0.1)
    assert "Anterior, model: mean 0.5" in svg


def test_dots_of_equal_scores_stand_beside_each_other_inside_their_row():
    rows = {name: {f"case{k}": 0.5 for k in range(300)} for name in ("a", "b")}
    svg = curves.dot_plot(rows, title="Dice", x_label="Dice")
    heights = [float(e.get("cy")) for e in elements(svg, "circle", "s0")]
    middle = curves.TOP + curves.DOT_ROW / 2
    assert all(abs(y - middle) <= curves.DOT_ROW / 2 - curves.DOT_RADIUS for y in heights[:300])
    assert len(set(heights[:300])) > 30 and len(heights) == 600


def test_many_rows_are_lower_and_too_many_dots_become_ranges():
    rows = {f"label{k}": {f"case{i}": i / 100 for i in range(101)} for k in range(60)}
    svg = curves.dot_plot(rows, title="Dice", x_label="Dice")
    assert not elements(svg, "circle", "dot") and len(elements(svg, "line", "range")) == 120
    thin = elements(svg, "line", "range")[0]
    left, width = min(40 + 7 * 7, curves.WIDTH // 3), curves.WIDTH - curves.RIGHT - min(40 + 7 * 7, curves.WIDTH // 3)
    assert [float(thin.get(key)) for key in ("x1", "x2")] == pytest.approx([left + 0.05 * width, left + 0.95 * width], abs=0.1)
    assert f'viewBox="0 0 {curves.WIDTH} {curves.TOP + curves.BOTTOM + 60 * curves.LOW_DOT_ROW}"' in svg
    assert "label7, model, 101 cases: mean 0.5" in svg


def test_dot_plot_without_scores_is_empty():
    assert curves.dot_plot({"Anterior": {"a": math.nan}}, title="", x_label="") == ""


def test_no_text_becomes_markup():
    svg = chart([{"step": 0, "a": 1.0, "b": 2.0}], lines={"a": HOSTILE, "b": HOSTILE}, title=HOSTILE, x_label=HOSTILE,
                y_label=HOSTILE)
    svg += curves.dot_plot({HOSTILE: {HOSTILE: 0.5}}, title=HOSTILE, x_label=HOSTILE)
    assert "<script" not in svg and "&lt;script&gt;" in svg
