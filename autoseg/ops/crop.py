"""Cropping to what an image holds besides air, and pasting back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.core.errors import GeometryError
from autoseg.core.geometry import Box, Shape


def corner_value(channel: NDArray) -> float:
    """The value that at least half of the eight corners of (Z, Y, X) have, else 0: what air is in a finished image.

    Skull-stripped and standardised scans have one exact value outside of the head, but not always 0. Noise does not
    repeat in four corners. Half of them, because a head may reach into a corner.
    """
    corners = [channel[corner].item() for corner in product((0, -1), repeat=3)]
    value = max(corners, key=corners.count)
    return float(value) if 2 * corners.count(value) >= len(corners) else 0.0


def content_box(channels: NDArray | Sequence[NDArray], air: Sequence[float]) -> Box:
    """Box around all voxels (Z, Y, X) where any channel is not its air; that of `content_mask`, without making the mask."""
    seen = [np.zeros(size, bool) for size in channels[0].shape]
    for place in range(len(channels[0])):
        plane = channels[0][place] != air[0]
        for channel, value in zip(channels[1:], air[1:], strict=True):
            plane |= channel[place] != value
        seen[0][place] = plane.any()
        seen[1] |= plane.any(axis=1)
        seen[2] |= plane.any(axis=0)
    if not seen[0].any():
        return whole_box(channels[0].shape)
    return _extent(np.flatnonzero(seen[0])), _extent(np.flatnonzero(seen[1])), _extent(np.flatnonzero(seen[2]))


def content_mask(voxels: NDArray | Sequence[NDArray], air: Sequence[float]) -> NDArray[np.bool_]:
    """Where any channel of (C, Z, Y, X) is not its air, with enclosed holes filled: bool (Z, Y, X).

    A hole is a group of face-connected voxels of air that does not touch the border of the image.
    Source: with an air of 0 nnU-Net v2's non-zero crop; the same mask as `scipy.ndimage.binary_fill_holes`.

    Args:
        air: the value of air in each channel.
    """
    mask = voxels[0] != air[0]
    for channel, value in zip(voxels[1:], air[1:], strict=True):
        mask |= channel != value
    return fill_holes(mask)


def fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask (Z, Y, X) with its enclosed holes filled.

    Background that touches the bounding box of the mask is connected to the outside, so only the box is searched.
    """
    box = bounding_box(mask)
    part = crop(mask, box)
    if part.all():
        return mask
    components, count = ndimage.label(~part)
    outside = np.zeros(count + 1, bool)
    outside[0] = True  # the mask itself
    for axis in range(3):
        outside[np.take(components, [0, -1], axis=axis).ravel()] = True
    if outside.all():
        return mask
    filled = mask.copy()
    crop(filled, box)[~outside[components]] = True
    return filled


def bounding_box(mask: NDArray[np.bool_]) -> Box:
    """Smallest half-open box around the true voxels of (Z, Y, X); the whole image when there is none.

    Not acvl-utils' function of this purpose: importing it imports torch, which the planner does not need.
    """
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    if not len(slices):
        return whole_box(mask.shape)
    plane = np.any(mask[slices[0]:slices[-1] + 1], axis=0, keepdims=True)
    rows, columns = np.flatnonzero(plane.any(axis=(0, 2))), np.flatnonzero(plane.any(axis=(0, 1)))
    return _extent(slices), _extent(rows), _extent(columns)


def _extent(indices: NDArray[np.intp]) -> tuple[int, int]:
    return int(indices[0]), int(indices[-1]) + 1


def whole_box(shape: Sequence[int]) -> Box:
    """The box that holds every voxel of `shape` (z, y, x)."""
    return (0, int(shape[0])), (0, int(shape[1])), (0, int(shape[2]))


def crop(voxels: NDArray, box: Box) -> NDArray:
    """View of (..., Z, Y, X) inside a half-open box.

    Raises:
        GeometryError: the box leaves the image.
    """
    if any(start < 0 or stop > size for (start, stop), size in zip(box, voxels.shape[-3:], strict=True)):
        raise GeometryError(f"box {box} (z, y, x) leaves the image of {voxels.shape[-3:]} voxels; it was measured on "
                            "another image")
    z, y, x = (slice(start, stop) for start, stop in box)
    return voxels[..., z, y, x]


def paste(voxels: NDArray, box: Box, shape: Shape, fill: float = 0) -> NDArray:
    """Array (..., *shape) that holds `voxels` inside the half-open box and `fill` elsewhere; dtype of `voxels`.

    Raises:
        GeometryError: the box leaves `shape`, or is not as large as `voxels`.
    """
    sizes = tuple(stop - start for start, stop in box)
    if voxels.shape[-3:] != sizes:
        raise GeometryError(f"voxels of {voxels.shape[-3:]} (z, y, x) cannot be pasted into a box of {sizes} voxels")
    if sizes == tuple(shape):
        return voxels
    whole = np.full((*voxels.shape[:-3], *shape), fill, voxels.dtype)
    crop(whole, box)[...] = voxels
    return whole
