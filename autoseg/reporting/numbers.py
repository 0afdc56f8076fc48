"""Numbers as they are written in a report: short, and the same everywhere."""

from __future__ import annotations

import math

from autoseg.core.report import Estimate

MISSING = "–"


def short_number(value: float | None) -> str:
    """Four significant digits without trailing zeros (0.8912, 12.5, 1,834, 2e-05); a dash for nan and None."""
    if value is None or math.isnan(value):
        return MISSING
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e15:
        return f"{value:.3g}"
    decimals = max(0, 3 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def score(value: float) -> str:
    """A score with a fixed number of decimals, so that columns can be compared: three below 10, fewer above."""
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    magnitude = abs(value)
    decimals = 3 if magnitude < 10 else 1 if magnitude < 1000 else 0
    return f"{value:,.{decimals}f}".replace("-", "−")


def mean_with_interval(estimate: Estimate | None) -> str:
    """`mean [lower, upper]`; the mean alone where there is no interval, a dash where there is no estimate."""
    if estimate is None or math.isnan(estimate.mean):
        return MISSING
    if not has_interval(estimate):
        return score(estimate.mean)
    return f"{score(estimate.mean)} [{score(estimate.lower)}, {score(estimate.upper)}]"


def counted(number: int, unit: str) -> str:
    """`1 case`, `2,000 cases`."""
    return f"{number:,} {unit}{'' if number == 1 else 's'}"


def has_interval(estimate: Estimate) -> bool:
    """Whether the interval says something: not with one case, or with the cases of one patient, which vary with nothing."""
    return (estimate.groups or estimate.count) > 1 and not (math.isnan(estimate.lower) or math.isnan(estimate.upper))
