"""Whether a displacement is right, and whether it can be believed: distances at landmarks, folding, consistency.

Dice and distances of warped labels are in `metrics.overlap` and `metrics.surface`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import GeometryError
from autoseg.core.geometry import Geometry
from autoseg.ops.displacement import compose, move_points
from autoseg.ops.sampling import is_inside, places, slabs


def target_registration_errors_mm(fixed_points_mm: NDArray, moving_points_mm: NDArray, displacement: NDArray | None,
                                  fixed: Geometry) -> NDArray[np.float64]:
    """Distance (n,) of every landmark of the fixed image, moved by the displacement, from that of the moving image.

    Args:
        fixed_points_mm, moving_points_mm: (n, 3) in the world (S, P, L), in one order.
        displacement: (3, *fixed.shape) in mm; None: what the error was before.
    Returns:
        mm; its mean is the target registration error (TRE).
    Raises:
        GeometryError: the numbers of points differ, or a point lies outside the fixed grid.
    Source: Fitzpatrick, West and Maurer 1998, IEEE TMI 17(5):694.
    """
    if len(fixed_points_mm) != len(moving_points_mm):
        raise GeometryError(f"there are {len(fixed_points_mm)} landmarks in the fixed image and {len(moving_points_mm)} in the "
                            "moving one; an error needs pairs")
    moved = fixed_points_mm if displacement is None else move_points(fixed_points_mm, displacement, fixed)
    return np.linalg.norm(np.asarray(moved, np.float64) - moving_points_mm, axis=1)


def folded_share(determinants: NDArray, mask: NDArray[np.bool_] | None = None) -> float:
    """Share of voxels whose Jacobian determinant is not positive: there the map turns space inside out.

    Args:
        determinants: (Z, Y, X) of `ops.displacement.jacobian_determinant`.
        mask: the voxels that count; None: all.
    Returns:
        Value in [0, 1]; nan when no voxel counts. A determinant that is nan counts as folded.
    """
    values = determinants.ravel() if mask is None else determinants[mask]
    return float(1 - np.count_nonzero(values > 0) / values.size) if values.size else math.nan


def log_jacobian_deviation(determinants: NDArray, mask: NDArray[np.bool_] | None = None) -> float:
    """Standard deviation of the logarithm of the Jacobian determinant ("SDlogJ"): how unevenly volumes change; 0 for an affine
    map.

    Voxels whose determinant is not positive have no logarithm and are left out: they are what `folded_share` counts. (Some
    challenges set them to a small positive number instead, so that a few folds dominate the deviation.)

    Args:
        determinants, mask: as in `folded_share`.
    Returns:
        nan when no voxel is left.
    Source: Leow et al. 2007, IEEE TMI 26(6):822.
    """
    values = determinants.ravel() if mask is None else determinants[mask]
    positive = values[values > 0]
    return float(np.std(np.log(positive, dtype=np.float64))) if positive.size else math.nan


def inverse_consistency_errors_mm(forward: NDArray, fixed: Geometry, backward: NDArray, moving: Geometry) -> NDArray[np.float32]:
    """How far from where it began every voxel of the fixed image ends after going forward and back: |u(x) + v(x + u(x))|.

    Args:
        forward: (3, *fixed.shape) in mm, from the fixed to the moving image.
        backward: (3, *moving.shape) in mm, from the moving to the fixed image.
    Returns:
        (Z, Y, X) in mm on the fixed grid; nan where the way leads out of the moving image, where nothing is known.
    Raises:
        GeometryError: a displacement is not on its grid.
    Source: Christensen and Johnson 2001, IEEE TMI 20(7):568.
    """
    errors = np.linalg.norm(compose(forward, fixed, backward, moving, outside=None), axis=0)
    for planes in slabs(fixed.shape):
        errors[planes][~is_inside(places(fixed, moving, forward, planes), moving.shape)] = np.nan
    return errors


def end_point_errors_mm(displacement: NDArray, known: NDArray) -> NDArray[np.float32]:
    """Distance (Z, Y, X) in mm of two displacements (3, Z, Y, X) on one grid, of which one is known to be right.

    Raises:
        GeometryError: the shapes differ.
    Source: Otte and Nagel 1994, ECCV, "end-point error" of a flow field.
    """
    if displacement.shape != known.shape:
        raise GeometryError(f"the displacements are {displacement.shape} and {known.shape} (component, z, y, x); an error needs "
                            "both on one grid")
    return np.linalg.norm(np.asarray(displacement, np.float32) - known, axis=0)
