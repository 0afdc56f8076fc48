"""The model grid: target spacing, axis order and median shape, by nnU-Net's rules."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from autoseg.core.errors import DatasetError
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.geometry import Shape, Spacing
from autoseg.core.plan import Reason

# nnU-Net 2.8.1, configuration.py: an axis is coarse when it exceeds the others by this factor.
ANISOTROPY = 3.0
# nnU-Net 2.8.1, default_experiment_planner.py: percentile of the coarse axis' spacing that becomes its target.
COARSE_PERCENTILE = 10
# nnU-Net 2.8.1: the target of a coarse axis stays above the others by this much (mm).
COARSE_MARGIN_MM = 1e-5

PLANNER = "nnU-Net 2.8.1 experiment planner (Isensee et al. 2021, Nature Methods 18:203)"


@dataclass(frozen=True)
class Grid:
    """The model grid of a dataset, in model axis order.

    Attributes:
        transpose: model axis a is canonical axis transpose[a].
        spacing_mm: target spacing.
        median_shape: median over cases of the shape at the target spacing, in voxels.
        median_slices: median over cases of the size of axis 0 as stored, in voxels.
        case_count: cases of the dataset.
        shapes: of all cases at the target spacing, in voxels; empty: not known.
        slices: sizes of axis 0 as stored, beside them.
        stored_voxels: median over cases of the voxels as stored, before a crop; 0: not known.
    """

    transpose: tuple[int, int, int]
    spacing_mm: Spacing
    median_shape: tuple[float, float, float]
    median_slices: float
    case_count: int
    shapes: tuple[tuple[int, int, int], ...] = ()
    slices: tuple[int, ...] = ()
    stored_voxels: float = 0.0

    @property
    def dataset_voxels(self) -> float:
        """Voxels of the dataset, if every case had the median shape."""
        return math.prod(self.median_shape) * self.case_count


def plan_grid(fingerprint: Fingerprint) -> Grid:
    """The grid on which the networks of a dataset work.

    Raises:
        DatasetError: the fingerprint holds no case.
    """
    if fingerprint.case_count == 0:
        raise DatasetError("the fingerprint holds no case; at least one image with a label is needed to plan")
    target = target_spacing(fingerprint.spacings_mm, fingerprint.shapes_after_crop)
    transpose = model_axes(target, fingerprint.shapes_after_crop)
    shape = median_shape(fingerprint.shapes_after_crop, fingerprint.spacings_mm, target)
    slices = float(np.median([shape[transpose[0]] for shape in fingerprint.shapes_after_crop]))
    first, second, third = transpose
    shapes = resampled_shapes(fingerprint.shapes_after_crop, fingerprint.spacings_mm, target)
    stored = [math.prod(size) / share for size, share in
              zip(fingerprint.shapes_after_crop, fingerprint.relative_sizes, strict=True)]
    return Grid(transpose, (target[first], target[second], target[third]),
                (shape[first], shape[second], shape[third]), slices, fingerprint.case_count,
                tuple((size[first], size[second], size[third]) for size in shapes),
                tuple(size[first] for size in fingerprint.shapes_after_crop), float(np.median(stored)))


def target_spacing(spacings_mm: tuple[Spacing, ...], shapes: tuple[Shape, ...]) -> Spacing:
    """Spacing (canonical axes, mm) to which all cases are resampled: the median of every axis, finer for a coarse one.

    A coarse axis (median spacing above three times every other one, and size below a third of every other one) takes the
    10th percentile of its spacing, but stays above the other axes.
    """
    target = np.percentile(np.array(spacings_mm, dtype=float), 50, axis=0)
    size = np.percentile(np.array(shapes, dtype=float), 50, axis=0)
    coarse = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != coarse]
    widest = max(target[others])
    if target[coarse] > ANISOTROPY * widest and size[coarse] * ANISOTROPY < min(size[others]):
        fine = float(np.percentile(np.array(spacings_mm)[:, coarse], COARSE_PERCENTILE))
        target[coarse] = fine if fine >= widest else widest + COARSE_MARGIN_MM
    return (float(target[0]), float(target[1]), float(target[2]))


def model_axes(target_mm: Spacing, shapes: tuple[Shape, ...]) -> tuple[int, int, int]:
    """Canonical axis of every model axis: the coarsest first, the others in their order.

    An axis along which every case has one voxel counts as the coarsest: nnU-Net's readers give 2-D images a spacing of
    999 there.
    """
    flat = [axis for axis in range(3) if all(shape[axis] == 1 for shape in shapes)]
    first = flat[0] if flat else int(np.argmax(target_mm))
    second, third = (axis for axis in range(3) if axis != first)
    return (first, second, third)


def median_shape(shapes: tuple[Shape, ...], spacings_mm: tuple[Spacing, ...], target_mm: Spacing) -> Spacing:
    """Median over cases of the shape after resampling to `target_mm`, canonical axes, in voxels."""
    middle = np.median(np.array(resampled_shapes(shapes, spacings_mm, target_mm), dtype=float), axis=0)
    return (float(middle[0]), float(middle[1]), float(middle[2]))


def resampled_shapes(shapes: tuple[Shape, ...], spacings_mm: tuple[Spacing, ...], target_mm: Spacing) -> list[list[int]]:
    """Shape of every case after resampling to `target_mm`, canonical axes, in voxels."""
    return [[round(spacing / target * size) for spacing, target, size in zip(spacing_mm, target_mm, shape, strict=True)]
            for spacing_mm, shape in zip(spacings_mm, shapes, strict=True)]


def grid_reason(fingerprint: Fingerprint) -> Reason:
    """Why the model's axes stand in this order."""
    target = target_spacing(fingerprint.spacings_mm, fingerprint.shapes_after_crop)
    return Reason(f"target spacing {_list(target)} mm along canonical z, y, x",
                  "the axis of the coarsest target spacing comes first, the others keep their order; strides and the "
                  "2-D configuration rely on it", PLANNER)


def spacing_reason(fingerprint: Fingerprint, grid: Grid, dims: int) -> Reason:
    """Why the model grid has this spacing."""
    spacings = np.array(fingerprint.spacings_mm)[:, list(grid.transpose)]
    inputs = (f"{grid.case_count} cases, spacing in model axis order: median {_list(np.median(spacings, axis=0))} mm, "
              f"range {_list(spacings.min(axis=0))} to {_list(spacings.max(axis=0))} mm")
    rule = ("median of every axis; an axis above 3 times the other spacings that has less than a third of their voxels "
            "takes its 10th percentile")
    if dims == 2:
        rule += "; slices are never resampled along axis 0, so that axis has no target"
    return Reason(inputs, rule, PLANNER)


def shape_reason(fingerprint: Fingerprint, grid: Grid) -> Reason:
    """Why the median shape is what it is."""
    return Reason(f"{grid.case_count} shapes after cropping to non-zero, target spacing {_list(grid.spacing_mm)} mm",
                  "median over cases of round(old spacing / new spacing x size), per axis", PLANNER)


def _list(values) -> str:
    return " x ".join(f"{float(value):.4g}" for value in values)
