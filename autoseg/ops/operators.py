"""Matrices that resample one axis, made once for each pair of sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# Weights of a cubic spline fall by 0.27 per voxel (Unser 1999, eq. 10); below 1e-9 they are lost in float32.
_NEGLIGIBLE = 1e-9
# Rows that are multiplied together; far from the diagonal there is nothing to multiply.
_BLOCK_ROWS = 64


@dataclass(frozen=True)
class Tap:
    """One old voxel that each new voxel takes a share of.

    Attributes:
        index: old index (new size,).
        share: float32 (new size,).
    """

    index: NDArray[np.intp]
    share: NDArray[np.float32]


@dataclass(frozen=True)
class Operator:
    """A linear map along one axis.

    Attributes:
        matrix: float32 (new size, old size); each row sums to 1 unless the operator was restricted.
    """

    matrix: NDArray[np.float32]

    @property
    def rows(self) -> int:
        return self.matrix.shape[0]

    @property
    def columns(self) -> int:
        return self.matrix.shape[1]

    @cached_property
    def is_identity(self) -> bool:
        return self.rows == self.columns and bool(np.array_equal(self.matrix, np.eye(self.rows)))

    @cached_property
    def nearest(self) -> NDArray[np.intp]:
        """Old index of largest weight for each new index; all of the operator when its order is 0."""
        return self.matrix.argmax(axis=1)

    @cached_property
    def is_selection(self) -> bool:
        """True when every new voxel is a copy of one old voxel."""
        return bool(np.all((self.matrix == 0) | (self.matrix == 1)) and np.all(self.matrix.sum(axis=1) == 1))

    @cached_property
    def taps(self) -> tuple[Tap, ...] | None:
        """The operator as at most two taps with shares of 0 to 1, the last one left out where it takes nothing; None for
        an operator that weighs more than two old voxels or subtracts, as splines of order above 1 do.
        """
        used = self.matrix != 0
        first, last = used.argmax(axis=1), self.columns - 1 - used[:, ::-1].argmax(axis=1)
        if self.matrix.min() < 0 or (last - first).max() > 1:
            return None
        rows = np.arange(self.rows)
        one = Tap(first, self.matrix[rows, first])
        if np.array_equal(first, last):
            return (one,)
        return one, Tap(last, np.where(first == last, np.float32(0), self.matrix[rows, last]))

    @cached_property
    def blocks(self) -> tuple[tuple[slice, slice, NDArray[np.float32]], ...]:
        """(rows, columns, part of the matrix) that together hold every weight."""
        parts = []
        for start in range(0, self.rows, _BLOCK_ROWS):
            rows = slice(start, min(start + _BLOCK_ROWS, self.rows))
            used = np.flatnonzero(self.matrix[rows].any(axis=0))
            columns = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)
            parts.append((rows, columns, np.ascontiguousarray(self.matrix[rows, columns])))
        return tuple(parts)

    def restricted(self, start: int, stop: int) -> tuple[Operator, slice]:
        """The operator for an input that is zero outside [start, stop), and the rows where its output is not zero."""
        if (start, stop) == (0, self.columns):
            return self, slice(0, self.rows)
        used = np.flatnonzero(self.matrix[:, start:stop].any(axis=1))
        rows = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0)
        return Operator(self.matrix[rows, start:stop]), rows


@lru_cache(maxsize=256)
def spline_operator(old: int, new: int, order: int) -> Operator:
    """What `skimage.transform.resize(mode="edge", anti_aliasing=False)` does along one axis, without its clipping."""
    if old == new:
        return Operator(np.eye(old, dtype=np.float32))
    columns = [ndimage.zoom(unit, new / old, order=order, mode="nearest", grid_mode=True)
               for unit in np.eye(old)]
    return _operator(columns)


@lru_cache(maxsize=256)
def smooth_operator(old: int, new: int, order: int) -> Operator:
    """What `skimage.transform.resize(mode="edge", anti_aliasing=True)` does along one axis, without its clipping.

    A Gaussian of sigma (old / new - 1) / 2 voxels (0 where the axis does not shrink), cut at 4 sigma, comes before the spline,
    so that detail finer than the new voxels is averaged away instead of coming back as false patterns.
    """
    sigma = max(0.0, (old / new - 1) / 2)
    if sigma == 0:
        return spline_operator(old, new, order)
    blur = ndimage.gaussian_filter1d(np.eye(old), sigma, axis=0, mode="nearest", truncate=4.0)
    return _operator(list((spline_operator(old, new, order).matrix.astype(np.float64) @ blur).T))


@lru_cache(maxsize=256)
def coarse_operator(old: int, new: int, order: int) -> Operator:
    """What nnU-Net does along a separate axis: `map_coordinates(mode="nearest")` at half-pixel centres."""
    if old == new:
        return Operator(np.eye(old, dtype=np.float32))
    position = (old / new) * (np.arange(new) + 0.5) - 0.5
    return _operator([ndimage.map_coordinates(unit, position[None], order=order, mode="nearest")
                      for unit in np.eye(old)])


def _operator(columns: list[NDArray[np.float64]]) -> Operator:
    matrix = np.stack(columns, axis=1)
    matrix[np.abs(matrix) < _NEGLIGIBLE] = 0
    frozen = matrix.astype(np.float32)
    frozen.setflags(write=False)  # shared by all callers through the cache
    return Operator(frozen)


def apply_operator(voxels: NDArray[np.float32], operator: Operator, axis: int) -> NDArray[np.float32]:
    """`voxels` with the operator applied along one axis; the input itself when it is the identity."""
    if operator.is_identity:
        return voxels
    if operator.is_selection:
        return np.take(voxels, operator.nearest, axis=axis)
    before, after = voxels.shape[:axis], voxels.shape[axis + 1:]
    columns = np.ascontiguousarray(voxels).reshape(math.prod(before), voxels.shape[axis], math.prod(after))
    result = np.empty((len(columns), operator.rows, columns.shape[2]), np.float32)
    for rows, part, matrix in operator.blocks:
        if after:
            np.matmul(matrix, columns[:, part], out=result[:, rows])
        else:
            result[:, rows, 0] = columns[:, part, 0] @ matrix.T
    return result.reshape(*before, operator.rows, *after)
