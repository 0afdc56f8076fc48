"""Where voxels lie in the patient: grids, and the way from a stored file to the model's grid and back.

Everything here is in array order z, y, x. World coordinates are written (S, P, L): millimetres towards superior,
posterior and left, so that the identity direction is the canonical orientation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import GeometryError

Shape: TypeAlias = tuple[int, int, int]
Spacing: TypeAlias = tuple[float, float, float]
Box: TypeAlias = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
Direction: TypeAlias = tuple[Spacing, Spacing, Spacing]

CANONICAL: Direction = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
IDENTITY_AXES = (0, 1, 2)


@dataclass(frozen=True)
class Geometry:
    """A voxel grid in patient space.

    Attributes:
        shape: voxels along z, y, x.
        spacing_mm: distance of neighbouring voxel centres along z, y, x.
        origin_mm: centre of voxel (0, 0, 0) as (S, P, L).
        direction: row r, column a: component along world axis r (S, P, L) of the unit vector of array axis a.
    """

    shape: Shape
    spacing_mm: Spacing
    origin_mm: Spacing = (0.0, 0.0, 0.0)
    direction: Direction = CANONICAL

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise GeometryError(f"shape {self.shape} (z, y, x) has an empty axis; every axis needs at least one voxel")
        if not all(np.isfinite(s) and s > 0 for s in self.spacing_mm):
            raise GeometryError(f"spacing {self.spacing_mm} mm (z, y, x) must be finite and positive on every axis")

    @property
    def voxel_volume_mm3(self) -> float:
        return float(np.prod(self.spacing_mm))

    def matrix(self) -> NDArray[np.float64]:
        """(3, 4) affine from (z, y, x) indices to (S, P, L) millimetres."""
        scaled = np.asarray(self.direction) * np.asarray(self.spacing_mm)[None, :]
        return np.concatenate([scaled, np.asarray(self.origin_mm)[:, None]], axis=1)

    def position_mm(self, index: tuple[float, float, float]) -> Spacing:
        """World position (S, P, L) of a (z, y, x) index."""
        position = self.matrix() @ np.array([*index, 1.0])
        return (float(position[0]), float(position[1]), float(position[2]))

    def agrees_with(self, other: Geometry, *, tolerance: float = 1e-3) -> bool:
        """True when both grids put every voxel at the same place, to `tolerance` of a voxel.

        The tolerance covers the 32-bit floats of NIfTI headers (7 digits on origins of some hundred millimetres).
        """
        if self.shape != other.shape:
            return False
        corners = np.array([[z, y, x, 1.0] for z in (0, self.shape[0] - 1) for y in (0, self.shape[1] - 1)
                            for x in (0, self.shape[2] - 1)])
        distance = np.abs(corners @ (self.matrix() - other.matrix()).T).max()
        return bool(distance <= tolerance * max(self.spacing_mm))


@dataclass(frozen=True)
class Orientation:
    """How a stored array becomes canonical: `canonical = flip(transpose(stored, axes), flipped axes)`.

    Attributes:
        axes: canonical axis a is stored axis `axes[a]`.
        flips: canonical axis a runs against its stored axis.
    """

    axes: tuple[int, int, int] = IDENTITY_AXES
    flips: tuple[bool, bool, bool] = (False, False, False)

    def apply(self, voxels: NDArray) -> NDArray:
        """Canonical view of stored voxels (..., Z, Y, X); leading axes stay."""
        lead = voxels.ndim - 3
        turned = voxels.transpose(*range(lead), *(lead + axis for axis in self.axes))
        return np.flip(turned, tuple(lead + axis for axis, flip in enumerate(self.flips) if flip))

    def undo(self, voxels: NDArray) -> NDArray:
        """Stored view of canonical voxels (..., Z, Y, X)."""
        lead = voxels.ndim - 3
        flipped = np.flip(voxels, tuple(lead + axis for axis, flip in enumerate(self.flips) if flip))
        back = np.argsort(self.axes)
        return flipped.transpose(*range(lead), *(lead + int(axis) for axis in back))

    def apply_to_geometry(self, stored: Geometry) -> Geometry:
        """Geometry of the canonical view of an array stored on `stored`."""
        z, y, x = self.axes
        shape = (stored.shape[z], stored.shape[y], stored.shape[x])
        spacing = (stored.spacing_mm[z], stored.spacing_mm[y], stored.spacing_mm[x])
        direction = np.asarray(stored.direction)[:, list(self.axes)] * np.where(self.flips, -1.0, 1.0)[None, :]
        first = [0.0, 0.0, 0.0]
        for axis, flip in enumerate(self.flips):
            first[self.axes[axis]] = stored.shape[self.axes[axis]] - 1.0 if flip else 0.0
        return Geometry(shape, spacing, stored.position_mm((first[0], first[1], first[2])), as_direction(direction))


def canonical_orientation(direction: Direction) -> Orientation:
    """The permutation and flips that bring a direction nearest to canonical (axes to superior, posterior, left).

    The permutation is the one of the six whose array axes lie closest to their world axes (largest sum of absolute
    cosines), so two stored axes never claim the same world axis, also for 45 degree obliques.
    """
    cosines = np.abs(np.asarray(direction))
    candidates = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    axes = max(candidates, key=lambda order: round(sum(cosines[world, order[world]] for world in range(3)), 9))
    flips = tuple(bool(np.asarray(direction)[world, axes[world]] < 0) for world in range(3))
    return Orientation(axes, (flips[0], flips[1], flips[2]))


def as_direction(matrix: NDArray) -> Direction:
    """A 3 x 3 array as the nested tuple that `Geometry` holds."""
    rows = [tuple(float(value) for value in row) for row in matrix]
    return (rows[0], rows[1], rows[2])  # type: ignore[return-value]


@dataclass(frozen=True)
class GridRecord:
    """The way from a canonical image to the model's grid and back, for one input role of one case.

    canonical --crop--> cropped --transpose--> turned --resample--> model grid

    Attributes:
        stored: geometry as in the file, before reorientation.
        orientation: stored to canonical.
        crop_box: half-open (start, stop) along canonical z, y, x.
        transpose: model axis a is cropped canonical axis `transpose[a]`.
        model: geometry-like shape and spacing of the model grid, in transposed axis order.
        further: the records of a unit's further cases, where it has several; none of them has further ones itself.
    """

    stored: Geometry
    orientation: Orientation
    crop_box: Box
    transpose: tuple[int, int, int]
    model_shape: Shape
    model_spacing_mm: Spacing
    further: tuple[GridRecord, ...] = ()

    @property
    def canonical(self) -> Geometry:
        return self.orientation.apply_to_geometry(self.stored)

    @property
    def cropped_shape(self) -> Shape:
        """Shape of the crop in canonical axis order."""
        sizes = [stop - start for start, stop in self.crop_box]
        return (sizes[0], sizes[1], sizes[2])

    @property
    def turned_shape(self) -> Shape:
        """Shape of the crop in model axis order, before resampling."""
        sizes = [self.cropped_shape[axis] for axis in self.transpose]
        return (sizes[0], sizes[1], sizes[2])

    @property
    def turned_spacing_mm(self) -> Spacing:
        """Spacing of the crop in model axis order, before resampling."""
        spacing = [self.canonical.spacing_mm[axis] for axis in self.transpose]
        return (spacing[0], spacing[1], spacing[2])
