"""Overlap of two masks, and volumes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import GeometryError
from autoseg.core.geometry import Spacing


def dice(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """Dice coefficient, 2 |A and B| / (|A| + |B|).

    Args:
        prediction, reference: bool, same shape.
    Returns:
        Value in [0, 1]; nan when both masks are empty, 0 when one is.
    Raises:
        GeometryError: the shapes differ.
    Source: Dice 1945.
    """
    both, first, second = _counts(prediction, reference)
    return 2 * both / (first + second) if first + second else math.nan


def iou(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """Intersection over union, |A and B| / |A or B|.

    Args, returns and raises as in `dice`. Source: Jaccard 1901.
    """
    both, first, second = _counts(prediction, reference)
    return both / (first + second - both) if first + second else math.nan


def volume_ml(mask: NDArray[np.bool_], spacing_mm: Spacing) -> float:
    """Volume of a mask (Z, Y, X) in millilitres; 0 when it is empty."""
    return float(np.count_nonzero(mask) * math.prod(spacing_mm) / 1000)


def require_same_shape(prediction: NDArray, reference: NDArray) -> None:
    """Nothing, when both masks have one shape.

    Raises:
        GeometryError: they have not.
    """
    if prediction.shape != reference.shape:
        raise GeometryError(f"the prediction is {prediction.shape} and the reference {reference.shape} voxels "
                            "(z, y, x); a score needs both on one grid: predict on the image that the reference was "
                            "drawn on")


def _counts(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Voxels in both masks, in the first and in the second."""
    require_same_shape(prediction, reference)
    return (int(np.count_nonzero(prediction & reference)), int(np.count_nonzero(prediction)),
            int(np.count_nonzero(reference)))
