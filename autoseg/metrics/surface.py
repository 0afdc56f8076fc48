"""Distances between the surfaces of two masks, measured once and read by cheap scores.

Surface elements stand in the middle of every 2 x 2 x 2 block of voxels that is partly inside a mask. Each is weighted
by the area of the surface in its block, so that the scores depend little on how a surface lies in the voxel grid.
Source: Nikolov et al. 2021, J Med Internet Res 23(7):e26151, "surface Dice similarity coefficient".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from autoseg.core.geometry import Spacing
from autoseg.metrics.overlap import require_same_shape
from autoseg.ops.crop import bounding_box, crop


@dataclass(frozen=True)
class SurfaceDistances:
    """Distance of every surface element of a mask to the nearest one of the other mask, and its area.

    Attributes:
        prediction_mm, reference_mm: ascending; inf when the other mask is empty, no entry when the mask itself is.
        prediction_areas_mm2, reference_areas_mm2: same order; lengths in mm for a 2-D image.
    """

    prediction_mm: NDArray[np.float64]
    prediction_areas_mm2: NDArray[np.float64]
    reference_mm: NDArray[np.float64]
    reference_areas_mm2: NDArray[np.float64]


def surface_distances(prediction: NDArray[np.bool_], reference: NDArray[np.bool_],
                      spacing_mm: Spacing) -> SurfaceDistances:
    """Distances between the surfaces of both masks, in mm; the expensive step of the scores below.

    A mask that touches the border of the image is closed there. An image of one slice has contours instead of surfaces.

    Args:
        prediction, reference: bool (Z, Y, X), same shape.
        spacing_mm: voxel size along z, y, x.
    Raises:
        GeometryError: the shapes differ.
    """
    require_same_shape(prediction, reference)
    box = bounding_box(prediction | reference)
    flat = next((axis for axis, size in enumerate(prediction.shape) if size == 1), None)
    spacing = [s for axis, s in enumerate(spacing_mm) if axis != flat]
    codes = [_neighbour_codes(part if flat is None else part.squeeze(flat))
             for part in (crop(prediction, box), crop(reference, box))]
    areas = _areas_2d(*spacing) if flat is not None else _areas_3d(*spacing)
    first, first_areas = _nearest(codes[0], codes[1], areas, spacing)
    second, second_areas = _nearest(codes[1], codes[0], areas, spacing)
    return SurfaceDistances(first, first_areas, second, second_areas)


def surface_dice(distances: SurfaceDistances, tolerance_mm: float) -> float:
    """Share of both surfaces that lies within `tolerance_mm` of the other one.

    Returns:
        Value in [0, 1]; nan when both masks are empty, 0 when one is.
    """
    total = distances.prediction_areas_mm2.sum() + distances.reference_areas_mm2.sum()
    if not total:
        return math.nan
    near = (distances.prediction_areas_mm2[distances.prediction_mm <= tolerance_mm].sum()
            + distances.reference_areas_mm2[distances.reference_mm <= tolerance_mm].sum())
    return float(near / total)


def hausdorff_mm(distances: SurfaceDistances, percent: float = 95.0) -> float:
    """Distance within which `percent` of each surface lies of the other one, the larger of both directions (HD95).

    Returns:
        Millimetres; nan when both masks are empty, inf when one is.
    """
    sides = [(distances.prediction_mm, distances.prediction_areas_mm2),
             (distances.reference_mm, distances.reference_areas_mm2)]
    return max((_weighted_percentile(mm, areas, percent) for mm, areas in sides if len(mm)), default=math.nan)


def _weighted_percentile(ascending: NDArray[np.float64], weights: NDArray[np.float64], percent: float) -> float:
    """Smallest value at or below which lies at least `percent` of the weight."""
    share = np.cumsum(weights) / weights.sum()
    return float(ascending[min(int(np.searchsorted(share, percent / 100)), len(ascending) - 1)])


def _neighbour_codes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Which corners of every block of two voxels per axis are inside: bits, first corner highest; shape + 1."""
    padded = np.pad(mask, 1).view(np.uint8)
    codes = np.zeros([size + 1 for size in mask.shape], np.uint8)
    for corner in product((0, 1), repeat=mask.ndim):
        codes <<= 1
        codes |= padded[tuple(slice(offset, offset + size) for offset, size in zip(corner, codes.shape, strict=True))]
    return codes


def _nearest(codes: NDArray[np.uint8], others: NDArray[np.uint8], areas: NDArray[np.float64],
             spacing_mm: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances in mm, ascending, from the elements of one surface to the nearest of the other, and their areas."""
    full = len(areas) - 1
    surface = (codes != 0) & (codes != full)
    other = (others != 0) & (others != full)
    distance = np.zeros(int(np.count_nonzero(surface)))
    apart = ~other[surface]  # where both surfaces share a block the distance is 0
    if not other.any():
        distance[:] = math.inf
    elif apart.any():
        tree = cKDTree(np.argwhere(other) * spacing_mm, balanced_tree=False, compact_nodes=False)
        distance[apart] = tree.query(np.argwhere(surface & ~other) * spacing_mm)[0]
    order = np.argsort(distance, kind="stable")
    return distance[order], areas[codes[surface]][order]


def _areas_3d(z_mm: float, y_mm: float, x_mm: float) -> NDArray[np.float64]:
    """Area in mm2 of the surface inside a block, by neighbour code (256,)."""
    scaled = _unit_normals() * np.array([y_mm * x_mm, z_mm * x_mm, z_mm * y_mm])
    return np.linalg.norm(scaled, axis=2).sum(axis=1)


@lru_cache(maxsize=1)
def _unit_normals() -> NDArray[np.float64]:
    """Vector areas (256, triangles, 3) of marching cubes on every block of unit voxels, zeros behind the last triangle.

    A code and its complement have the same surface: that of the one with fewer corners inside, whose corners that
    touch only by an edge are kept apart. Marching cubes as in Lorensen & Cline 1987, the choice of Nikolov et al.
    """
    normals = np.zeros((256, 5, 3))  # at most five triangles in a block
    for code in range(1, 255):
        corners = np.unpackbits(np.array([code], np.uint8))
        inside = corners if corners.sum() <= 4 else 1 - corners
        vertices, faces, _, _ = marching_cubes(inside.reshape(2, 2, 2).astype(np.float32), 0.5, method="lorensen")
        first, second, third = (vertices[faces[:, corner]].astype(np.float64) for corner in range(3))
        normals[code, :len(faces)] = np.cross(second - first, third - first) / 2
    normals.setflags(write=False)
    return normals


def _areas_2d(first_mm: float, second_mm: float) -> NDArray[np.float64]:
    """Length in mm of the contour inside a block of 2 x 2 pixels, by neighbour code (16,); marching squares."""
    cut_corner = math.hypot(first_mm, second_mm) / 2
    lengths = np.zeros(16)
    for code in range(1, 15):
        corners = np.array([code >> 3, code >> 2, code >> 1, code]).reshape(2, 2) & 1
        if corners.sum() != 2:
            lengths[code] = cut_corner
        elif corners[0, 0] == corners[1, 1]:
            lengths[code] = 2 * cut_corner
        else:
            lengths[code] = second_mm if corners[0, 0] == corners[0, 1] else first_mm
    return lengths
