"""Charts as inline SVG: curves over the iterations of a run, and the scores of single cases.

Colours come from classes that the page's style sheet defines, so that a chart follows the light or dark style. Every
text is escaped; the result is `Markup`, which a template inserts as it is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from autoseg.reporting.numbers import short_number

WIDTH, HEIGHT = 520, 260
LEFT, RIGHT, TOP, BOTTOM = 74, 14, 28, 42
# Height of a row of dots; lower where there are more rows than fill a screen.
DOT_ROW, LOW_DOT_ROW, MANY_ROWS = 46, 24, 12
DOT_RADIUS = 3.2
# Dots that a chart can hold and still be read and be quick to load; more become ranges.
MOST_DOTS = 4000
SERIES_CLASSES = 6  # the style sheet has .s0 to .s5


@dataclass(frozen=True)
class Frame:
    """Plotting area in picture units, and the values at its borders."""

    left: float
    top: float
    width: float
    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    log_y: bool = False

    def x(self, value: float) -> float:
        return self.left + self.width * _share(value, self.x_range)

    def y(self, value: float) -> float:
        if self.log_y:
            logs = (math.log10(self.y_range[0]), math.log10(self.y_range[1]))
            return self.top + self.height * (1.0 - _share(math.log10(value), logs))
        return self.top + self.height * (1.0 - _share(value, self.y_range))


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
    y_ticks = log_ticks(min(ys), max(ys)) if log_y else ticks(min(ys), max(ys))
    x_ticks = [t for t in ticks(min(xs), max(xs)) if min(xs) <= t <= max(xs)]
    frame = Frame(LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM, _widened(min(xs), max(xs)),
                  _widened(min(ys + y_ticks), max(ys + y_ticks)), log_y)
    parts = [_y_axis(frame, y_ticks, y_label), _x_axis(frame, x_ticks, x_label)]
    parts += [_polyline(frame, found, place) for place, found in enumerate(points.values())]
    parts += [_legend(frame, [lines[column] for column in points])] if len(points) > 1 else []
    return _svg(title, WIDTH, HEIGHT, parts)


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
    x_ticks = ticks(min(found), max(found))
    row_height = DOT_ROW if len(scores) <= MANY_ROWS else LOW_DOT_ROW
    height = TOP + BOTTOM + row_height * len(scores)
    left = min(40 + 7 * max(len(name) for name in scores), WIDTH // 3)
    frame = Frame(left, TOP, WIDTH - left - RIGHT, height - TOP - BOTTOM,
                  _widened(min(found + x_ticks), max(found + x_ticks)), (0.0, 1.0))
    parts = [_x_axis(frame, x_ticks, x_label, grid=True)]
    draw = _dots if len(found) <= MOST_DOTS else _ranges
    half = row_height / 4 if baseline else row_height / 2
    for place, (name, row) in enumerate(scores.items()):
        middle = TOP + row_height * (place + 0.5)
        parts.append(_text(left - 8, middle + 4, name, "end"))
        parts.append(draw(frame, row, (middle - half if baseline else middle, half), "s0", f"{name}, model"))
        parts.append(draw(frame, (baseline or {}).get(name, {}), (middle + half, half), "hollow", f"{name}, baseline"))
    return _svg(title, WIDTH, height, parts)


def ticks(low: float, high: float, *, intervals: int = 6) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from at or below `low` to at or above `high`.

    The values span at most `intervals` of them.
    """
    span = high - low if high > low else abs(low) or 1.0
    step = next(s for s in _round_steps(span / intervals) if span / s <= intervals)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{place * step:.12g}") for place in range(first, max(last, first + 1) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten from at or below `low` to at or above `high`; both above 0."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    every = max(1, math.ceil((last - first) / 6))
    return [10.0**power for power in range(first, max(last, first + 1) + every, every)]


def _round_steps(smallest: float):
    power = 10.0 ** math.floor(math.log10(smallest))
    return (step * power for step in (1, 2, 5, 10, 20, 50))


def _points(rows: Sequence[Mapping[str, float]], x: str, column: str, log_y: bool) -> list[tuple[float, float]]:
    pairs = [(row.get(x), row.get(column)) for row in rows]
    return [(float(a), float(b)) for a, b in pairs
            if a is not None and b is not None and math.isfinite(a) and math.isfinite(b) and (b > 0 or not log_y)]


def _widened(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _share(value: float, limits: tuple[float, float]) -> float:
    return (value - limits[0]) / (limits[1] - limits[0])


def _svg(title: str, width: float, height: float, parts: Sequence[Markup]) -> Markup:
    heading = Markup('<text class="title" x="{}" y="15">{}</text>').format(8, title)
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>').format(
        width, height, title, heading, Markup("").join(parts))


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(_px(x), _px(y), anchor, text)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(kind, _px(x1), _px(y1), _px(x2), _px(y2))


def _x_axis(frame: Frame, values: Sequence[float], label: str, *, grid: bool = False) -> Markup:
    bottom, right = frame.top + frame.height, frame.left + frame.width
    parts = [_line(frame.left, bottom, right, bottom, "axis")]
    for value in values:
        top = frame.top if grid else bottom
        parts.append(_line(frame.x(value), top, frame.x(value), bottom + 4, "grid"))
        parts.append(_text(frame.x(value), bottom + 17, short_number(value), "middle"))
    parts.append(_text(frame.left + frame.width / 2, bottom + 34, label, "middle"))
    return Markup("").join(parts)


def _y_axis(frame: Frame, values: Sequence[float], label: str) -> Markup:
    parts = []
    for value in values:
        parts.append(_line(frame.left - 4, frame.y(value), frame.left + frame.width, frame.y(value), "grid"))
        parts.append(_text(frame.left - 8, frame.y(value) + 4, short_number(value), "end"))
    middle = frame.top + frame.height / 2
    parts.append(Markup('<text text-anchor="middle" transform="translate(13 {}) rotate(-90)">{}</text>').format(
        _px(middle), label))
    return Markup("").join(parts)


def _polyline(frame: Frame, points: Sequence[tuple[float, float]], place: int) -> Markup:
    colour = f"s{place % SERIES_CLASSES}"
    if len(points) == 1:
        return Markup('<circle class="dot {}" cx="{}" cy="{}" r="3"/>').format(
            colour, _px(frame.x(points[0][0])), _px(frame.y(points[0][1])))
    path = " ".join(f"{_px(frame.x(a))},{_px(frame.y(b))}" for a, b in points)
    return Markup('<polyline class="curve {}" points="{}"/>').format(colour, path)


def _legend(frame: Frame, names: Sequence[str]) -> Markup:
    parts, right = [], frame.left + frame.width
    for place, name in reversed(list(enumerate(names))):
        parts.append(_text(right, 15, name, "end"))
        right -= 6.6 * len(name) + 22
        parts.append(_line(right, 11, right + 16, 11, f"curve s{place % SERIES_CLASSES}"))
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
            kind, _px(frame.x(value)), _px(middle + shift), DOT_RADIUS, case, short_number(value)))
    return Markup("").join([*parts, _mean_bar(frame, list(values.values()), band, name)])


def _ranges(frame: Frame, row: Mapping[str, float], band: tuple[float, float], kind: str, name: str) -> Markup:
    """The middle 90 % of a row's values as a thin line, the middle half as a thick one."""
    values = sorted(value for value in row.values() if math.isfinite(value))
    if not values:
        return Markup("")
    parts = []
    for low, high, line in ((0.05, 0.95, "range"), (0.25, 0.75, "range middle")):
        ends = [values[round(share * (len(values) - 1))] for share in (low, high)]
        parts.append(_line(frame.x(ends[0]), band[0], frame.x(ends[1]), band[0], f"{line} {kind}"))
    return Markup("").join([*parts, _mean_bar(frame, values, band, f"{name}, {len(values)} cases")])


def _mean_bar(frame: Frame, values: Sequence[float], band: tuple[float, float], name: str) -> Markup:
    mean, reach = math.fsum(values) / len(values), min(band[1], 9)
    return Markup('<line class="mean" x1="{0}" y1="{1}" x2="{0}" y2="{2}"><title>{3}: mean {4}</title></line>').format(
        _px(frame.x(mean)), _px(band[0] - reach), _px(band[0] + reach), name, short_number(mean))


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


