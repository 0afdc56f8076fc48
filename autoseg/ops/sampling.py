"""Values of an image between its voxels, at places that are known for a few planes at a time only.

`scipy.ndimage.map_coordinates` takes 54 ns per voxel for linear interpolation with places in float64, torch's `grid_sample`
42 ns in float32 and 47 ns in float64, SimpleITK's resampling 83 ns (one thread of an AMD EPYC, 175,000 voxels). So scipy is
used: it needs no torch, and its places are exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.core.geometry import Geometry, Shape

Interpolation: TypeAlias = Literal["linear", "nearest", "cubic"]
ORDERS: dict[Interpolation, int] = {"nearest": 0, "linear": 1, "cubic": 3}
# Places of that many voxels stand in memory at once (6 MB as float64), and at least those of one plane: few enough to stay
# in a processor's cache, enough that the loop over slabs costs nothing.
SLAB_VOXELS = 2**18
# Shares of two labels that differ by less are equal: places are rounded to some 1e-13 of a voxel.
_TIE = 1e-9


def slabs(shape: Shape) -> Iterator[slice]:
    """Ranges of planes along z, in order, of about `SLAB_VOXELS` voxels."""
    step = max(1, SLAB_VOXELS // (shape[1] * shape[2]))
    return (slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step))


def places(fixed: Geometry, moving: Geometry, displacement: NDArray | None, planes: slice) -> NDArray[np.float64]:
    """Where voxels of some planes of `fixed` lie in `moving` after a displacement: (3, z, Y, X), indices of `moving` (z, y, x).

    Args:
        displacement: (3, Z, Y, X) in mm (S, P, L); None: nothing moves.
    """
    to_index = np.linalg.inv(moving.matrix()[:, :3])
    turn = to_index @ fixed.matrix()[:, :3]
    start = to_index @ (np.asarray(fixed.origin_mm) - np.asarray(moving.origin_mm))
    axes = (np.arange(planes.start, planes.stop)[:, None, None], np.arange(fixed.shape[1])[:, None], np.arange(fixed.shape[2]))
    found = np.empty((3, planes.stop - planes.start, *fixed.shape[1:]))
    for row in range(3):
        found[row] = start[row] + turn[row, 0] * axes[0] + turn[row, 1] * axes[1] + turn[row, 2] * axes[2]
        if displacement is not None:
            for world in range(3):
                if to_index[row, world]:
                    found[row] += to_index[row, world] * displacement[world, planes]
    return found


def is_inside(where: NDArray[np.float64], shape: Shape) -> NDArray[np.bool_]:
    """Which of the places (3, ...) lie in an image: within half a voxel of the centre of one, as ITK has it."""
    inside = np.ones(where.shape[1:], dtype=bool)
    for place, size in zip(where, shape, strict=True):
        inside &= (place >= -0.5) & (place < size - 0.5)
    return inside


def prepared(channel: NDArray, interpolation: Interpolation) -> NDArray:
    """What `sample` takes of a channel (Z, Y, X): the coefficients of its spline for `cubic`, else the channel."""
    return ndimage.spline_filter(channel, order=3, output=np.float32, mode="mirror") if interpolation == "cubic" else channel


def sample(channel: NDArray, where: NDArray[np.float64], interpolation: Interpolation, outside: float | None) -> NDArray:
    """Values of a `prepared` channel (Z, Y, X) at places (3, ...), float32; in the type of the channel for `nearest`.

    Args:
        outside: value beyond the image (`is_inside`); None: that of the nearest place in it.
    """
    shape = (channel.shape[0], channel.shape[1], channel.shape[2])
    inside = where
    if interpolation == "cubic":  # beyond the centres of the outer voxels a spline would swing
        inside = np.stack([np.clip(place, 0, size - 1) for place, size in zip(where, shape, strict=True)])
    values = ndimage.map_coordinates(channel, inside, order=ORDERS[interpolation], prefilter=False,
                                     mode="mirror" if interpolation == "cubic" else "nearest",
                                     output=channel.dtype if interpolation == "nearest" else np.float32)
    if outside is not None:
        values[~is_inside(where, shape)] = outside
    return values


def label_of_largest_share(labels: NDArray, where: NDArray[np.float64]) -> NDArray:
    """The label with the largest share of linear interpolation at places (3, n) of a label map (Z, Y, X), (n,).

    Of equal shares the smallest label. As the largest of all labels' masks, each interpolated linearly; but a place has eight
    neighbours only, so neither time nor memory grow with the number of labels. Beyond the image its border is repeated.
    """
    base, share = [], []
    for place, size in zip(where, labels.shape, strict=True):
        inside = np.clip(place, 0, size - 1)
        lower = np.minimum(inside.astype(np.intp), max(size - 2, 0))
        base.append((lower, np.minimum(lower + 1, size - 1)))
        share.append((1 - (inside - lower), inside - lower))
    corners = list(product((0, 1), repeat=3))
    near = np.stack([labels[base[0][z], base[1][y], base[2][x]] for z, y, x in corners])
    chosen = near[0].copy()
    mixed = np.flatnonzero((near != near[0]).any(axis=0))
    if len(mixed):
        weights = np.stack([share[0][z][mixed] * share[1][y][mixed] * share[2][x][mixed] for z, y, x in corners])
        chosen[mixed] = _heaviest(near[:, mixed], weights)
    return chosen


def _heaviest(labels: NDArray, weights: NDArray[np.float64]) -> NDArray:
    """The label (n,) with the largest sum of weights among eight (8, n); of equal sums the smallest label."""
    best, label = np.full(labels.shape[1], -1.0), labels[0].copy()
    for candidate in labels:
        total = (weights * (labels == candidate)).sum(axis=0)
        better = (total > best + _TIE) | ((total > best - _TIE) & (candidate < label))
        best[better], label[better] = total[better], candidate[better]
    return label
