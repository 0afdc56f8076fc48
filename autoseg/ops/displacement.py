"""Displacements: where each voxel of a fixed image lies in a moving image, and what follows from it.

A displacement is float32 (3, Z, Y, X) on the grid of the fixed image, in millimetres of the world (S, P, L): the point x of
the fixed image corresponds to x + u(x) in the moving image. So warping pulls: the warped image at x is the moving image at
x + u(x). This is ITK's convention, but for the order of axes and the sign of none; both are changed in `io` only.

Whatever needs places (three float64 per voxel) makes them for a few planes at a time (`ops.sampling`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.core.errors import GeometryError
from autoseg.core.geometry import Geometry
from autoseg.ops.sampling import Interpolation, is_inside, label_of_largest_share, places, prepared, sample, slabs


def warp(voxels: NDArray, moving: Geometry, displacement: NDArray | None, fixed: Geometry, *,
         interpolation: Interpolation, outside: float | None) -> NDArray:
    """A moving image pulled onto the fixed grid: (C, *fixed.shape), float32; in the type of the image for `nearest`.

    A displacement is warped like an image of three channels: its vectors keep their directions in the world.

    Args:
        voxels: (C, Z, Y, X) on `moving`.
        displacement: (3, *fixed.shape) in mm; None: nothing moves, the image is only brought to the other grid.
        interpolation: `cubic` is a spline whose values are clipped to the range of each channel, as in `ops.resample`.
        outside: value where a place is more than half a voxel beyond the moving image; None: that of its border.
    Raises:
        GeometryError: an array is not on its grid.
    """
    _require_on_grid(voxels, moving, "the moving image")
    require_displacement(displacement, fixed)
    kind = voxels.dtype if interpolation == "nearest" else np.dtype(np.float32)
    warped = np.empty((len(voxels), *fixed.shape), kind)
    channels = [prepared(channel, interpolation) for channel in voxels]
    for planes in slabs(fixed.shape):
        where = places(fixed, moving, displacement, planes)
        for channel, target in zip(channels, warped, strict=True):
            target[planes] = sample(channel, where, interpolation, outside)
    if interpolation == "cubic":
        for channel, target in zip(voxels, warped, strict=True):
            limits = [float(channel.min()), float(channel.max()), *([] if outside is None else [outside])]
            np.clip(target, min(limits), max(limits), out=target)
    return warped


def warp_labels(labels: NDArray, moving: Geometry, displacement: NDArray | None, fixed: Geometry, *,
                interpolation: Interpolation, outside: int | None = 0) -> NDArray:
    """A label map (Z, Y, X) pulled onto the fixed grid, in its own type; it holds no label that was not there.

    Args:
        interpolation: `nearest` voxel; or `linear`, the label with the largest share of linear interpolation, which is nearer to
            the outline (of equal shares the smallest label). `cubic` would make labels where none are.
        outside: label beyond the image; None: that of its border.
    Raises:
        GeometryError: as in `warp`. ValueError: `cubic`.
    """
    if interpolation == "cubic":
        raise ValueError("labels are warped by nearest or linear interpolation")
    if interpolation == "nearest":
        return warp(labels[None], moving, displacement, fixed, interpolation="nearest", outside=outside)[0]
    _require_on_grid(labels[None], moving, "the label map")
    require_displacement(displacement, fixed)
    warped = np.empty(fixed.shape, labels.dtype)
    for planes in slabs(fixed.shape):
        where = places(fixed, moving, displacement, planes).reshape(3, -1)
        chosen = label_of_largest_share(labels, where)
        if outside is not None:
            chosen[~is_inside(where, moving.shape)] = outside
        warped[planes] = chosen.reshape(warped[planes].shape)
    return warped


def compose(first: NDArray, fixed: Geometry, second: NDArray, between: Geometry, *,
            outside: float | None = 0.0) -> NDArray[np.float32]:
    """The displacement of going by `first`, then by `second`: x to x + u(x), and on to x + u(x) + v(x + u(x)).

    Args:
        first: (3, *fixed.shape), from the fixed image to the one between.
        second: (3, *between.shape), from the one between on.
        outside: of `second` beyond its grid: nothing moves there, as in ITK; None: as its border moves.
    Returns:
        (3, *fixed.shape).
    Raises:
        GeometryError: as in `warp`.
    """
    require_displacement(second, between)
    return first + warp(second, between, first, fixed, interpolation="linear", outside=outside)


def affine_displacement(matrix: NDArray, fixed: Geometry) -> NDArray[np.float32]:
    """The displacement of an affine map on a grid: (3, *fixed.shape).

    Args:
        matrix: (3, 4) from a point (S, P, L) in mm of the fixed image to the corresponding one of the moving image.
    """
    moved = np.asarray(matrix, np.float64)
    lattice = fixed.matrix()
    turn = (moved[:, :3] - np.eye(3)) @ lattice[:, :3]
    start = (moved[:, :3] - np.eye(3)) @ lattice[:, 3] + moved[:, 3]
    z, y, x = (np.arange(size, dtype=np.float64) for size in fixed.shape)
    displacement = np.empty((3, *fixed.shape), np.float32)
    for world in range(3):
        plane = turn[world, 1] * y[:, None] + turn[world, 2] * x
        for index, place in enumerate(z):
            displacement[world, index] = start[world] + turn[world, 0] * place + plane
    return displacement


def move_points(points_mm: NDArray, displacement: NDArray, fixed: Geometry) -> NDArray[np.float64]:
    """Where points (n, 3) of the fixed image (S, P, L, mm) lie in the moving image: x + u(x), u linear between voxels.

    Raises:
        GeometryError: a point is more than half a voxel beyond the grid, where no displacement is known.
    """
    require_displacement(displacement, fixed)
    points = np.asarray(points_mm, np.float64).reshape(-1, 3)
    where = index_of(points, fixed).T
    beyond = np.flatnonzero(~is_inside(where, fixed.shape))
    if len(beyond):
        point = tuple(round(float(value), 1) for value in points[beyond[0]])
        raise GeometryError(f"{len(beyond)} of {len(points)} points lie outside the grid of the displacement, the first at "
                            f"{point} mm (superior, posterior, left); give points of the fixed image")
    # Not `sample`, whose results are float32.
    steps = [_linear(component, where) for component in displacement]
    return points + np.stack(steps, axis=1)


def index_of(points_mm: NDArray, geometry: Geometry) -> NDArray[np.float64]:
    """Indices (n, 3) along z, y, x, not rounded, of points (n, 3) in mm (S, P, L)."""
    lattice = geometry.matrix()
    return (np.asarray(points_mm, np.float64) - lattice[:, 3]) @ np.linalg.inv(lattice[:, :3]).T


def from_voxels(steps: NDArray, geometry: Geometry) -> NDArray[np.float32]:
    """A displacement in mm of the world from one in voxels along the grid's own axes (3: z, y, x; Z, Y, X)."""
    return _turned(geometry.matrix()[:, :3], steps)


def to_voxels(displacement: NDArray, geometry: Geometry) -> NDArray[np.float32]:
    """A displacement in voxels along the axes of a grid (3: z, y, x; Z, Y, X) from one in mm of the world."""
    return _turned(np.linalg.inv(geometry.matrix()[:, :3]), displacement)


def jacobian_determinant(displacement: NDArray, fixed: Geometry) -> NDArray[np.float32]:
    """How many times larger a small volume is in the moving image: det(I + du/dx), (Z, Y, X).

    1 keeps the volume, 2 doubles it; where it is not positive the map folds. Derivatives are central differences, one-sided at
    the border, and none across an axis of one voxel: of a flat image it is an area. What folds between two voxels is not seen.
    """
    require_displacement(displacement, fixed)
    to_index = np.linalg.inv(fixed.matrix()[:, :3])
    determinant = np.empty(fixed.shape, np.float32)
    for planes in slabs(fixed.shape):
        first, last = max(0, planes.start - 1), min(fixed.shape[0], planes.stop + 1)
        part = displacement[:, first:last].astype(np.float64)
        slopes = np.zeros((3, *part.shape))  # along array axis, of world component
        for axis in range(3):
            if fixed.shape[axis] > 1:
                slopes[axis] = np.gradient(part, axis=1 + axis)
        slopes = slopes[:, :, planes.start - first:planes.stop - first]
        jacobian = np.tensordot(to_index, slopes, axes=(0, 0))  # (world direction, component, z, Y, X)
        for world in range(3):
            jacobian[world, world] += 1
        determinant[planes] = _determinant(jacobian)
    return determinant


def require_displacement(displacement: NDArray | None, fixed: Geometry) -> None:
    """Raises a GeometryError where a displacement does not have three components on the grid of the fixed image."""
    if displacement is not None:
        if len(displacement) != 3:
            raise GeometryError(f"a displacement has three components (S, P, L), this one {len(displacement)}")
        _require_on_grid(displacement, fixed, "the displacement")


def _determinant(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of matrices (3, 3, ...); that of the transposed ones is the same."""
    (a, b, c), (d, e, f), (g, h, i) = matrix
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def _turned(matrix: NDArray, vectors: NDArray) -> NDArray[np.float32]:
    return np.stack([sum(np.float32(factor) * vectors[column] for column, factor in enumerate(row) if factor)
                     for row in matrix]).astype(np.float32, copy=False)


def _linear(component: NDArray, where: NDArray[np.float64]) -> NDArray[np.float64]:
    return ndimage.map_coordinates(component.astype(np.float64), where, order=1, mode="nearest")


def _require_on_grid(voxels: NDArray, geometry: Geometry, what: str) -> None:
    if voxels.ndim != 4 or voxels.shape[1:] != geometry.shape:
        raise GeometryError(f"{what} has {voxels.shape[1:]} voxels (z, y, x) and its grid {geometry.shape}; give the grid that "
                            "it lies on")
