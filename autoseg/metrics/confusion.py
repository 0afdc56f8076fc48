"""Counts of predicted against true classes, and the rates that follow from them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def confusion(predicted: ArrayLike, truths: ArrayLike, count: int) -> NDArray[np.int64]:
    """Cases by true class (rows) and predicted class (columns): (count, count).

    Args:
        predicted: (n,) classes 0 to count - 1.
        truths: (n,) the same; -1 and nan: not known, the case is left out.
        count: number of classes.
    Raises:
        ValueError: the lengths differ, or a class lies outside.
    """
    found, given = np.asarray(predicted, dtype=np.float64), np.asarray(truths, dtype=np.float64)
    if found.ndim != 1 or found.shape != given.shape:
        raise ValueError(f"predicted {found.shape} and true classes {given.shape} must be lists of one length")
    is_known = ~(np.isnan(given) | (given == -1))
    found, given = found[is_known], given[is_known]
    for name, classes in (("predicted", found), ("true", given)):
        if not np.isin(classes, np.arange(count)).all():
            raise ValueError(f"{name} classes must lie in 0 to {count - 1}, found {np.unique(classes)[:5]}")
    places = given.astype(np.int64) * count + found.astype(np.int64)
    return np.bincount(places, minlength=count * count).reshape(count, count)


def rates(counts: NDArray, index: int) -> dict[str, float]:
    """Rates of one class against all others, from a confusion matrix.

    Returns:
        accuracy, sensitivity, specificity, ppv, npv (predictive values), f1, mcc and balanced_accuracy (mean of sensitivity and
        specificity); nan where the denominator is 0 (mcc: a row or column of the 2 by 2 table is empty).
    Source: Altman & Bland 1994; mcc: Matthews 1975.
    """
    total = float(counts.sum())
    true = float(counts[index, index])
    missed, false = float(counts[index].sum()) - true, float(counts[:, index].sum()) - true
    rest = total - true - missed - false
    sensitivity, specificity = _share(true, true + missed), _share(rest, rest + false)
    margins = (true + false) * (true + missed) * (rest + false) * (rest + missed)
    return {
        "accuracy": _share(true + rest, total), "sensitivity": sensitivity, "specificity": specificity,
        "ppv": _share(true, true + false), "npv": _share(rest, rest + missed), "f1": _share(2 * true, 2 * true + false + missed),
        "mcc": _share(true * rest - false * missed, math.sqrt(margins)), "balanced_accuracy": (sensitivity + specificity) / 2,
    }


def overall(counts: NDArray) -> dict[str, float]:
    """Rates of all classes together, from a confusion matrix.

    Returns:
        accuracy; balanced_accuracy, the mean sensitivity of the classes that have cases; macro_f1, the mean F1 of the classes
        that are true or predicted somewhere; mcc for several classes (Gorodkin 2004); weighted_kappa with quadratic weights, for
        ordered classes (Cohen 1968). nan where not defined.
    """
    matrix = counts.astype(np.float64)
    total, true, found = matrix.sum(), matrix.sum(axis=1), matrix.sum(axis=0)
    hits = np.diagonal(matrix)
    mentioned = true + found > 0
    weights = np.subtract.outer(np.arange(len(matrix)), np.arange(len(matrix))) ** 2
    spread = math.sqrt(float(total**2 - (found**2).sum())) * math.sqrt(float(total**2 - (true**2).sum()))
    return {
        "accuracy": _share(float(hits.sum()), float(total)),
        "balanced_accuracy": _mean(hits[true > 0] / true[true > 0]),
        "macro_f1": _mean(2 * hits[mentioned] / (true + found)[mentioned]),
        "mcc": _share(float(total * hits.sum() - (true * found).sum()), spread),
        "weighted_kappa": 1 - _share(float((weights * matrix).sum() * total), float((weights * np.outer(true, found)).sum())),
    }


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _mean(values: NDArray) -> float:
    return float(values.mean()) if len(values) else math.nan
