"""Charts as inline SVG: curves over the iterations of a run, and the scores of single cases.

Colours come from classes that the page's style sheet defines, so that a chart follows the light or dark style. Every
text is escaped; the result is `Markup`, which a template inserts as it is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from autoseg.reporting import axes
from autoseg.reporting.axes import Frame
from autoseg.reporting.numbers import short_number

WIDTH, HEIGHT = 520, 260
LEFT, RIGHT, TOP, BOTTOM = 74, 14, 28, 42
# Height of a row of dots; lower where there are more rows than fill a screen.
DOT_ROW, LOW_DOT_ROW, MANY_ROWS = 46, 24, 12
DOT_RADIUS = 3.2
# Dots that a chart can hold and still be read and be quick to load; more become ranges.
MOST_DOTS = 4000
SERIES_CLASSES = 6  # the style sheet has .s0 to .s5
# A legend: width of a letter of the style sheet's size, height of a row, and what an entry takes beside its name.
CHARACTER, LEGEND_ROW, LEGEND_GAP = 6.6, 18, 34


def line_chart(rows: Sequence[Mapping[str, float]], *, x: str, lines: Mapping[str, str], title: str, x_label: str,
               y_label: str, log_y: bool = False) -> Markup:
    """Line chart of columns of `rows`, over the column `x`.

    Args:
        rows: e.g. the lines of a run's metrics file; a row without a column, or with nan, is no point of that line.
        lines: column -> name in the legend; a column without any point is left out.
        log_y: logarithmic y axis; values of 0 and below are no points.
    Returns:
        An `<svg>` element; empty when no line has a point.
    """
    points = {column: _points(rows, x, column, log_y) for column in lines}
    points = {column: found for column, found in points.items() if found}
    if not points:
        return Markup("")
    xs = [p[0] for found in points.values() for p in found]
    ys = [p[1] for found in points.values() for p in found]
    y_ticks = axes.log_ticks(min(ys), max(ys)) if log_y else axes.ticks(min(ys), max(ys))
    x_ticks = [t for t in axes.ticks(min(xs), max(xs)) if min(xs) <= t <= max(xs)]
    frame = Frame(LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM, _widened(min(xs), max(xs)),
                  _widened(min(ys + y_ticks), max(ys + y_ticks)), log_y)
    parts = [axes.y_axis(frame, y_ticks, y_label), axes.x_axis(frame, x_ticks, x_label)]
    parts += [_polyline(frame, found, place) for place, found in enumerate(points.values())]
    names = [lines[column] for column in points] if len(points) > 1 else []
    rows_below = _legend_rows(names, title)
    parts += [_legend(frame, names) if not rows_below else _legend_below(rows_below)] if names else []
    return axes.svg(title, WIDTH, HEIGHT + LEGEND_ROW * len(rows_below), parts)


def dot_plot(scores: Mapping[str, Mapping[str, float]], *, title: str, x_label: str,
             baseline: Mapping[str, Mapping[str, float]] | None = None) -> Markup:
    """One dot per case and row, with the row's mean as a bar; pointing at a dot shows the case's name and score.

    Dots of nearly equal scores stand beside each other. Above `MOST_DOTS` the range of the middle half and of the middle 90 %
    stand for them.

    Args:
        scores: row (a label, for example) -> case -> score; nan and infinity are no dots.
        baseline: the same for the baseline; hollow dots below those of the model.
    Returns:
        An `<svg>` element; empty when there is no score.
    """
    rows = [*scores.values(), *(baseline or {}).values()]
    found = [value for row in rows for value in row.values() if math.isfinite(value)]
    if not found:
        return Markup("")
    x_ticks = axes.ticks(min(found), max(found))
    row_height = DOT_ROW if len(scores) <= MANY_ROWS else LOW_DOT_ROW
    height = TOP + BOTTOM + row_height * len(scores)
    left = min(40 + 7 * max(len(name) for name in scores), WIDTH // 3)
    frame = Frame(left, TOP, WIDTH - left - RIGHT, height - TOP - BOTTOM,
                  _widened(min(found + x_ticks), max(found + x_ticks)), (0.0, 1.0))
    parts = [axes.x_axis(frame, x_ticks, x_label, grid=True)]
    draw = _dots if len(found) <= MOST_DOTS else _ranges
    half = row_height / 4 if baseline else row_height / 2
    for place, (name, row) in enumerate(scores.items()):
        middle = TOP + row_height * (place + 0.5)
        parts.append(axes.text(left - 8, middle + 4, name, "end"))
        parts.append(draw(frame, row, (middle - half if baseline else middle, half), "s0", f"{name}, model"))
        parts.append(draw(frame, (baseline or {}).get(name, {}), (middle + half, half), "hollow", f"{name}, baseline"))
    return axes.svg(title, WIDTH, height, parts)


def _points(rows: Sequence[Mapping[str, float]], x: str, column: str, log_y: bool) -> list[tuple[float, float]]:
    pairs = [(row.get(x), row.get(column)) for row in rows]
    return [(float(a), float(b)) for a, b in pairs
            if a is not None and b is not None and math.isfinite(a) and math.isfinite(b) and (b > 0 or not log_y)]


def _widened(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _polyline(frame: Frame, points: Sequence[tuple[float, float]], place: int) -> Markup:
    colour = f"s{place % SERIES_CLASSES}"
    if len(points) == 1:
        return Markup('<circle class="dot {}" cx="{}" cy="{}" r="3"/>').format(
            colour, axes.px(frame.x(points[0][0])), axes.px(frame.y(points[0][1])))
    path = " ".join(f"{axes.px(frame.x(a))},{axes.px(frame.y(b))}" for a, b in points)
    return Markup('<polyline class="curve {}" points="{}"/>').format(colour, path)


def _legend_rows(names: Sequence[str], title: str) -> list[list[tuple[int, str]]]:
    """Names with their places in rows as wide as the chart; no row where all of them fit beside the title."""
    if sum(CHARACTER * len(name) + LEGEND_GAP for name in names) <= WIDTH - RIGHT - CHARACTER * (len(title) + 4):
        return []
    rows: list[list[tuple[int, str]]] = []
    free = 0.0
    for place, name in enumerate(names):
        wanted = CHARACTER * len(name) + LEGEND_GAP
        if wanted > free or not rows:
            rows, free = [*rows, []], WIDTH - 2 * RIGHT
        rows[-1].append((place, name))
        free -= wanted
    return rows


def _legend_below(rows: Sequence[Sequence[tuple[int, str]]]) -> Markup:
    parts = []
    for number, row in enumerate(rows):
        left, middle = float(RIGHT), HEIGHT + LEGEND_ROW * (number + 0.5)
        for place, name in row:
            parts.append(axes.line(left, middle - 4, left + 16, middle - 4, f"curve s{place % SERIES_CLASSES}"))
            parts.append(axes.text(left + 22, middle, name, "start"))
            left += CHARACTER * len(name) + LEGEND_GAP
    return Markup("").join(parts)


def _legend(frame: Frame, names: Sequence[str]) -> Markup:
    parts, right = [], frame.left + frame.width
    for place, name in reversed(list(enumerate(names))):
        parts.append(axes.text(right, 15, name, "end"))
        right -= CHARACTER * len(name) + 22
        parts.append(axes.line(right, 11, right + 16, 11, f"curve s{place % SERIES_CLASSES}"))
        right -= 12
    return Markup("").join(parts)


def _dots(frame: Frame, row: Mapping[str, float], band: tuple[float, float], kind: str, name: str) -> Markup:
    """Dots in a band (middle, half of its height); those that would cover each other are moved up and down in turn."""
    values = {case: value for case, value in row.items() if math.isfinite(value)}
    if not values:
        return Markup("")
    middle, half = band
    stacks = Counter(round(frame.x(value) / (2 * DOT_RADIUS)) for value in values.values())
    step = min(2 * DOT_RADIUS, 2 * max(half - DOT_RADIUS - 1, 0) / max(stacks.values()))
    placed: Counter[int] = Counter()
    parts = []
    for case, value in values.items():
        column = round(frame.x(value) / (2 * DOT_RADIUS))
        shift = (placed[column] + 1) // 2 * (-1) ** placed[column] * step
        placed[column] += 1
        parts.append(Markup('<circle class="dot {}" cx="{}" cy="{}" r="{}"><title>{}: {}</title></circle>').format(
            kind, axes.px(frame.x(value)), axes.px(middle + shift), DOT_RADIUS, case, short_number(value)))
    return Markup("").join([*parts, _mean_bar(frame, list(values.values()), band, name)])


def _ranges(frame: Frame, row: Mapping[str, float], band: tuple[float, float], kind: str, name: str) -> Markup:
    """The middle 90 % of a row's values as a thin line, the middle half as a thick one."""
    values = sorted(value for value in row.values() if math.isfinite(value))
    if not values:
        return Markup("")
    parts = []
    for low, high, line in ((0.05, 0.95, "range"), (0.25, 0.75, "range middle")):
        ends = [values[round(share * (len(values) - 1))] for share in (low, high)]
        parts.append(axes.line(frame.x(ends[0]), band[0], frame.x(ends[1]), band[0], f"{line} {kind}"))
    return Markup("").join([*parts, _mean_bar(frame, values, band, f"{name}, {len(values)} cases")])


def _mean_bar(frame: Frame, values: Sequence[float], band: tuple[float, float], name: str) -> Markup:
    mean, reach = math.fsum(values) / len(values), min(band[1], 9)
    return Markup('<line class="mean" x1="{0}" y1="{1}" x2="{0}" y2="{2}"><title>{3}: mean {4}</title></line>').format(
        axes.px(frame.x(mean)), axes.px(band[0] - reach), axes.px(band[0] + reach), name, short_number(mean))
