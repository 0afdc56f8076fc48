"""Boxes on the way from the model's grid to the file and back: half-open ranges of voxels along z, y, x."""

from __future__ import annotations

from collections.abc import Sequence

from autoseg.core.geometry import Box, GridRecord, Orientation, Shape


def stored_box(box: Box, record: GridRecord) -> Box:
    """The voxels of the stored image that a box on the model's grid touches."""
    turned = [_stretched(side, old, new)
              for side, old, new in zip(box, record.model_shape, record.turned_shape, strict=True)]
    canonical = [(0, 0)] * 3
    for axis, side in zip(record.transpose, turned, strict=True):
        first = record.crop_box[axis][0]
        canonical[axis] = (first + side[0], first + side[1])
    stored = [(0, 0)] * 3
    for axis, side in enumerate(canonical):
        size = record.canonical.shape[axis]
        stored[record.orientation.axes[axis]] = (size - side[1], size - side[0]) if record.orientation.flips[axis] else side
    return stored[0], stored[1], stored[2]


def canonical_sides(sides: Sequence[tuple[float, float]], orientation: Orientation,
                    stored_shape: Shape) -> tuple[tuple[float, float], ...]:
    """A box on the stored image along the canonical axes; it may begin and end between voxels."""
    return tuple((stored_shape[axis] - sides[axis][1], stored_shape[axis] - sides[axis][0]) if flip else sides[axis]
                 for axis, flip in zip(orientation.axes, orientation.flips, strict=True))


def _stretched(side: tuple[int, int], old: int, new: int) -> tuple[int, int]:
    """A range of `old` voxels as one of the `new` voxels that cover the same length; exact in integers."""
    return side[0] * new // old, -(-side[1] * new // old)
