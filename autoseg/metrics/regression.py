"""How far predicted values lie from measured ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from autoseg.metrics.roc import known


@dataclass(frozen=True)
class Agreement:
    """Bland and Altman's description of predicted minus true values, in the unit of the values.

    Attributes:
        bias: mean difference.
        lower, upper: limits of agreement, between which 95 % (or the level asked for) of the differences lie if they are normal.
        bias_interval, lower_interval, upper_interval: confidence intervals of these three.
        count: cases.
    """

    bias: float
    lower: float
    upper: float
    bias_interval: tuple[float, float]
    lower_interval: tuple[float, float]
    upper_interval: tuple[float, float]
    count: int


def mean_absolute_error(predicted: ArrayLike, truths: ArrayLike) -> float:
    """Mean distance, in the unit of the values; cases whose truth is nan are left out; nan without any."""
    found, given = known(predicted, truths)
    return float(np.abs(found - given).mean()) if len(given) else math.nan


def r_squared(predicted: ArrayLike, truths: ArrayLike) -> float:
    """Share of the variance of the truths that the predictions explain, at most 1; 0 for their mean, negative for worse.

    Cases whose truth is nan are left out; nan where all truths are equal, or there are fewer than two.
    """
    found, given = known(predicted, truths)
    spread = float(((given - given.mean()) ** 2).sum()) if len(given) else 0.0
    return 1 - float(((found - given) ** 2).sum()) / spread if spread > 0 else math.nan


def bland_altman(predicted: ArrayLike, truths: ArrayLike, level: float = 0.95) -> Agreement:
    """Bias and limits of agreement of predicted with true values, with confidence intervals.

    Args:
        predicted, truths: (n,) independent cases in one unit; those whose truth is nan are left out.
        level: of the limits, and of the confidence intervals.
    Returns:
        nan without a case; limits and intervals are nan with one.
    Source: Bland & Altman 1999: the variance of a limit is s^2 (1/n + z^2 / (2 (n - 1))).
    """
    from scipy.stats import t

    found, given = known(predicted, truths)
    count = len(given)
    nothing = (math.nan, math.nan)
    if count < 2:
        bias = float((found - given).mean()) if count else math.nan
        return Agreement(bias, math.nan, math.nan, nothing, nothing, nothing, count)
    differences = found - given
    bias, deviation = float(differences.mean()), float(differences.std(ddof=1))
    quantile = NormalDist().inv_cdf((1 + level) / 2)
    student = float(t.ppf((1 + level) / 2, count - 1))
    of_bias = student * deviation / math.sqrt(count)
    of_limit = student * deviation * math.sqrt(1 / count + quantile**2 / (2 * (count - 1)))
    lower, upper = bias - quantile * deviation, bias + quantile * deviation
    return Agreement(bias, lower, upper, (bias - of_bias, bias + of_bias), (lower - of_limit, lower + of_limit),
                     (upper - of_limit, upper + of_limit), count)
