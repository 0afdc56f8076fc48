"""The inverse of a displacement: from the moving image back to the fixed one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.core.geometry import Geometry
from autoseg.ops.displacement import affine_displacement, require_displacement
from autoseg.ops.sampling import is_inside, slabs

Move: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.float64]]  # points (3, n) to points (3, n), mm

# Points to which the affine part is fitted; more change it by less than the iteration then does.
_FITTED_POINTS = 20_000
# A step that was halved that often moves nothing any more: the place folds.
_SMALLEST_STEP = 2.0**-10
# A fitted affine part that stretches one direction this much more than another is no place to start from.
_WORST_CONDITION = 100.0


@dataclass(frozen=True)
class Inverse:
    """An inverse and how well it holds.

    Attributes:
        displacement: (3, Z, Y, X) float32 in mm on the grid asked for.
        residual_mm: largest distance of y and T(y + v(y)) over the voxels y whose place y + v(y) lies in the fixed image; nan
            where there is no such voxel.
        unsolved: share of those voxels whose distance is above the tolerance: the map folds there.
        covered: share of the voxels of the grid that have a place in the fixed image. At others the border is repeated.
    """

    displacement: NDArray[np.float32]
    residual_mm: float
    unsolved: float
    covered: float


def invert(displacement: NDArray, fixed: Geometry, onto: Geometry, *, tolerance_mm: float, iterations: int = 50) -> Inverse:
    """The displacement v on the grid `onto` with y + v(y) = x where x + u(x) = y.

    Fixed-point iteration z <- z + A^-1 (y - T(z)) with T(z) = z + u(z) and A the affine map nearest to T, so that rotations
    and shifts of any size are inverted at once; a step that makes the distance larger is halved instead of taken. Beyond the
    fixed grid T goes on as A, with what its border differs from A.
    Source: Chen et al. 2008, Med Phys 35:81 (the iteration with A = I).

    Args:
        displacement: (3, *fixed.shape) in mm.
        onto: the grid of the inverse, usually that of the moving image.
        tolerance_mm: places nearer than this to y are not moved any more.
        iterations: at most; where the map does not fold about ten suffice.
    Raises:
        GeometryError: the displacement is not on its grid.
    """
    require_displacement(displacement, fixed)
    to_index, lattice = np.linalg.inv(fixed.matrix()[:, :3]), onto.matrix()
    affine = _nearest_affine(displacement, fixed)
    beside = displacement - affine_displacement(affine, fixed)

    def index(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return to_index @ (points - np.asarray(fixed.origin_mm)[:, None])

    def moved(points: NDArray[np.float64]) -> NDArray[np.float64]:
        where = index(points)
        steps = [ndimage.map_coordinates(part, where, order=1, mode="nearest", output=np.float64) for part in beside]
        return affine[:, :3] @ points + affine[:, 3:] + steps

    backward = np.linalg.inv(affine[:, :3])
    inverse = np.empty((3, *onto.shape), np.float32)
    worst, unsolved, covered = np.nan, 0, 0
    for planes in slabs(onto.shape):
        axes = (np.arange(planes.start, planes.stop), np.arange(onto.shape[1]), np.arange(onto.shape[2]))
        wanted = lattice[:, :3] @ np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1) + lattice[:, 3:]
        found, distance = _solve(wanted, backward @ (wanted - affine[:, 3:]), moved, backward, tolerance_mm, iterations)
        inverse[:, planes] = (found - wanted).reshape(3, -1, *onto.shape[1:])
        distance = distance[is_inside(index(found), fixed.shape)]
        if len(distance):
            worst = np.fmax(worst, distance.max())
            unsolved, covered = unsolved + int((distance > tolerance_mm).sum()), covered + len(distance)
    return Inverse(inverse, float(worst), unsolved / max(1, covered), covered / inverse[0].size)


def _solve(wanted: NDArray, start: NDArray, moved: Move, backward: NDArray, tolerance_mm: float,
           iterations: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (3, n) that `moved` brings to the wanted ones (3, n), and how far from them (n,) it brings them."""
    found = start
    error = wanted - moved(found)
    distance = np.linalg.norm(error, axis=0)
    step = np.ones(len(distance))
    for _ in range(iterations):
        left = np.flatnonzero((distance > tolerance_mm) & (step > _SMALLEST_STEP))
        if not len(left):
            break
        trial = found[:, left] + step[left] * (backward @ error[:, left])
        trial_error = wanted[:, left] - moved(trial)
        trial_distance = np.linalg.norm(trial_error, axis=0)
        is_better = trial_distance < distance[left]
        taken = left[is_better]
        found[:, taken], error[:, taken], distance[taken] = (trial[:, is_better], trial_error[:, is_better],
                                                             trial_distance[is_better])
        step[left] = np.where(is_better, np.minimum(1.0, 2 * step[left]), step[left] / 2)
    return found, distance


def _nearest_affine(displacement: NDArray, fixed: Geometry) -> NDArray[np.float64]:
    """(3, 4): the affine map nearest to T by least squares on a lattice; a shift where that one could not be inverted.

    What the lattice does not see, as across a flat image, is kept as it is.
    """
    step = max(1, round((np.prod(fixed.shape) / _FITTED_POINTS) ** (1 / 3)))
    lattice = fixed.matrix()
    axes = [np.arange(size)[(size - 1) % step // 2::step] for size in fixed.shape]
    points = lattice[:, :3] @ np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1) + lattice[:, 3:]
    steps = np.stack([part[np.ix_(*axes)].ravel() for part in displacement]).astype(np.float64)
    centre, mean = points.mean(axis=1, keepdims=True), steps.mean(axis=1, keepdims=True)
    linear = np.eye(3) + np.linalg.lstsq((points - centre).T, (steps - mean).T, rcond=1e-6)[0].T
    if np.linalg.det(linear) <= 0 or np.linalg.cond(linear) > _WORST_CONDITION:
        linear = np.eye(3)
    return np.concatenate([linear, centre + mean - linear @ centre], axis=1)
