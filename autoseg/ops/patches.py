"""Patches of fixed size: where they lie, and how they are read where they leave the image.

A patch may leave the image only as far as it must: where the image is smaller than the patch it is centred, elsewhere
the patch is pushed inside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from autoseg.core.geometry import Box, Shape

# Reads the voxels (..., z, y, x) inside a half-open box that lies in the image.
BoxReader = Callable[[Box], NDArray]


def start_range(size: int, patch: int) -> tuple[int, int]:
    """First and last start of a patch along one axis, both included.

    Where the image is smaller than the patch, the patch hangs over by half of the difference at each side, an odd
    voxel at either. Source: nnU-Net v2, `data_loader.py`, `get_bbox`.
    """
    half = (max(patch - size, 0) + 1) // 2
    return -half, size + half - patch


def random_box(shape: Shape, patch: Shape, rng: np.random.Generator) -> Box:
    """A patch box drawn evenly among all starts; it leaves the image only where that is smaller than the patch."""
    starts = [int(rng.integers(low, high, endpoint=True))
              for low, high in (start_range(s, p) for s, p in zip(shape, patch, strict=True))]
    return _box(starts, patch)


def patch_box(shape: Shape, patch: Shape, centre: Sequence[int]) -> Box:
    """The patch box whose middle voxel (start + patch // 2) is `centre`, pushed inside the image.

    The centre stays in the patch, but not in its middle near the border.
    """
    starts = []
    for size, width, middle in zip(shape, patch, centre, strict=True):
        low, high = start_range(size, width)
        starts.append(min(max(int(middle) - width // 2, low), high))
    return _box(starts, patch)


def grow_box(box: Box, size: Shape) -> Box:
    """The box enlarged to `size` around the same middle; the odd voxel goes to the end.

    For augmentation that reads a larger patch: the patch itself is placed in the image, its surroundings may leave it.
    """
    return _box([start - (width - (stop - start)) // 2 for (start, stop), width in zip(box, size, strict=True)], size)


def _box(starts: Sequence[int], patch: Shape) -> Box:
    boxes = [(start, start + width) for start, width in zip(starts, patch, strict=True)]
    return boxes[0], boxes[1], boxes[2]


def read_padded(read: BoxReader, box: Box, shape: Shape, fill: float = 0) -> NDArray:
    """Voxels (..., z, y, x) of a box that may leave the image of `shape`; `fill` outside, dtype of what is read.

    Args:
        read: reads a half-open box that lies within the image; it is asked once.
    """
    inside = _box_inside(box, shape)
    voxels = read(inside)
    if inside == box:
        return voxels
    lead = voxels.ndim - 3
    padded = np.full((*voxels.shape[:lead], *(stop - start for start, stop in box)), fill, voxels.dtype)
    z, y, x = (slice(start - outer, stop - outer) for (start, stop), (outer, _) in zip(inside, box, strict=True))
    padded[..., z, y, x] = voxels
    return padded


def _box_inside(box: Box, shape: Shape) -> Box:
    """The part of a box that lies in the image; of size 0 along an axis where they do not meet."""
    starts = [min(max(start, 0), size) for (start, _), size in zip(box, shape, strict=True)]
    stops = [max(min(stop, size), first) for (_, stop), size, first in zip(box, shape, starts, strict=True)]
    parts = list(zip(starts, stops, strict=True))
    return parts[0], parts[1], parts[2]
