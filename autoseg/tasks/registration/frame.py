"""The frame: one grid of voxels on which the two images of a pair lie, and the way from it to the world.

The fixed image's frame is axis-parallel to its model grid and shares its voxels: a part of it, or it with a margin. Where a pair
starts from its centres, the moving image has a frame of its own made in the same way, and voxels of both are laid on each other;
where it starts from positions, the moving image is sampled on the frame of the fixed one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import GeometryError
from autoseg.core.geometry import Geometry, GridRecord, Shape, as_direction
from autoseg.core.plan import Configuration
from autoseg.ops.displacement import affine_displacement, warp

ALIGNMENTS = ("centres", "positions")


@dataclass(frozen=True)
class Placed:
    """A pair in its frame.

    Attributes:
        fixed, moving: arrays by name, (C, *frame), model axis order; those of labels keep their type.
        fixed_frame, moving_frame: where the voxels of the frame lie in the world of each image; the same grid where the pair
            starts from positions.
    """

    fixed: dict[str, NDArray]
    moving: dict[str, NDArray]
    fixed_frame: Geometry
    moving_frame: Geometry


def frame_spacing_mm(configuration: Configuration) -> list[float]:
    """Spacing of the frame along each axis that the network sees."""
    return [float(mm or 1.0) for mm in configuration.spacing_mm[-configuration.network.dims:]]


def place_pair(fixed: Mapping[str, NDArray], moving: Mapping[str, NDArray], records: tuple[GridRecord, GridRecord], size: Shape,
               alignment: str) -> Placed:
    """A pair of arrays on their model grids, brought into a frame of `size` voxels (model axis order).

    Beyond an image its border is repeated; labels are 0 there.

    Args:
        fixed, moving: (C, Z, Y, X) by name on the model grids of the records; integers are labels.
    Raises:
        GeometryError: the pair starts from positions, and the images have no place in common.
    """
    grids = [model_geometry(record) for record in records]
    frame = frame_of(grids[0], size)
    within = {name: cut(array, size) for name, array in fixed.items()}
    if alignment == "centres":
        return Placed(within, {name: cut(array, size) for name, array in moving.items()}, frame, frame_of(grids[1], size))
    require_overlap(grids[0], grids[1])
    return Placed(within, {name: _sampled(array, grids[1], frame) for name, array in moving.items()}, frame, frame)


def model_geometry(record: GridRecord) -> Geometry:
    """Where the voxels of a case's model grid lie in the world."""
    canonical = record.canonical
    direction = np.asarray(canonical.direction)[:, list(record.transpose)]
    turned = np.array(record.turned_shape, float)
    spacing = np.array(record.turned_spacing_mm) * turned / np.array(record.model_shape)
    # Voxels of both grids share the outer faces of the crop (ops.resample), so the first centres differ by half of each.
    start = np.array([record.crop_box[axis][0] for axis in range(3)], float)
    corner = start[list(record.transpose)] - 0.5
    first = np.array(record.turned_spacing_mm) * corner + spacing / 2
    origin = np.asarray(canonical.origin_mm) + direction @ first
    return Geometry(record.model_shape, _three(spacing), _three(origin), as_direction(direction))


def frame_of(grid: Geometry, size: Shape) -> Geometry:
    """The grid of `size` voxels that shares the middle voxels of `grid`."""
    offsets = np.array([_offset(have, want) for have, want in zip(grid.shape, size, strict=True)], float)
    return Geometry(size, grid.spacing_mm, grid.position_mm(_three(offsets)), grid.direction)


def cut(array: NDArray, size: Shape) -> NDArray:
    """The middle `size` voxels of (C, Z, Y, X); where there are fewer the border is repeated, or 0 for integers."""
    mode = "constant" if array.dtype.kind in "iub" else "edge"
    parts, pads = [slice(None)], [(0, 0)]
    for have, want in zip(array.shape[1:], size, strict=True):
        offset = _offset(have, want)
        parts.append(slice(max(offset, 0), max(offset, 0) + min(have, want)))
        pads.append((max(-offset, 0), want - min(have, want) - max(-offset, 0)))
    return np.pad(array[tuple(parts)], pads, mode=mode)  # type: ignore[call-overload]


def require_overlap(fixed: Geometry, moving: Geometry) -> None:
    """Raises a GeometryError where two grids have no place in common."""
    corners = np.array([[z, y, x, 1.0] for z in (-0.5, moving.shape[0] - 0.5) for y in (-0.5, moving.shape[1] - 0.5)
                        for x in (-0.5, moving.shape[2] - 0.5)])
    own = fixed.matrix()
    found = (corners @ moving.matrix().T - own[:, 3]) @ np.linalg.inv(own[:, :3]).T
    if any(found[:, axis].max() < -0.5 or found[:, axis].min() > fixed.shape[axis] - 0.5 for axis in range(3)):
        raise GeometryError(f"the images do not overlap: the fixed one begins at {_text(fixed.origin_mm)} mm and the moving one "
                            f"at {_text(moving.origin_mm)} mm (superior, posterior, left). Correct the positions in the files, "
                            "or start from the centres of the images")


def world_displacement(steps: NDArray[np.float32], placed: Placed, fixed: Geometry) -> NDArray[np.float32]:
    """A displacement in voxels of a frame as one in mm of the world on the fixed image's grid.

    Args:
        steps: (3, *frame): the voxel f of the fixed frame corresponds to f + steps(f) of the moving frame.
        fixed: canonical grid of the fixed image.
    Returns:
        (3, *fixed.shape); beyond the frame its border moves on, and the starting alignment holds everywhere.
    """
    inner, outer = placed.moving_frame.matrix(), placed.fixed_frame.matrix()
    linear = inner[:, :3] @ np.linalg.inv(outer[:, :3])
    start = np.concatenate([linear, (inner[:, 3] - linear @ outer[:, 3])[:, None]], axis=1)
    within = warp(steps, placed.fixed_frame, None, fixed, interpolation="linear", outside=None)
    moved = np.tensordot(inner[:, :3].astype(np.float32), within, axes=1)
    return affine_displacement(start, fixed) + moved.astype(np.float32)


def _sampled(array: NDArray, grid: Geometry, frame: Geometry) -> NDArray:
    if array.dtype.kind in "iub":
        return warp(array, grid, None, frame, interpolation="nearest", outside=0)
    return warp(array, grid, None, frame, interpolation="linear", outside=None)


def _offset(have: int, want: int) -> int:
    """Voxels of an axis before its middle `want` ones; negative where there are fewer."""
    return (have - want) // 2


def _three(values: NDArray) -> tuple[float, float, float]:
    return (float(values[0]), float(values[1]), float(values[2]))


def _text(values: tuple[float, float, float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)
