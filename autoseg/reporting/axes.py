"""What charts are made of: the plotting area, its axes and round numbers on them, and text that cannot become markup."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from autoseg.reporting.numbers import short_number


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


def svg(title: str, width: float, height: float, parts: Sequence[Markup]) -> Markup:
    """A chart of `width` by `height` picture units with its title above the parts."""
    heading = Markup('<text class="title" x="{}" y="15">{}</text>').format(8, title)
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>').format(
        width, height, title, heading, Markup("").join(parts))


def text(x: float, y: float, content: str, anchor: str) -> Markup:
    """A text that starts, has its middle or ends at x (`start`, `middle`, `end`) and stands on y."""
    return Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(px(x), px(y), anchor, content)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A straight line of a class of the style sheet."""
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(kind, px(x1), px(y1), px(x2), px(y2))


def x_axis(frame: Frame, values: Sequence[float], label: str, *, grid: bool = False) -> Markup:
    """The axis below the area, with its numbers and label; `grid`: lines over the whole height at the numbers."""
    bottom, right = frame.top + frame.height, frame.left + frame.width
    parts = [line(frame.left, bottom, right, bottom, "axis")]
    for value in values:
        top = frame.top if grid else bottom
        parts.append(line(frame.x(value), top, frame.x(value), bottom + 4, "grid"))
        parts.append(text(frame.x(value), bottom + 17, short_number(value), "middle"))
    parts.append(text(frame.left + frame.width / 2, bottom + 34, label, "middle"))
    return Markup("").join(parts)


def y_axis(frame: Frame, values: Sequence[float], label: str) -> Markup:
    """Numbers left of the area with lines over its whole width, and the label upright beside them."""
    parts = []
    for value in values:
        parts.append(line(frame.left - 4, frame.y(value), frame.left + frame.width, frame.y(value), "grid"))
        parts.append(text(frame.left - 8, frame.y(value) + 4, short_number(value), "end"))
    middle = frame.top + frame.height / 2
    parts.append(Markup('<text text-anchor="middle" transform="translate(13 {}) rotate(-90)">{}</text>').format(
        px(middle), label))
    return Markup("").join(parts)


def px(value: float) -> str:
    """A coordinate with a tenth of a unit."""
    return f"{value:.1f}".removesuffix(".0")


def _round_steps(smallest: float):
    power = 10.0 ** math.floor(math.log10(smallest))
    return (step * power for step in (1, 2, 5, 10, 20, 50))


def _share(value: float, limits: tuple[float, float]) -> float:
    return (value - limits[0]) / (limits[1] - limits[0])
