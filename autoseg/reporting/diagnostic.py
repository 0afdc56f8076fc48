"""Charts of decisions and of measured values: ROC, precision and recall, reliability, confusion, agreement. Inline SVG.

Curves differ in colour and in dashes, so that they stay apart in print and for colour-blind readers, and one that lies below
another shows through its gaps. What needs a number to be read has it beside the plot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import NormalDist

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from autoseg.core.report import Estimate
from autoseg.metrics.calibration import Bin
from autoseg.metrics.regression import bland_altman
from autoseg.metrics.roc import known
from autoseg.reporting import axes
from autoseg.reporting.axes import Frame
from autoseg.reporting.curves import BOTTOM, CHARACTER, DOT_RADIUS, LEFT, MOST_DOTS, RIGHT, SERIES_CLASSES, TOP, WIDTH
from autoseg.reporting.numbers import mean_with_interval, score, short_number

# Sizes in picture units.
SIDE = 400  # of a square plot
ROW = 18  # of a legend, and of a row of numbers
SAMPLE = 26  # line in a legend
MANY_NAMES = 6  # a legend has two columns from more on
DASHES = 4  # the style sheet has .dash1 to .dash3; the first is solid
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
LARGEST_CELL, SMALLEST_NUMBERED_CELL = 92, 34
NAME_HEIGHT = 13  # lower rows are named in turns
NAME_LETTERS = 20  # longer names of classes are cut
BESIDE = 5  # between the bars of two series in one bin
LABEL_WIDTH = 104  # beside the lines of agreement
# Darkest fill of a cell: black text keeps a contrast of 5 to 1 on it (WCAG 2.2 asks for 4.5).
DARKEST = 0.75


def roc_chart(curves: Mapping[str, NDArray], *, title: str, areas: Mapping[str, Estimate] | None = None,
              marks: Mapping[str, tuple[float, float]] | None = None) -> Markup:
    """Sensitivity over the false positive rate, with the line of chance.

    Args:
        curves: name -> (p, 2) of `metrics.roc.roc_points`; those without a point are left out.
        areas: name -> AUC with its interval, for the legend.
        marks: name -> (false positive rate, sensitivity) of a decision threshold; a ring on the curve.
    Returns:
        An `<svg>` element; empty when no curve has a point.
    """
    found = {name: points for name, points in curves.items() if len(points)}
    chance = [axes.line(LEFT, TOP + SIDE, LEFT + SIDE, TOP, "axis dash2")]
    labels = ("1 − specificity (false positive rate)", "sensitivity")
    return _curve_chart(found, chance, title, labels, _named(found, areas, "AUC"), marks or {}, "chance")


def precision_recall_chart(curves: Mapping[str, NDArray], *, title: str, areas: Mapping[str, Estimate] | None = None,
                           marks: Mapping[str, tuple[float, float]] | None = None, prevalence: float = math.nan) -> Markup:
    """Precision over recall in steps, with the line of chance at the share of positive cases.

    Args:
        curves: name -> (p, 2) of `metrics.roc.precision_recall_points`; those without a point are left out.
        areas: name -> average precision with its interval, for the legend.
        marks: name -> (recall, precision) of a decision threshold.
        prevalence: share of positive cases; nan: no line.
    Returns:
        An `<svg>` element; empty when no curve has a point.
    """
    found = {name: _steps(points) for name, points in curves.items() if len(points)}
    chance = []
    if not math.isnan(prevalence):
        height = TOP + SIDE * (1 - prevalence)
        chance = [axes.line(LEFT, height, LEFT + SIDE, height, "axis dash2")]
    return _curve_chart(found, chance, title, ("recall (sensitivity)", "precision (positive predictive value)"),
                        _named(found, areas, "AP"), marks or {}, f"chance, {score(prevalence)}" if chance else "")


def reliability_chart(series: Mapping[str, Sequence[Bin]], *, title: str, errors: Mapping[str, float] | None = None) -> Markup:
    """Share of positive cases over the predicted probability, with Wilson's 95 % interval, and the number of cases of each bin.

    Args:
        series: name -> bins of `metrics.calibration.calibration_bins`; those without a bin are left out.
        errors: name -> expected calibration error, for the legend.
    Returns:
        An `<svg>` element; empty when there is no bin.
    Source of the interval: Wilson 1927.
    """
    found = {name: bins for name, bins in series.items() if len(bins)}
    if not found:
        return Markup("")
    frame = Frame(LEFT, TOP, SIDE, SIDE, (0.0, 1.0), (0.0, 1.0))
    parts = [axes.y_axis(frame, SHARES, "share of positive cases"), axes.x_axis(frame, SHARES, "predicted probability"),
             axes.line(LEFT, TOP + SIDE, LEFT + SIDE, TOP, "axis dash2")]
    for place, bins in enumerate(found.values()):
        beside = replace(frame, left=LEFT + BESIDE * (place - (len(found) - 1) / 2))
        if len(bins) > 1:
            parts.append(_polyline(beside, np.array([(one.probability, one.share) for one in bins]), place))
        parts += [_bin(beside, one, place) for one in bins]
    top = TOP + SIDE + BOTTOM + ROW
    parts += [_counts(frame, bins, place, top + place * ROW) for place, bins in enumerate(found.values())]
    top += len(found) * ROW + 6
    names = [name + (f", ECE {score(errors[name])}" if errors and name in errors else "") for name in found]
    legend = _legend([*names, "calibrated"], top, last="axis dash2")
    return axes.svg(title, WIDTH, top + ROW * (len(names) + 1) - 6, [*parts, *legend])


def confusion_chart(counts: NDArray, names: Sequence[str], *, title: str) -> Markup:
    """Cases by true class (rows) and predicted class (columns); shades and percentages are shares of the true class.

    Args:
        counts: (K, K) of `metrics.confusion.confusion`.
        names: of the K classes; long ones are cut, pointing at them shows the whole. Many classes have no numbers in the cells.
    Returns:
        An `<svg>` element; empty when there is no case.
    """
    if not counts.sum():
        return Markup("")
    shown = [_cut(name) for name in names]
    left = 34 + CHARACTER * max(map(len, shown)) + 10
    cell = min(LARGEST_CELL, (WIDTH - left - RIGHT) / len(names))
    is_slanted = any(CHARACTER * len(name) > cell - 6 for name in shown)
    bottom = TOP + cell * len(names)
    below = 18 + (CHARACTER * 0.8 * max(map(len, shown)) if is_slanted else 6)
    parts = [_cell(counts, names, row, column, (left + column * cell, TOP + row * cell), cell)
             for row in range(len(names)) for column in range(len(names))]
    for place, name in list(enumerate(shown))[::math.ceil(NAME_HEIGHT / cell)]:
        middle = (place + 0.5) * cell
        parts.append(axes.text(left - 8, TOP + middle + 4, name, "end"))
        parts.append(_slanted(left + middle + 4, bottom + 14, name) if is_slanted else axes.text(
            left + middle, bottom + 16, name, "middle"))
    parts.append(axes.text(left + cell * len(names) / 2, bottom + below + 14, "predicted class", "middle"))
    parts.append(Markup('<text text-anchor="middle" transform="translate(15 {}) rotate(-90)">true class</text>').format(
        axes.px((TOP + bottom) / 2)))
    return axes.svg(title, WIDTH, bottom + below + 26, parts)


def bland_altman_chart(predicted: ArrayLike, truths: ArrayLike, *, title: str, unit: str = "") -> Markup:
    """Predicted minus true value over their mean, with bias, limits of agreement and their confidence intervals.

    Args:
        predicted, truths: (n,) of `metrics.regression.bland_altman`.
        unit: of the values.
    Returns:
        An `<svg>` element; empty where fewer than two truths are known.
    Source: Bland & Altman 1986.
    """
    found, given = known(predicted, truths)
    agreement = bland_altman(found, given)
    if agreement.count < 2:
        return Markup("")
    means, differences = (found + given) / 2, found - given
    lines = (("upper limit", agreement.upper, agreement.upper_interval), ("bias", agreement.bias, agreement.bias_interval),
             ("lower limit", agreement.lower, agreement.lower_interval))
    heights = [*differences, 0.0, *(end for _, _, ends in lines for end in ends)]
    y_ticks = axes.ticks(min(heights), max(heights))
    low, high = float(means.min()), float(means.max())
    margin = 0.04 * (high - low) or 0.5
    x_ticks = [tick for tick in axes.ticks(low, high) if low - margin <= tick <= high + margin]
    frame = Frame(LEFT, TOP, WIDTH - LEFT - LABEL_WIDTH, SIDE * 0.75, (low - margin, high + margin), (y_ticks[0], y_ticks[-1]))
    suffix = f" ({unit})" if unit else ""
    parts = [axes.y_axis(frame, y_ticks, f"predicted − true{suffix}"),
             axes.x_axis(frame, x_ticks, f"mean of predicted and true{suffix}")]
    right, zero = LEFT + frame.width, frame.y(0.0)
    parts.append(axes.line(LEFT, zero, right, zero, "axis"))
    every = -(-len(means) // MOST_DOTS)
    parts += [Markup('<circle class="dot s0" cx="{}" cy="{}" r="{}"/>').format(
        axes.px(frame.x(x)), axes.px(frame.y(y)), DOT_RADIUS) for x, y in zip(means[::every], differences[::every], strict=True)]
    for name, value, ends in lines:
        bottom, top = (frame.y(end) for end in ends)
        parts.append(Markup('<rect class="band" x="{}" y="{}" width="{}" height="{}"/>').format(
            LEFT, axes.px(top), axes.px(frame.width), axes.px(bottom - top)))
        parts.append(axes.line(LEFT, frame.y(value), right, frame.y(value), "mean" if name == "bias" else "mean dash1"))
    parts += _line_labels(frame, lines)
    note = f"; every {every}. case is shown" if every > 1 else ""
    return axes.svg(f"{title}{note}", WIDTH, TOP + frame.height + BOTTOM, parts)


def _curve_chart(curves: Mapping[str, NDArray], chance: Sequence[Markup], title: str, labels: tuple[str, str],
                 names: Sequence[str], marks: Mapping[str, tuple[float, float]], chance_name: str) -> Markup:
    if not curves:
        return Markup("")
    frame = Frame(LEFT, TOP, SIDE, SIDE, (0.0, 1.0), (0.0, 1.0))
    parts = [axes.y_axis(frame, SHARES, labels[1]), axes.x_axis(frame, SHARES, labels[0]), *chance]
    parts += [_polyline(frame, points, place) for place, points in enumerate(curves.values())]
    marked = {place: marks[name] for place, name in enumerate(curves) if name in marks}
    parts += [_ring(frame.x(x), frame.y(y), place) for place, (x, y) in marked.items()]
    top = TOP + SIDE + BOTTOM + ROW
    rows = [*names, *([chance_name] if chance_name else [])]
    parts += _legend(rows, top, last="axis dash2" if chance_name else "")
    bottom = top + ROW * _legend_rows(rows)
    if marked:
        parts += [_ring(LEFT + SAMPLE / 2, bottom - 4, min(marked)),
                  axes.text(LEFT + SAMPLE + 8, bottom, "decision threshold", "start")]
    return axes.svg(title, WIDTH, bottom + (ROW if marked else 0) - 6, parts)


def _named(curves: Mapping[str, NDArray], areas: Mapping[str, Estimate] | None, area: str) -> list[str]:
    return [f"{name}, {area} {mean_with_interval(areas[name])}" if areas and name in areas else name for name in curves]


def _steps(points: NDArray) -> NDArray:
    """Corners of a curve that keeps the height of a point back to the one before it; the first of points at one recall counts."""
    points = points[np.diff(points[:, 0], prepend=-1.0) > 0]
    starts = np.concatenate([[0.0], points[:-1, 0]])
    return np.stack([np.stack([starts, points[:, 1]], axis=1), points], axis=1).reshape(-1, 2)


def _polyline(frame: Frame, points: NDArray, place: int) -> Markup:
    """A curve; points that lie less than half a unit from the one before are left out, as nobody can see them."""
    placed = np.array([(frame.x(x), frame.y(y)) for x, y in points])
    kept = [0]
    for k in range(1, len(placed)):
        if np.abs(placed[k] - placed[kept[-1]]).max() >= 0.5 or k == len(placed) - 1:
            kept.append(k)
    path = " ".join(f"{axes.px(x)},{axes.px(y)}" for x, y in placed[kept])
    return Markup('<polyline class="{}" points="{}"/>').format(_kind(place), path)


def _kind(place: int) -> str:
    """Classes of a curve's colour and dashes: 24 pairs before one comes again."""
    dash = (place + place // 12) % DASHES
    return f"curve s{place % SERIES_CLASSES}" + (f" dash{dash}" if dash else "")


def _ring(x: float, y: float, place: int) -> Markup:
    return Markup('<circle class="ring s{}" cx="{}" cy="{}" r="5"/>').format(place % SERIES_CLASSES, axes.px(x), axes.px(y))


def _legend(names: Sequence[str], top: float, *, last: str = "") -> list[Markup]:
    """One row per curve below the plot, in two columns where they are many and short.

    Args:
        last: the class of the last row's line, where that is no curve.
    """
    parts, rows = [], _legend_rows(names)
    for place, name in enumerate(names):
        kind = last if last and place == len(names) - 1 else _kind(place)
        left, y = LEFT + place // rows * SIDE / 2, top + place % rows * ROW
        parts.append(axes.line(left, y - 4, left + SAMPLE, y - 4, kind))
        parts.append(axes.text(left + SAMPLE + 8, y, name, "start"))
    return parts


def _legend_rows(names: Sequence[str]) -> int:
    is_short = max(map(len, names)) * CHARACTER + SAMPLE + 16 < SIDE / 2
    return -(-len(names) // 2) if is_short and len(names) > MANY_NAMES else len(names)


def _bin(frame: Frame, one: Bin, place: int) -> Markup:
    low, high = _wilson(one.share, one.count)
    x, colour = frame.x(one.probability), f"s{place % SERIES_CLASSES}"
    name = f"{one.count} cases from {short_number(one.lower)} to {short_number(one.upper)}: {short_number(one.share)} positive"
    return axes.line(x, frame.y(low), x, frame.y(high), f"range {colour}") + Markup(
        '<circle class="dot full {}" cx="{}" cy="{}" r="{}"><title>{}</title></circle>').format(
            colour, axes.px(x), axes.px(frame.y(one.share)), DOT_RADIUS + 0.6, name)


def _wilson(share: float, count: int, level: float = 0.95) -> tuple[float, float]:
    squared = NormalDist().inv_cdf((1 + level) / 2) ** 2
    middle = (share + squared / (2 * count)) / (1 + squared / count)
    reach = math.sqrt(squared * (share * (1 - share) / count + squared / (4 * count**2))) / (1 + squared / count)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def _counts(frame: Frame, bins: Sequence[Bin], place: int, y: float) -> Markup:
    """Numbers of cases below the bins; one that would touch the number before it is left out."""
    parts = [axes.line(3, y - 4, 22, y - 4, _kind(place)), axes.text(26, y, "cases", "start")]
    free = 28 + 5 * CHARACTER
    for one in bins:
        written = short_number(one.count)
        x, half = frame.x(one.probability), CHARACTER * len(written) / 2
        if x - half >= free:
            parts.append(axes.text(x, y, written, "middle"))
            free = x + half + 4
    return Markup("").join(parts)


def _cell(counts: NDArray, names: Sequence[str], row: int, column: int, corner: tuple[float, float], side: float) -> Markup:
    count, total = int(counts[row, column]), int(counts[row].sum())
    share = count / total if total else 0.0
    words = f"{names[row]} predicted as {names[column]}: {count} of {total}"
    x, y = corner
    box = Markup('<rect class="cell{}" x="{}" y="{}" width="{}" height="{}" fill-opacity="{:.3f}"><title>{}</title></rect>')
    parts = [box.format(" right" if row == column else "", axes.px(x + 1), axes.px(y + 1), axes.px(side - 2), axes.px(side - 2),
                        DARKEST * share, words)]
    if side >= SMALLEST_NUMBERED_CELL:
        has_share = side >= 44 and total > 0
        middle = y + side / 2 + (-2 if has_share else 4)
        parts.append(Markup('<text class="ink" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            axes.px(x + side / 2), axes.px(middle), short_number(count)))
        if has_share:
            parts.append(Markup('<text class="ink" x="{}" y="{}" text-anchor="middle">{:.0f} %</text>').format(
                axes.px(x + side / 2), axes.px(middle + 15), 100 * share))
    return Markup("").join(parts)


def _slanted(x: float, y: float, name: str) -> Markup:
    return Markup('<text text-anchor="end" transform="translate({} {}) rotate(-50)">{}</text>').format(
        axes.px(x), axes.px(y), name)


def _cut(name: str) -> str:
    return name if len(name) <= NAME_LETTERS else name[: NAME_LETTERS - 1] + "…"


def _line_labels(frame: Frame, lines: Sequence[tuple[str, float, tuple[float, float]]]) -> list[Markup]:
    """Name and value beside each line, from the top; where lines are too near to each other, further down."""
    parts, free = [], -math.inf
    for name, value, _ in lines:
        y = max(frame.y(value) - 2, free)
        parts += [axes.text(LEFT + frame.width + 8, y, name, "start"),
                  axes.text(LEFT + frame.width + 8, y + 13, short_number(value).replace("-", "−"), "start")]
        free = y + 30
    return parts
