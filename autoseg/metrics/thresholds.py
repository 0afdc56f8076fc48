"""From which score on a case is called positive: the threshold that serves a declared utility best."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autoseg.core.errors import choose
from autoseg.metrics.roc import by_class

# (true, false, positives, negatives, value) -> utility, larger is better: cases called positive that are and that are not, per
# candidate threshold, of all positive and all negative cases; `value` is the number that belongs to the utility.
Utility = Callable[[NDArray, NDArray, int, int, float], NDArray]


@dataclass(frozen=True)
class Threshold:
    """A decision: cases with scores at or above `score` are positive; with what sensitivity and specificity."""

    score: float
    sensitivity: float
    specificity: float


def _youden(true, false, positives, negatives, value):
    return true / positives - false / negatives


def _f1(true, false, positives, negatives, value):
    return 2 * true / (true + false + positives)


def _sensitivity(true, false, positives, negatives, value):
    # rounding must not exclude 9 of 10 where 0.9 is asked for
    return np.where(1 - false / negatives >= value - 1e-12, true / positives, -1.0)


def _specificity(true, false, positives, negatives, value):
    return np.where(true / positives >= value - 1e-12, 1 - false / negatives, -1.0)


def _cost(true, false, positives, negatives, value):
    return -(value * (positives - true) + false)


UTILITIES: dict[str, Utility] = {
    "youden": _youden, "f1": _f1, "sensitivity_at_specificity": _sensitivity, "specificity_at_sensitivity": _specificity,
    "cost": _cost,
}


def best_threshold(scores: ArrayLike, truths: ArrayLike, utility: str, value: float = math.nan) -> Threshold:
    """The threshold with the largest utility on these cases; fit it out of fold.

    Args:
        scores, truths: as in `roc.auc`.
        utility: `youden` (sensitivity + specificity - 1, Youden 1950), `f1`, `sensitivity_at_specificity` (the largest
            sensitivity among thresholds with a specificity of at least `value`), `specificity_at_sensitivity`, or `cost`
            (smallest expected cost when a missed case costs `value` times a false alarm, at the prevalence of these cases;
            Metz 1978).
        value: the number that the last three need.
    Returns:
        A finite threshold halfway between two neighbouring scores (the lowest score: all cases are positive; the next number
        above the highest: none is). Of several that are equally good the lowest, so that fewer cases are missed. All nan
        where one of the classes has no case.
    Raises:
        UsageError: no such utility. ValueError: `value` is missing or makes no sense.
    """
    rule = choose(UTILITIES, utility, "utility")
    _require(utility, value)
    positives, negatives = by_class(scores, truths)
    if not (len(positives) and len(negatives)):
        return Threshold(math.nan, math.nan, math.nan)
    distinct = np.unique(np.concatenate([positives, negatives]))
    between = (distinct[:-1] + distinct[1:]) / 2
    # the half of two neighbouring floats can be the lower one, which would be called positive
    between = np.where(between > distinct[:-1], between, distinct[1:])
    candidates = np.concatenate([distinct[:1], between, [np.nextafter(distinct[-1], math.inf)]])
    true = len(positives) - np.searchsorted(np.sort(positives), candidates, "left")
    false = len(negatives) - np.searchsorted(np.sort(negatives), candidates, "left")
    place = int(np.argmax(rule(true, false, len(positives), len(negatives), value)))
    return Threshold(float(candidates[place]), float(true[place] / len(positives)), float(1 - false[place] / len(negatives)))


def _require(utility: str, value: float) -> None:
    if "_at_" in utility and not 0 <= value <= 1:
        raise ValueError(f"utility {utility!r} needs a share from 0 to 1, found {value}")
    if utility == "cost" and not 0 < value < math.inf:
        raise ValueError(f"utility 'cost' needs how many false alarms a missed case is worth, found {value}")
