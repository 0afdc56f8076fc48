"""Boxes around what a heat map points at, and how well they find boxes that people drew.

A box is a half-open range per axis, ((first, last + 1), ...), in the order of the array's axes; two or three of them. Drawn boxes
may begin and end between pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

HeatBox: TypeAlias = tuple[tuple[float, float], ...]
VoxelBox: TypeAlias = tuple[tuple[int, int], ...]
Overlap: TypeAlias = Callable[[HeatBox, HeatBox], float]

# Overlaps with the found box (IoBB) from which a finding counts as located (Wang et al. 2017, table of localisation accuracy).
LOCATED_FROM = (0.1, 0.25, 0.5, 0.75, 0.9)
# Grey values, of 0 to 255, above which a heat map's regions get boxes (Wang et al. 2017, ChestX-ray8, disease localisation).
THRESHOLDS = (60, 180)


@dataclass(frozen=True)
class Localisation:
    """How well boxes find the drawn ones.

    Attributes:
        accuracy: share of the cases with drawn boxes in which a found box overlaps one of them enough; nan without such a case.
        false_positives: found boxes that overlap no drawn one enough, mean over these cases; nan without any.
        cases: with drawn boxes.
    """

    accuracy: float
    false_positives: float
    cases: int


def heat_boxes(heat: NDArray, thresholds: Sequence[float] = THRESHOLDS) -> tuple[VoxelBox, ...]:
    """Boxes around the regions of a heat map above each threshold, of the first threshold first.

    The map is stretched to 0 to 255 first, as in ChestX-ray8; pixels that touch at an edge or a corner are one region (the paper
    calls regions isolated and says no more). A box that both thresholds give stands once.

    Args:
        heat: (Y, X) or (Z, Y, X), any scale; larger is more evidence.
    Returns:
        No box for a map of one value, which points nowhere.
    Source: Wang et al. 2017 (ChestX-ray8, generation of boxes).
    """
    values = np.asarray(heat, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    if not high > low:
        return ()
    grey = (values - low) * (255.0 / (high - low))
    touching = ndimage.generate_binary_structure(values.ndim, values.ndim)
    found = [box for threshold in thresholds for box in ndimage.find_objects(ndimage.label(grey > threshold, touching)[0])]
    return tuple(dict.fromkeys(tuple((side.start, side.stop) for side in box) for box in found))


def iou(found: HeatBox, drawn: HeatBox) -> float:
    """Intersection over union of two boxes."""
    both = _intersection(found, drawn)
    return both / (_size(found) + _size(drawn) - both)


def iobb(found: HeatBox, drawn: HeatBox) -> float:
    """Intersection over the found box: 1 where it lies inside the drawn one, however small it is (Wang et al. 2017)."""
    return _intersection(found, drawn) / _size(found)


def localisation(found: Sequence[Sequence[HeatBox]], drawn: Sequence[Sequence[HeatBox]], *, threshold: float,
                 overlap: Overlap = iobb) -> Localisation:
    """Accuracy and average number of false positives, over the cases in which a box was drawn.

    Args:
        found, drawn: the boxes of each case, in one order of cases.
        threshold: T; a found box is right where its overlap with a drawn one is larger (0.1 to 0.9 in ChestX-ray8).
        overlap: `iobb` or `iou`.
    Source: Wang et al. 2017 (localisation accuracy, average false positive).
    """
    hits = [[any(overlap(box, truth) > threshold for truth in truths) for box in boxes]
            for boxes, truths in zip(found, drawn, strict=True) if len(truths)]
    if not hits:
        return Localisation(math.nan, math.nan, 0)
    cases = len(hits)
    return Localisation(sum(any(case) for case in hits) / cases, sum(case.count(False) for case in hits) / cases, cases)


def points_into(heat: NDArray, region: NDArray[np.bool_]) -> float:
    """The pointing game: 1 where the largest value of a heat map lies in a region, 0 where not.

    Of several equally large values, the share that lies inside; nan for a map of one value. Shapes are equal.
    Source: Zhang et al. 2016 (excitation backprop), here without a tolerance around the region.
    """
    is_largest = heat == heat.max()
    return math.nan if is_largest.all() else float(np.count_nonzero(is_largest & region) / np.count_nonzero(is_largest))


def best_overlap(found: HeatBox, drawn: Sequence[HeatBox], overlap: Overlap = iobb) -> float:
    """The largest overlap of a found box with one of those that were drawn; 0 without any."""
    return max((overlap(found, truth) for truth in drawn), default=0.0)


def _size(box: HeatBox) -> float:
    return math.prod(stop - start for start, stop in box)


def _intersection(one: HeatBox, other: HeatBox) -> float:
    return math.prod(max(0, min(a[1], b[1]) - max(a[0], b[0])) for a, b in zip(one, other, strict=True))
