"""Resampling to another grid: one operator per axis, with nnU-Net v2's numbers.

nnU-Net v2 (`preprocessing/resampling/default_resampling.py`) resamples with `skimage.transform.resize` (splines, edge
mode, half-pixel centres, clipped to the range of the input) and treats a coarse axis apart. Splines on a regular grid
are separable and linear: each axis is a (new x old) matrix that does not depend on the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from autoseg.core.geometry import Box, Shape, Spacing
from autoseg.ops.operators import Operator, apply_operator, coarse_operator, smooth_operator, spline_operator

# Sums of spline weights in float32 miss an exact one half by some 1e-7; a voxel on the border of two labels
# shall not depend on that.
_HALF = 0.5 - 1e-6
# Bytes of a channel that are drawn together: little beside any image that matters, and enough for fast products.
PART_BYTES = 2**26


def resampled_shape(shape: Shape, spacing_mm: Spacing, new_spacing_mm: Spacing) -> Shape:
    """Voxels along each axis when an image is brought to another spacing; at least one.

    Source: nnU-Net v2, round(old spacing / new spacing * size).
    """
    sizes = [max(1, int(round(old / new * size)))
             for old, new, size in zip(spacing_mm, new_spacing_mm, shape, strict=True)]
    return sizes[0], sizes[1], sizes[2]


def separate_axis(current_spacing_mm: Spacing, new_spacing_mm: Spacing, ratio: float = 3.0) -> int | None:
    """The coarse axis that is resampled apart from the others, or None.

    It is the axis of the largest current spacing when that exceeds `ratio` times the smallest; else the same for the
    new spacing. Two or three axes that share the largest spacing are not coarse.
    Source: nnU-Net v2, `determine_do_sep_z_and_axis`.
    """
    for spacing in (current_spacing_mm, new_spacing_mm):
        if max(spacing) / min(spacing) > ratio:
            coarse = [axis for axis in range(3) if spacing[axis] == max(spacing)]
            return coarse[0] if len(coarse) == 1 else None
    return None


def resample(voxels: NDArray, shape: Shape, *, order: int, order_z: int = 0,
             separate_axis: int | None = None) -> NDArray[np.float32]:
    """Voxels (C, Z, Y, X) on a grid of `shape` that covers the same space: float32 (C, *shape).

    Args:
        order: of the spline, 0 (nearest) to 5; results are clipped to the range of the input, per channel.
        order_z: of the spline along `separate_axis`, not clipped.
        separate_axis: resample every slice across this axis on its own (and clip it to its own range), then along it.
    Returns:
        The input itself, as float32, when the shape does not change.
    """
    voxels = voxels.astype(np.float32, copy=False)
    if voxels.shape[1:] == tuple(shape):
        return voxels
    axes = [axis for axis in range(3) if axis != separate_axis]
    operators = {axis: spline_operator(voxels.shape[1 + axis], shape[axis], order) for axis in axes}
    inside = _apply_all(voxels, {1 + axis: operator for axis, operator in operators.items()})
    if order > 1 and inside is not voxels:  # weights of order 0 and 1 are shares: they cannot leave the range
        across = tuple(1 + axis for axis in axes)
        np.clip(inside, voxels.min(axis=across, keepdims=True), voxels.max(axis=across, keepdims=True), out=inside)
    if separate_axis is None:
        return inside
    size = voxels.shape[1 + separate_axis]
    return apply_operator(inside, coarse_operator(size, shape[separate_axis], order_z), 1 + separate_axis)


def resample_parts(part: Callable[[Box], NDArray[np.float32]], old_shape: Shape, shape: Shape, *, order: int,
                   order_z: int = 0, separate_axis: int | None = None,
                   low_pass_from: float | None = None) -> NDArray[np.float32]:
    """What `resample` makes of one channel, drawn part by part, so that it never stands in memory as a whole.

    The axis that shrinks least is resampled last (a separate axis always is); the others are, part after part along it.

    Args:
        part: voxels (z, y, x) inside a half-open box of the channel, float32; may be changed.
        old_shape: of the channel.
        low_pass_from: as in `axis_operators`.
    Returns:
        float32 of `shape`.
    """
    operators = axis_operators(old_shape, shape, order=order, order_z=order_z, separate_axis=separate_axis,
                               low_pass_from=low_pass_from)
    axes = sorted(range(3), key=lambda axis: (axis == separate_axis, operators[axis].rows / operators[axis].columns))
    last, others = axes[2], tuple(axes[:2])
    clips, lowest, highest = order > 1 and old_shape != tuple(shape), np.float32(np.inf), np.float32(-np.inf)
    inside = np.empty([old_shape[axis] if axis == last else shape[axis] for axis in range(3)], np.float32)
    step = max(1, PART_BYTES * old_shape[last] // (4 * math.prod(old_shape)))
    for start in range(0, old_shape[last], step):
        extents = [(0, size) for size in old_shape]
        extents[last] = (start, min(start + step, old_shape[last]))
        voxels = part((extents[0], extents[1], extents[2]))
        result = _apply_all(voxels, {axis: operators[axis] for axis in others})
        if clips and last == separate_axis:
            np.clip(result, voxels.min(axis=others, keepdims=True), voxels.max(axis=others, keepdims=True), out=result)
        elif clips:
            lowest, highest = min(lowest, voxels.min()), max(highest, voxels.max())
        inside[tuple(slice(*extents[axis]) if axis == last else slice(None) for axis in range(3))] = result
    resampled = apply_operator(inside, operators[last], last)
    return np.clip(resampled, lowest, highest, out=resampled) if clips and last != separate_axis else resampled


def axis_operators(shape: Shape, new_shape: Shape, *, order: int, order_z: int = 0,
                   separate_axis: int | None = None,
                   low_pass_from: float | None = None) -> tuple[Operator, Operator, Operator]:
    """What `resample` does along z, y and x with the same arguments, apart from its clipping for orders above 1.

    Args:
        low_pass_from: an axis that shrinks by more than this factor is blurred first; None: none is.
    """
    def operator(axis: int, old: int, new: int) -> Operator:
        if axis == separate_axis:
            return coarse_operator(old, new, order_z)
        blurred = low_pass_from is not None and old > low_pass_from * new
        return smooth_operator(old, new, order) if blurred else spline_operator(old, new, order)

    z, y, x = (operator(axis, old, new) for axis, (old, new) in enumerate(zip(shape, new_shape, strict=True)))
    return z, y, x


def resample_labels(label: NDArray, shape: Shape, *, order: int = 1, order_z: int = 0,
                    separate_axis: int | None = None) -> NDArray:
    """Label map (Z, Y, X) of integers on a grid of `shape` that covers the same space; same dtype, no new labels.

    Each label is resampled as a mask and kept where it reaches one half, in ascending order of the labels, so that the
    larger label wins a tie; what no label reaches becomes 0. `order` 0 takes the nearest voxel instead.

    Args:
        order, order_z, separate_axis: as in `resample`.
    Returns:
        The input itself when the shape does not change.
    Source: batchgenerators' `resize_segmentation` as used by nnU-Net v2; along a separate axis of order above 0 a label
        must exceed one half.
    """
    if label.shape == tuple(shape):
        return label
    operators = {axis: spline_operator(label.shape[axis], shape[axis], order)
                 for axis in range(3) if axis != separate_axis}
    inside = _vote(label, operators, nearest=order == 0, threshold=_HALF)
    if separate_axis is None:
        return inside
    coarse = coarse_operator(label.shape[separate_axis], shape[separate_axis], order_z)
    return _vote(inside, {separate_axis: coarse}, nearest=order_z == 0, threshold=1 - _HALF)


def _apply_all(voxels: NDArray[np.float32], operators: dict[int, Operator]) -> NDArray[np.float32]:
    """Operators by axis, the one that shrinks the array most first; the input itself when all are identities."""
    for axis in sorted(operators, key=lambda axis: operators[axis].rows / operators[axis].columns):
        voxels = apply_operator(voxels, operators[axis], axis)
    return voxels


def _vote(label: NDArray, operators: dict[int, Operator], *, nearest: bool, threshold: float) -> NDArray:
    """Label map after the operators by axis: nearest voxel, or the last label that reaches the threshold.

    Only the box of a label and what it reaches through the operators is computed; elsewhere its share is 0.
    """
    if all(operator.is_identity for operator in operators.values()):
        return label
    if nearest:
        for axis, operator in operators.items():
            label = np.take(label, operator.nearest, axis=axis)
        return label
    shape = [operators[axis].rows if axis in operators else label.shape[axis] for axis in range(3)]
    result = np.zeros(shape, label.dtype)
    for value, box in _boxes_of_labels(label):
        parts = {axis: operator.restricted(*box[axis]) for axis, operator in operators.items()}
        mask = (label[tuple(slice(*extent) for extent in box)] == value).astype(np.float32)
        share = _apply_all(mask, {axis: part for axis, (part, _) in parts.items()})
        target = tuple(parts[axis][1] if axis in parts else slice(*box[axis]) for axis in range(3))
        result[target][share >= threshold] = value
    return result


def _boxes_of_labels(label: NDArray) -> list[tuple[int, list[tuple[int, int]]]]:
    """Labels in ascending order, each with the box around it; 0 only when labels below it could stand in its place."""
    values = np.unique(label)
    if values[0] >= 0:
        values = values[values != 0]
    boxes: list[tuple[int, list[tuple[int, int]]]] = []
    for value in values:
        where = label == value
        extents = [np.flatnonzero(where.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
        boxes.append((value, [(int(extent[0]), int(extent[-1]) + 1) for extent in extents]))
    return boxes
