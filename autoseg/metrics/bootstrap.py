"""Bootstrap intervals over patients: of means over units, and of any statistic of scores and truths."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autoseg.core.report import Estimate

# Resamples; the percentiles of a 95 % interval then vary by about a hundredth of its width (Efron & Tibshirani 1993,
# section 19.3, ask for at least 1000).
DRAWS = 2000
# Draws of units that are held at once.
BLOCK_UNITS = 4_000_000

# (scores (n, ...), truths (n, ...)) -> one number, nan where it is not defined.
Statistic: TypeAlias = Callable[[NDArray, NDArray], float]
# The same for many resamples, from how often each unit was drawn: (scores, truths, counts (draws, n)) -> (draws,).
Resampled: TypeAlias = Callable[[NDArray, NDArray, NDArray], NDArray]


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


def bootstrap_statistic(statistic: Statistic, scores: ArrayLike, truths: ArrayLike, rng: np.random.Generator, *,
                        resampled: Resampled | None = None, groups: Sequence[str] | None = None, draws: int = DRAWS,
                        level: float = 0.95) -> Estimate:
    """A statistic of scores and truths with its percentile bootstrap interval.

    Args:
        scores, truths: (n, ...), one row per unit; a unit is left out where all its truths are nan.
        resampled: the same statistic for all draws at once (`roc.resampled_aucs`); None: `statistic` is called once per draw.
        groups: the patient of each unit; patients are drawn, each with all its units.
    Returns:
        `mean` is the statistic itself, and there is no median. The bounds are nan where more than 1 - `level` of the draws
        leave it undefined (AUC with two positive patients: most others look like one of them, so that the draws say too
        little); fewer undefined draws are left out. `undefined` counts the units that were left out.
    Source: Efron & Tibshirani 1993, chapter 13; whole groups: Davison & Hinkley 1997, section 3.8 (strategy 1).
    """
    scored, given = np.asarray(scores, dtype=np.float64), np.asarray(truths, dtype=np.float64)
    is_known = ~np.atleast_1d(np.isnan(given).all(axis=tuple(range(1, given.ndim))))
    scored, given = scored[is_known], given[is_known]
    if not len(given):
        return Estimate(math.nan, math.nan, math.nan, math.nan, 0, len(is_known))
    names = np.arange(len(is_known)) if groups is None else np.asarray(groups)
    patients = np.unique(names[is_known], return_inverse=True)[1].ravel()
    values = np.concatenate([
        resampled(scored, given, counts) if resampled else _one_by_one(statistic, scored, given, counts)
        for counts in _drawn_counts(patients, rng, draws)])
    lower, upper = _percentiles(values, level)
    number = int(patients.max()) + 1
    return Estimate(float(statistic(scored, given)), math.nan, lower, upper, len(given), len(is_known) - len(given),
                    number if number < len(given) else 0)


def bootstrap_difference(statistic: Statistic, scores: ArrayLike, others: ArrayLike, truths: ArrayLike,
                         rng: np.random.Generator, *, resampled: Resampled | None = None, groups: Sequence[str] | None = None,
                         draws: int = DRAWS, level: float = 0.95) -> Estimate:
    """Statistic of `scores` minus that of `others` on the same units, both in the same resamples: the paired difference.

    Args and returns as in `bootstrap_statistic`; scores and others have one shape.
    """
    pair = np.stack([np.asarray(scores, dtype=np.float64), np.asarray(others, dtype=np.float64)], axis=1)

    def difference(both: NDArray, given: NDArray) -> float:
        return statistic(both[:, 0], given) - statistic(both[:, 1], given)

    def differences(both: NDArray, given: NDArray, counts: NDArray) -> NDArray:
        assert resampled is not None
        return resampled(both[:, 0], given, counts) - resampled(both[:, 1], given, counts)

    return bootstrap_statistic(difference, pair, truths, rng, resampled=differences if resampled else None, groups=groups,
                               draws=draws, level=level)


def _drawn_counts(patients: NDArray, rng: np.random.Generator, draws: int):
    """How often each unit is drawn, block after block of (some draws, n); `patients` are numbered from 0."""
    number = int(patients.max()) + 1
    block = max(1, BLOCK_UNITS // len(patients))
    for first in range(0, draws, block):
        size = min(block, draws - first)
        drawn = rng.integers(number, size=(size, number)) + number * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * number).reshape(size, number)[:, patients]


def _one_by_one(statistic: Statistic, scores: NDArray, truths: NDArray, counts: NDArray) -> NDArray:
    rows = [np.repeat(np.arange(len(scores)), count) for count in counts]
    return np.array([statistic(scores[row], truths[row]) for row in rows], dtype=np.float64)


def _percentiles(values: NDArray, level: float) -> tuple[float, float]:
    """Lower and upper bound of the middle `level` of resampled values; nan where too few are defined."""
    defined = np.sort(values[~np.isnan(values)])
    if len(defined) < level * len(values):
        return math.nan, math.nan
    outside = (1 - level) / 2
    last = len(defined) - 1
    return float(defined[math.floor(outside * last)]), float(defined[math.ceil((1 - outside) * last)])


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
