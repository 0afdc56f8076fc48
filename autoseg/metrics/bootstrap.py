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


def bootstrap_mean(values: Sequence[float], rng: np.random.Generator, *, groups: Sequence[str] | None = None,
                   draws: int = DRAWS, level: float = 0.95) -> Estimate:
    """Mean and median over units with the percentile bootstrap interval of the mean.

    Args:
        values: one score per unit; nan where it is not defined. inf (a distance to an empty mask) is kept: the mean and
            the upper end are then inf, the median shows the rest.
        groups: the patient of each unit. Units of a patient resemble each other, so patients are drawn, each with all its
            units; None: every unit is its own patient.
        draws: resamples of the units (or patients), with replacement.
        level: share of the resampled means inside the interval.
    Returns:
        `undefined` counts the nan; all numbers are nan when no unit is defined.
    Source: Efron & Tibshirani 1993, chapter 13; whole groups: Davison & Hinkley 1997, section 3.8 (strategy 1).
    """
    scores = np.asarray(values, dtype=np.float64)
    is_defined = ~np.isnan(scores)
    defined = scores[is_defined]
    undefined = len(scores) - len(defined)
    if not len(defined):
        return Estimate(math.nan, math.nan, math.nan, math.nan, 0, undefined)
    sums, counts = _totals(defined, np.arange(len(scores)) if groups is None else np.asarray(groups), is_defined)
    means = np.sort(_resampled_means(sums, counts, rng, draws))
    # Order statistics instead of interpolation: halfway between a number and inf there is nothing.
    outside = (1 - level) / 2
    lower = means[math.floor(outside * (draws - 1))]
    upper = means[math.ceil((1 - outside) * (draws - 1))]
    return Estimate(float(defined.mean()), _median(defined), float(lower), float(upper), len(defined), undefined,
                    len(sums) if len(sums) < len(defined) else 0)


def _totals(defined: NDArray[np.float64], groups: NDArray, is_defined: NDArray[np.bool_]) -> tuple[NDArray, NDArray]:
    """Sum and number of the defined scores of every group that has one, groups in order of their first unit."""
    _, first, group = np.unique(groups[is_defined], return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))[group.ravel()]
    return np.bincount(order, weights=defined), np.bincount(order)


def _resampled_means(sums: NDArray[np.float64], counts: NDArray[np.intp], rng: np.random.Generator,
                     draws: int) -> NDArray[np.float64]:
    """Means (draws,) over the units of groups drawn with replacement, a million groups at a time."""
    block = max(1, 1_000_000 // len(sums))
    means = []
    for first in range(0, draws, block):
        drawn = rng.integers(len(sums), size=(min(block, draws - first), len(sums)))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return np.concatenate(means)


def _median(defined: NDArray[np.float64]) -> float:
    """The middle score; inf when half of the scores or more are."""
    return math.inf if np.isinf(np.sort(defined)[len(defined) // 2]) else float(np.median(defined))
