"""An entry of an array in a `.npz` file as an image; see `io.npz`."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from autoseg.core.errors import ReadError
from autoseg.core.geometry import Geometry, Shape
from autoseg.io.images.stored import StoredImage, plain_geometry, require_bounded
from autoseg.io.npz import entry_header, read_entry

# A last axis of so many is colours (or grey with an axis of its own) and no axis of space.
_COLOURS = (1, 3)


def decode(path: Path) -> StoredImage:
    """The image in an entry: (Y, X), (Z, Y, X), or either with a last axis of one or three channels.

    Raises:
        ReadError: other axes, or see `io.npz.read_entry`.
    """
    shape, has_channels = _axes(path)
    require_bounded(path, math.prod(shape))
    voxels = read_entry(path)
    if voxels.dtype == bool:
        voxels = voxels.astype(np.uint8)
    channels = np.moveaxis(voxels, -1, 0) if has_channels else voxels[None]
    channels = channels.reshape(len(channels), *shape)
    return StoredImage(channels, plain_geometry(shape), is_colour=len(channels) == 3, is_grid_stated=False)


def decode_geometry(path: Path) -> Geometry:
    """The grid of an entry, from the array's header only; no spacing is said there."""
    return plain_geometry(_axes(path)[0])


def _axes(path: Path) -> tuple[Shape, bool]:
    """Slices, rows and columns of an entry, and whether its last axis is channels."""
    header = entry_header(path)
    axes = header.shape[1:]
    if header.dtype.kind not in "biuf":
        raise ReadError(f"{path}: the array holds {header.dtype}; an image consists of numbers", code="E_DTYPE")
    has_channels = len(axes) > 2 and axes[-1] in _COLOURS
    space = axes[:-1] if has_channels else axes
    if len(space) not in (2, 3) or 0 in space:
        raise ReadError(f"{path}: an entry has the axes {axes}; rows and columns, or slices, rows and columns are expected, and "
                        "perhaps three colours last", code="E_DIMENSIONS")
    depth, rows, columns = space if len(space) == 3 else (1, *space)
    return (depth, rows, columns), has_channels
