"""Labels on another grid from logits that arrive slab by slab: nearly all without interpolating a single logit.

Linear interpolation is a mean with shares of 0 to 1. Where all voxels that a new voxel takes a share of have the same
label, so has their mean: if class c is the largest in each of them, it is the largest in every mean of them, and if an
output is positive in each, so is every mean. Logits are interpolated only where labels meet, and there for these voxels
alone, as one sparse matrix product over all classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from autoseg.ops.operators import Operator, Tap
from autoseg.ops.slabs import LogitSlabs, require_all_planes

# (K, Z, Y, X) -> (Z, Y, X). The logits that give one label must form a convex set for labels to be taken without
# interpolation; the largest of K and the last positive of K do.
Decide: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.uint8]]

# Logits of that many voxels are interpolated together: few enough to stay in a processor's cache of some MB.
_BLOCK_BYTES = 2**23


@dataclass(frozen=True)
class _Plane:
    """One plane of the old grid.

    Attributes:
        logits: (K, Y, X).
        lowest, highest: of the labels that each new voxel of the plane takes a share of, (new Y, new X).
    """

    logits: NDArray[np.float32]
    lowest: NDArray[np.uint8]
    highest: NDArray[np.uint8]

    @cached_property
    def by_voxel(self) -> NDArray[np.float32]:
        """Logits (Y * X, K); made only where they are needed."""
        return np.ascontiguousarray(self.logits.reshape(len(self.logits), -1).T)


def stream_labels(slabs: LogitSlabs, operators: Sequence[Operator], decide: Decide, *,
                  convex: bool = True) -> Iterator[NDArray[np.uint8]]:
    """Planes (new Y, new X) of the label map on the new grid, from the first to the last.

    Equal to `decide` of the interpolated logits, but for voxels where rounding decides: interpolated logits differ from
    those of `resample` by some 1e-7 of their size, because sums are made in another order.

    Args:
        operators: along z, y and x, each with `taps`.
        decide: labels of logits.
        convex: the logits that give one label are a convex set; otherwise every voxel is interpolated.
    """
    if all(operator.is_identity for operator in operators):
        yield from _decided(slabs, decide)
        return
    taps_y, taps_x = (_taps(operator) for operator in operators[1:])
    for planes in _pairs(slabs, operators, decide):
        lowest, highest = planes[0][0].lowest, planes[0][0].highest
        for plane, _ in planes[1:]:
            lowest, highest = np.minimum(lowest, plane.lowest), np.maximum(highest, plane.highest)
        label = lowest.copy()
        where = np.flatnonzero(lowest != highest) if convex else np.arange(label.size)
        for part, values in _interpolated(planes, taps_y, taps_x, where):
            label.reshape(-1)[part] = decide(values.T[:, None, None, :])[0, 0]
        yield label


def stream_logits(slabs: LogitSlabs, operators: Sequence[Operator]) -> Iterator[NDArray[np.float32]]:
    """Planes (K, new Y, new X) of the interpolated logits, from the first to the last; operators as in `stream_labels`."""
    taps_y, taps_x = (_taps(operator) for operator in operators[1:])
    shape = (slabs.shape[0], operators[1].rows, operators[2].rows)
    for planes in _pairs(slabs, operators, None):
        logits = np.empty(shape, np.float32)
        for part, values in _interpolated(planes, taps_y, taps_x, np.arange(shape[1] * shape[2])):
            logits.reshape(shape[0], -1)[:, part] = values.T
        yield logits


def can_stream(operators: Sequence[Operator]) -> bool:
    """Whether every operator takes shares of at most two neighbours: splines of order 0 and 1."""
    return all(operator.taps is not None for operator in operators)


def _decided(slabs: LogitSlabs, decide: Decide) -> Iterator[NDArray[np.uint8]]:
    """Labels on the grid of the logits."""
    count = 0
    for slab in slabs.parts:
        count += slab.shape[1]
        label = decide(slab)
        del slab  # else it would lie beside the next one while that is made
        yield from label
    require_all_planes(count, slabs.shape[1])


def _taps(operator: Operator) -> tuple[Tap, ...]:
    if operator.taps is None:
        raise ValueError("logits can be streamed through operators of order 0 and 1 only")
    return operator.taps


def _pairs(slabs: LogitSlabs, operators: Sequence[Operator],
           decide: Decide | None) -> Iterator[list[tuple[_Plane, np.float32]]]:
    """For every new plane the one or two old planes that it takes a share of, with the shares along z.

    Two old planes are kept: shares move along z in one direction.
    """
    taps = _taps(operators[0])
    arriving = _planes(slabs, operators, decide)
    kept: dict[int, _Plane] = {}
    count = 0
    for new in range(operators[0].rows):
        wanted = [(int(tap.index[new]), tap.share[new]) for tap in taps if tap.share[new]]
        kept = {place: plane for place, plane in kept.items() if place >= wanted[0][0]}
        while count <= wanted[-1][0]:
            plane = next(arriving, None)
            if plane is None:
                require_all_planes(count, slabs.shape[1])
            elif count >= wanted[0][0]:
                kept[count] = plane
            count += 1
        yield [(kept[place], share) for place, share in wanted]
    require_all_planes(count + sum(1 for _ in arriving), slabs.shape[1])


def _planes(slabs: LogitSlabs, operators: Sequence[Operator], decide: Decide | None) -> Iterator[_Plane]:
    nothing = np.zeros((1, 1), np.uint8)
    for slab in slabs.parts:
        labels = [nothing] * slab.shape[1] if decide is None else decide(slab)
        for place, label in enumerate(labels):
            if decide is None:
                yield _Plane(slab[:, place], nothing, nothing)
            else:
                yield _Plane(slab[:, place], *_extremes(label, _taps(operators[1]), _taps(operators[2])))


def _extremes(label: NDArray[np.uint8], taps_y: Sequence[Tap],
              taps_x: Sequence[Tap]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Lowest and highest label (new Y, new X) among the voxels (Y, X) that a new voxel of the plane takes a share of."""
    columns = [label[:, tap.index] for tap in taps_x]
    lowest, highest = np.minimum.reduce(columns), np.maximum.reduce(columns)
    return (np.minimum.reduce([lowest[tap.index] for tap in taps_y]),
            np.maximum.reduce([highest[tap.index] for tap in taps_y]))


def _interpolated(planes: Sequence[tuple[_Plane, np.float32]], taps_y: Sequence[Tap], taps_x: Sequence[Tap],
                  where: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
    """Blocks of the flat indices `where` of a new plane, each with the logits (n, K) of these voxels."""
    classes, _, width = planes[0][0].logits.shape
    step = max(1, _BLOCK_BYTES // (4 * classes))
    for start in range(0, len(where), step):
        part = where[start:start + step]
        row, column = np.divmod(part, len(taps_x[0].index))
        pairs = [(y, x) for y in taps_y for x in taps_x]
        indices = np.stack([y.index[row] * width + x.index[column] for y, x in pairs], axis=1).astype(np.int32)
        shares = np.stack([y.share[row] * x.share[column] for y, x in pairs], axis=1)
        starts = np.arange(0, indices.size + 1, len(pairs), dtype=np.int32)
        values = np.zeros((len(part), classes), np.float32)
        for plane, share in planes:
            weights = csr_array((shares.ravel() * share, indices.ravel(), starts), shape=(len(part), len(plane.by_voxel)))
            values += weights @ plane.by_voxel
        yield part, values
