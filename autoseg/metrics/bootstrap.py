"""Means over units with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoseg.core.report import Estimate

# Resamples; the percentiles of a 95 % interval then vary by about a hundredth of its width (Efron & Tibshirani 1993,
# section 19.3, ask for at least 1000).
DRAWS = 2000


def bootstrap_mean(values: Sequence[float], rng: np.random.Generator, *, draws: int = DRAWS,
                   level: float = 0.95) -> Estimate:
    """Mean and median over units with the percentile bootstrap interval of the mean.

    Args:
        values: one score per unit; nan where it is not defined. inf (a distance to an empty mask) is kept: the mean and
            the upper end are then inf, the median shows the rest.
        draws: resamples of the units, with replacement.
        level: share of the resampled means inside the interval.
    Returns:
        `undefined` counts the nan; all numbers are nan when no unit is defined.
    Source: Efron & Tibshirani 1993, chapter 13.
    """
    scores = np.asarray(values, dtype=np.float64)
    defined = scores[~np.isnan(scores)]
    undefined = len(scores) - len(defined)
    if not len(defined):
        return Estimate(math.nan, math.nan, math.nan, math.nan, 0, undefined)
    means = np.sort(_resampled_means(defined, rng, draws))
    # Order statistics instead of interpolation: halfway between a number and inf there is nothing.
    outside = (1 - level) / 2
    lower = means[math.floor(outside * (draws - 1))]
    upper = means[math.ceil((1 - outside) * (draws - 1))]
    return Estimate(float(defined.mean()), _median(defined), float(lower), float(upper), len(defined), undefined)


def _resampled_means(defined: NDArray[np.float64], rng: np.random.Generator, draws: int) -> NDArray[np.float64]:
    """Means (draws,) of units drawn with replacement, a million numbers at a time."""
    block = max(1, 1_000_000 // len(defined))
    return np.concatenate([
        defined[rng.integers(len(defined), size=(min(block, draws - first), len(defined)))].mean(axis=1)
        for first in range(0, draws, block)])


def _median(defined: NDArray[np.float64]) -> float:
    """The middle score; inf when half of the scores or more are."""
    return math.inf if np.isinf(np.sort(defined)[len(defined) // 2]) else float(np.median(defined))
