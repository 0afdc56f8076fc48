"""Charts of decisions: where points are, what stands beside them, and that no text can become markup."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from autoseg.core.report import Estimate
from autoseg.metrics.calibration import calibration_bins
from autoseg.metrics.roc import precision_recall_points, roc_points
from autoseg.reporting import diagnostic
from autoseg.reporting.curves import LEFT, MOST_DOTS, TOP, WIDTH

HOSTILE = '<script>alert("x")</script>'
SIDE = diagnostic.SIDE
SCORES, TRUTHS = [0.8, 0.4, 0.6, 0.3, 0.1], [1, 1, 0, 0, 0]


def elements(svg: str, tag: str, kind: str = "") -> list[ElementTree.Element]:
    return [e for e in ElementTree.fromstring(svg).iter(tag) if kind in ("", *e.get("class", "").split())]


def texts(svg: str) -> list[str]:
    return [element.text for element in ElementTree.fromstring(svg).iter("text")]


def places(line: ElementTree.Element) -> list[tuple[float, float]]:
    """Points of a curve as shares of the square plot, from its lower left corner."""
    points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
    return [((x - LEFT) / SIDE, 1 - (y - TOP) / SIDE) for x, y in points]


def legend_classes(svg: str, name: str) -> str:
    root = list(ElementTree.fromstring(svg))
    place = next(k for k, e in enumerate(root) if e.tag == "text" and e.text.startswith(name) and e.get("text-anchor") == "start")
    return root[place - 1].get("class")


def test_roc_curve_goes_through_its_points_and_chance_is_the_diagonal():
    svg = diagnostic.roc_chart({"model": roc_points(SCORES, TRUTHS)}, title="ROC")
    (line,) = elements(svg, "polyline", "curve")
    expected = [(0, 0), (0, 0.5), (1 / 3, 0.5), (1 / 3, 1), (2 / 3, 1), (1, 1)]
    assert np.array(places(line)) == pytest.approx(np.array(expected), abs=1e-3)
    (chance,) = [e for e in elements(svg, "line", "axis") if e.get("y1") != e.get("y2")]
    assert [float(chance.get(key)) for key in ("x1", "y1", "x2", "y2")] == [LEFT, TOP + SIDE, LEFT + SIDE, TOP]
    assert {"model", "chance", "sensitivity"} <= set(texts(svg))


def test_legend_shows_the_area_with_its_interval_and_the_line_of_its_curve():
    curves = {"model": roc_points(SCORES, TRUTHS), "baseline": roc_points(SCORES[::-1], TRUTHS)}
    svg = diagnostic.roc_chart(curves, title="ROC", areas={"model": Estimate(0.9, math.nan, 0.81234, 0.95, 5)})
    assert {"model, AUC 0.900 [0.812, 0.950]", "baseline"} <= set(texts(svg))
    drawn = [line.get("class") for line in elements(svg, "polyline", "curve")]
    assert [legend_classes(svg, name) for name in ("model", "baseline")] == drawn == ["curve s0", "curve s1 dash1"]


def test_curves_differ_in_colour_or_dashes():
    curves = {f"finding {k}": roc_points(SCORES, TRUTHS) for k in range(24)}
    svg = diagnostic.roc_chart(curves, title="ROC")
    assert len({line.get("class") for line in elements(svg, "polyline")}) == 24


def test_curves_that_lie_on_each_other_are_both_seen():
    svg = diagnostic.roc_chart({name: roc_points(SCORES, TRUTHS) for name in ("model", "baseline")}, title="ROC")
    first, second = elements(svg, "polyline", "curve")
    assert first.get("points") == second.get("points")
    assert "dash" not in first.get("class") and "dash" in second.get("class")  # the dashed one lies above


def test_marks_are_rings_on_their_curve():
    svg = diagnostic.roc_chart({"model": roc_points(SCORES, TRUTHS)}, title="ROC", marks={"model": (0.25, 0.75)})
    ring = elements(svg, "circle", "ring")[0]
    assert (float(ring.get("cx")), float(ring.get("cy"))) == (LEFT + SIDE / 4, TOP + SIDE / 4)
    assert "decision threshold" in texts(svg)
    assert "decision threshold" not in texts(diagnostic.roc_chart({"model": roc_points(SCORES, TRUTHS)}, title="ROC"))


def test_long_curves_lose_only_what_nobody_can_see():
    rng = np.random.default_rng(0)
    truths = (rng.random(20_000) < 0.3).astype(float)
    points = roc_points(rng.normal(truths, 1), truths)
    (line,) = elements(diagnostic.roc_chart({"model": points}, title="ROC"), "polyline")
    kept = np.array(places(line))
    assert len(kept) < 2000 < len(points) and kept[0] == pytest.approx([0, 0]) and kept[-1] == pytest.approx([1, 1])
    height = np.interp(points[:, 0], kept[:, 0], kept[:, 1])
    assert np.abs(height - points[:, 1]).max() < 0.01


def test_precision_recall_curve_has_steps_with_the_average_precision_below():
    # thresholds 0.8, 0.6, 0.4: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1
    svg = diagnostic.precision_recall_chart({"model": precision_recall_points(SCORES, TRUTHS)}, title="PR", prevalence=0.4)
    (line,) = elements(svg, "polyline", "curve")
    assert np.array(places(line)) == pytest.approx(np.array([(0, 1), (0.5, 1), (0.5, 2 / 3), (1, 2 / 3)]), abs=1e-3)
    chance = [e for e in elements(svg, "line", "dash2") if float(e.get("y1")) < TOP + SIDE]
    assert float(chance[0].get("y1")) == float(chance[0].get("y2")) == TOP + SIDE * 0.6
    assert "chance, 0.400" in texts(svg)


@pytest.mark.parametrize("chart", [diagnostic.roc_chart, diagnostic.precision_recall_chart, diagnostic.reliability_chart])
def test_charts_without_a_point_are_empty(chart):
    assert chart({"model": np.empty((0, 2))}, title="") == "" == chart({}, title="")


def test_reliability_shows_each_bin_with_its_interval_and_count():
    bins = calibration_bins([0.1] * 3 + [0.7] * 7, [0, 0, 0] + [1] * 5 + [0] * 2, 5)
    svg = diagnostic.reliability_chart({"model": bins}, title="Reliability", errors={"model": 0.0123})
    dots = elements(svg, "circle", "dot")
    assert [float(e.get("cx")) for e in dots] == pytest.approx([LEFT + 0.1 * SIDE, LEFT + 0.7 * SIDE], abs=0.1)
    assert [float(e.get("cy")) for e in dots] == pytest.approx([TOP + SIDE, TOP + SIDE * 2 / 7], abs=0.1)
    # Wilson's interval of 0 of 3: 0 to z^2 / (3 + z^2)
    bar = elements(svg, "line", "range")[0]
    assert float(bar.get("y1")) == TOP + SIDE
    assert float(bar.get("y2")) == pytest.approx(TOP + SIDE * (1 - 3.8415 / 6.8415), abs=0.1)
    assert {"3", "7", "cases", "model, ECE 0.012", "calibrated"} <= set(texts(svg))
    assert dots[0].find("title").text == "3 cases from 0 to 0.2: 0 positive"


def test_counts_that_would_touch_each_other_are_left_out_and_stay_in_the_hint():
    bins = calibration_bins(np.r_[np.linspace(0.01, 0.03, 5000), 0.9], np.zeros(5001), 50, "mass")
    svg = diagnostic.reliability_chart({"model": bins}, title="Reliability")
    row = [e for e in elements(svg, "text") if e.get("text-anchor") == "middle" and float(e.get("y", 0)) > TOP + SIDE + 50]
    edges = [(float(e.get("x")) - 3.3 * len(e.text), float(e.get("x")) + 3.3 * len(e.text)) for e in row]
    assert 0 < len(edges) < len(bins) and all(a[1] <= b[0] for a, b in zip(edges, edges[1:], strict=False))
    assert len(elements(svg, "title")) == len(bins)


def test_bars_of_two_series_in_one_bin_stand_beside_each_other():
    bins = calibration_bins([0.5] * 4, [0, 0, 1, 1], 2)
    svg = diagnostic.reliability_chart({"before": bins, "after": bins}, title="Reliability")
    before, after = (float(e.get("x1")) for e in elements(svg, "line", "range"))
    assert (before + after) / 2 == LEFT + SIDE / 2 and after - before == diagnostic.BESIDE


def test_cells_hold_counts_and_shares_of_the_true_class():
    svg = diagnostic.confusion_chart(np.array([[8, 2], [1, 3]]), ["normal", "pneumonia"], title="Confusion")
    cells = elements(svg, "rect", "cell")
    assert [e.find("title").text for e in cells] == [
        "normal predicted as normal: 8 of 10", "normal predicted as pneumonia: 2 of 10",
        "pneumonia predicted as normal: 1 of 4", "pneumonia predicted as pneumonia: 3 of 4"]
    assert [float(e.get("fill-opacity")) for e in cells] == pytest.approx([0.6, 0.15, 0.1875, 0.5625], abs=1e-3)
    assert {"8", "80 %", "2", "20 %", "1", "25 %", "3", "75 %", "predicted class", "true class"} <= set(texts(svg))
    assert [e.get("class") for e in cells] == ["cell right", "cell", "cell", "cell right"]
    right, below = [float(e.get("x")) for e in cells], [float(e.get("y")) for e in cells]
    assert right[0] == right[2] < right[1] and below[0] == below[1] < below[2]


def test_a_class_that_nobody_has_has_counts_without_shares():
    svg = diagnostic.confusion_chart(np.array([[3, 1], [0, 0]]), ["a", "b"], title="")
    assert "0 of 0" in svg and "nan" not in svg
    assert diagnostic.confusion_chart(np.zeros((2, 2), int), ["a", "b"], title="") == ""


@pytest.mark.parametrize("classes", [2, 7, 20, 60])
def test_matrices_of_any_size_stay_inside_the_picture(classes: int):
    names = [f"a class with quite a long name {k}" for k in range(classes)]
    svg = diagnostic.confusion_chart(np.eye(classes, dtype=int) * 5, names, title="Confusion")
    height = float(ElementTree.fromstring(svg).get("viewBox").split()[3])
    for cell in elements(svg, "rect", "cell"):
        assert float(cell.get("x")) >= 0 and float(cell.get("x")) + float(cell.get("width")) <= WIDTH
        assert float(cell.get("y")) + float(cell.get("height")) < height
    assert len(elements(svg, "rect", "cell")) == classes**2
    rows = [float(e.get("y")) for e in elements(svg, "text") if e.get("text-anchor") == "end" and e.get("y")]
    assert all(b - a >= 12 for a, b in zip(rows, rows[1:], strict=False)) and len(rows) >= min(classes, 15)
    assert (["5"] * classes == [t for t in texts(svg) if t == "5"]) == (classes <= 7)


def test_agreement_by_hand():
    # differences 1, 2, 3 over means 1.5, 3, 4.5; limits 2 +- 1.96
    svg = diagnostic.bland_altman_chart([2.0, 4.0, 6.0], [1.0, 2.0, 3.0], title="Agreement", unit="ml")
    lines = elements(svg, "line", "mean")
    y = {name: float(e.get("y1")) for name, e in zip(("upper", "bias", "lower"), lines, strict=True)}
    dots = [(float(e.get("cx")), float(e.get("cy"))) for e in elements(svg, "circle", "dot")]
    assert dots[1][1] == y["bias"] and dots[1][0] == pytest.approx((dots[0][0] + dots[2][0]) / 2, abs=0.1)
    one = dots[0][1] - dots[1][1]
    assert (y["bias"] - y["upper"], y["lower"] - y["bias"]) == pytest.approx((1.96 * one, 1.96 * one), abs=0.2)
    assert {"2", "3.96", "0.04004", "bias", "upper limit", "lower limit", "predicted − true (ml)"} <= set(texts(svg))
    bands = elements(svg, "rect", "band")
    assert float(bands[1].get("height")) == pytest.approx(2 * 4.302653 / math.sqrt(3) * one, abs=0.2)


def test_labels_of_near_lines_do_not_cover_each_other():
    svg = diagnostic.bland_altman_chart([*np.zeros(20), 400.0], [*np.linspace(-0.1, 0.1, 20), 0.0], title="Agreement")
    names = [e for e in elements(svg, "text") if e.text in ("upper limit", "bias", "lower limit")]
    heights = [float(e.get("y")) for e in names]
    assert all(b - a >= 29 for a, b in zip(heights, heights[1:], strict=False))


def test_many_cases_are_thinned_and_the_title_says_so():
    rng = np.random.default_rng(0)
    svg = diagnostic.bland_altman_chart(rng.normal(0, 1, 2 * MOST_DOTS + 1), np.zeros(2 * MOST_DOTS + 1), title="Agreement")
    assert len(elements(svg, "circle", "dot")) <= MOST_DOTS and "Agreement; every 3. case is shown" in texts(svg)


def test_agreement_of_equal_values_and_of_too_few():
    assert "nan" not in diagnostic.bland_altman_chart([1.0, 1.0], [1.0, 1.0], title="")
    assert diagnostic.bland_altman_chart([1.0, 2.0], [1.0, math.nan], title="") == ""


def test_no_text_becomes_markup():
    curves = {HOSTILE: roc_points(SCORES, TRUTHS)}
    svg = diagnostic.roc_chart(curves, title=HOSTILE) + diagnostic.precision_recall_chart(curves, title=HOSTILE)
    svg += diagnostic.reliability_chart({HOSTILE: calibration_bins([0.5, 0.6], [0, 1])}, title=HOSTILE)
    svg += diagnostic.confusion_chart(np.eye(2, dtype=int), [HOSTILE, "b"], title=HOSTILE)
    svg += diagnostic.bland_altman_chart([1, 2], [2, 4], title=HOSTILE, unit=HOSTILE)
    assert "<script" not in svg and "&lt;script&gt;" in svg
