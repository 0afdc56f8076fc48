"""How a slice is held up: which way it is turned, and which letters stand at its borders.

The canonical array axes run to superior (z), posterior (y) and left (x). A reader expects the radiological convention: the
patient's left on the right (axial, coronal), anterior above (axial) or on the left (sagittal), superior above.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from autoseg.core.geometry import CANONICAL, Direction, Geometry

Letters: TypeAlias = tuple[str, str, str, str]

PLANE_NAMES = ("axial", "coronal", "sagittal")
# World axes (S, P, L): the letters of both ends.
ENDS = (("S", "I"), ("P", "A"), ("L", "R"))
# An oblique side gets a second letter where it lies nearer to the direction between two axes than to the axis, as a compass
# changes from N to NE (order of the letters: DICOM PS3.3, C.7.6.1.1.1, the larger component first).
SECOND_LETTER_FROM_DEG = 22.5


def view(volume: NDArray, axis: int, index: int) -> NDArray:
    """The slice of (Z, Y, X) across `axis` as it is looked at: rows downwards, columns to the right."""
    plane = np.take(volume, index, axis=axis)
    return np.ascontiguousarray(plane if axis == 0 else plane[::-1])


def side_letters(direction: Direction, axis: int) -> Letters:
    """Letters at top, right, bottom and left of a slice across `axis`: the side of the patient that lies there."""
    axes = np.asarray(direction, dtype=np.float64)
    row, column = (a for a in range(3) if a != axis)
    down = axes[:, row] if axis == 0 else -axes[:, row]
    right = axes[:, column]
    return letters_towards(-down), letters_towards(right), letters_towards(down), letters_towards(-right)


def letters_towards(vector: NDArray[np.float64]) -> str:
    """`A`, or `AS` for a direction between two axes; `vector` in (S, P, L)."""
    order = np.argsort(-np.abs(vector), kind="stable")
    named = [ENDS[world][0 if vector[world] > 0 else 1] for world in order]
    largest, second = abs(vector[order[0]]), abs(vector[order[1]])
    return named[0] + (named[1] if second > largest * math.tan(math.radians(SECOND_LETTER_FROM_DEG)) else "")


def tilt_deg(direction: Direction) -> float:
    """Largest angle between an array axis and the body axis that it is nearest to."""
    cosines = np.clip(np.abs(np.diagonal(np.asarray(direction))), 0.0, 1.0)
    return float(np.degrees(np.arccos(cosines.min())))


def is_placed(geometry: Geometry) -> bool:
    """False for a grid at the origin along the canonical axes: what a file gets that knows of no patient (PNG, TIFF)."""
    return not (geometry.origin_mm == (0.0, 0.0, 0.0) and geometry.direction == CANONICAL)


def has_size(geometry: Geometry) -> bool:
    """False for such a grid whose voxels are exactly 1 by 1 by 1: their size is not known."""
    return is_placed(geometry) or geometry.spacing_mm != (1.0, 1.0, 1.0)
