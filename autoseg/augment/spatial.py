"""Rotation, scaling and cropping of an image and its label map."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from batchgeneratorsv2.transforms.spatial.spatial import (
    SpatialTransform,
    create_affine_matrix_2d,
    create_affine_matrix_3d,
)
from batchgeneratorsv2.transforms.utils.cropping import crop_tensor
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from autoseg.core.geometry import Shape
from autoseg.core.plan import Augmentation

# Angles per axis that `source_patch_size` tries: 5 degrees apart for nnU-Net's +-30, which misses the largest reach by
# less than 0.1 % of the patch diagonal (half a step of rotation moves a corner by 1 - cos); one voxel is added for it.
_ANGLES_PER_AXIS = 13

# Voxels between the points where displacements are drawn: folds need neighbours more than a spacing apart, which a
# standard deviation of 1.5 voxels never draws; finer grids roughen edges, coarser ones are rotations.
_ELASTIC_SPACING = 9

# Indicators interpolated together: `grid_sample` computes its weights once for all of them; more cost memory.
_LABELS_AT_ONCE = 8


@dataclass(frozen=True)
class Motion:
    """One drawn rotation and scaling of the sampling grid about the centre of the patch.

    Attributes:
        angles_rad: one per rotated axis: three, or one for 2-D and dummy 2-D.
        scale: size of the sampled box / size of the patch: above 1 objects look smaller.
        displacement_voxels: (axes, *coarse grid over the patch), added to the sampled positions; None: no deformation.
    """

    angles_rad: tuple[float, ...]
    scale: float
    displacement_voxels: NDArray[np.float32] | None = field(default=None, compare=False)

    @property
    def moves(self) -> bool:
        """The patch must be interpolated; else it is cropped."""
        return self.scale != 1 or any(self.angles_rad) or self.displacement_voxels is not None


def draw_motion(augmentation: Augmentation, patch_size: Shape, rng: np.random.Generator) -> Motion:
    """Rotation (every axis, uniform in its range), isotropic scaling (uniform) and deformation, each with its probability."""
    count = 1 if moves_in_slices(augmentation, patch_size) else 3
    rotate = rng.random() < augmentation.rotation_probability
    angles = rng.uniform(*augmentation.rotation_deg, size=count) if rotate else np.zeros(count)
    scale = rng.uniform(*augmentation.scaling) if rng.random() < augmentation.scaling_probability else 1.0
    displacement = None
    if augmentation.elastic_probability > 0 and rng.random() < augmentation.elastic_probability:
        moved = patch_size[1:] if count == 1 else patch_size
        coarse = [size // _ELASTIC_SPACING + 2 for size in moved]
        deviation = rng.uniform(*augmentation.elastic_deviation_voxels)
        displacement = rng.normal(0.0, deviation, (len(moved), *coarse)).astype(np.float32)
    return Motion(tuple(float(angle) for angle in np.deg2rad(angles)), float(scale), displacement)


def moves_in_slices(augmentation: Augmentation, patch_size: Shape) -> bool:
    """True when axis 0 takes no part in rotation and scaling: 2-D patches and dummy 2-D augmentation."""
    return patch_size[0] == 1 or augmentation.dummy_2d


def source_size(patch_size: Shape, motion: Motion) -> Shape:
    """Shape of the box around the patch's centre that one motion samples from; the patch itself if it does not move."""
    if not motion.moves:
        return patch_size
    first = 3 - max(len(motion.angles_rad), 2)
    reach = np.abs(_matrix(motion)) @ ((np.array(patch_size[first:]) - 1) / 2)
    if motion.displacement_voxels is not None:
        reach = reach + np.abs(motion.displacement_voxels).reshape(len(reach), -1).max(axis=1)
    return _enclosing(patch_size, reach, first)


@lru_cache(maxsize=64)
def source_patch_size(patch_size: Shape, augmentation: Augmentation) -> Shape:
    """Smallest shape from which no rotation or scaling of `augmentation` reads outside; sizes differ by even numbers.

    Deformation, which has no largest reach, comes on top; `source_size` of a drawn motion holds it.

    The even difference keeps both centres on the same point, so that a crop and an interpolation without motion agree.
    """
    angles, largest = (0.0,), 1.0
    if augmentation.rotation_probability > 0:
        angles = tuple(np.deg2rad(np.linspace(*augmentation.rotation_deg, _ANGLES_PER_AXIS)))
    if augmentation.scaling_probability > 0:
        largest = max(1.0, augmentation.scaling[1])
    in_slices = moves_in_slices(augmentation, patch_size)
    first, count = (1, 1) if in_slices else (0, 3)
    half = (np.array(patch_size[first:]) - 1) / 2
    if angles == (0.0,):
        reach = largest * half
    elif max(abs(angle) for angle in angles) >= np.pi / 2:
        reach = np.full(half.shape, largest * np.linalg.norm(half))
    else:
        matrices = np.stack([_matrix(Motion(drawn, largest)) for drawn in itertools.product(angles, repeat=count)])
        reach = (np.abs(matrices) @ half).max(axis=0) + 1
    return _enclosing(patch_size, reach, first)


def move(image: Tensor, label: Tensor, patch_size: Sequence[int], motion: Motion) -> tuple[Tensor, Tensor]:
    """Image (C, *spatial) and label map (L, *spatial) sampled on the moved patch about their centre.

    The image is interpolated linearly; each label voxel takes the label of largest linearly interpolated weight. What
    lies outside is 0. `spatial` has two axes or three; sizes should differ from the patch by even numbers.
    The library draws from numpy's global generator on the way, which does not change the result.
    """
    if not motion.moves:
        return centre_crop(image, patch_size), centre_crop(label, patch_size)
    planar = (1,) * (3 - len(patch_size))
    needed = source_size((*planar, *patch_size), motion)[len(planar):]  # type: ignore[arg-type]
    image, label = centre_crop(image, needed), centre_crop(label, needed)
    grid = SpatialTransform(
        tuple(patch_size), patch_center_dist_from_border=0, random_crop=False,
        p_rotation=1, rotation=lambda image, dim: motion.angles_rad[min(dim, len(motion.angles_rad) - 1)],
        p_scaling=1, scaling=motion.scale, p_synchronize_scaling_across_axes=1,
    ).get_parameters(image=image)["grid"]
    if motion.displacement_voxels is not None:
        grid = grid + _displacement(motion.displacement_voxels, patch_size, image.shape[1:])
    return _interpolate(image, grid), torch.stack([_interpolate_labels(channel, grid) for channel in label])


def _displacement(coarse: NDArray[np.float32], patch_size: Sequence[int], source: Sequence[int]) -> Tensor:
    """(*patch, axes) in the units of the sampling grid: twice the share of the source, last axis first."""
    mode = "trilinear" if len(patch_size) == 3 else "bilinear"
    fine = functional.interpolate(torch.from_numpy(coarse)[None], tuple(patch_size), mode=mode, align_corners=True)[0]
    scaled = fine * (2 / torch.tensor(source, dtype=fine.dtype)).reshape(-1, *(1,) * len(patch_size))
    return scaled.flip(0).movedim(0, -1)


def centre_crop(voxels: Tensor, patch_size: Sequence[int]) -> Tensor:
    """Central box (C, *patch_size) of (C, *spatial), padded with 0 where it is smaller; a view where nothing is padded.

    The box starts at floor((size - patch) / 2).
    """
    centre = [math.floor((size - patch) / 2) + patch // 2
              for size, patch in zip(voxels.shape[1:], patch_size, strict=True)]
    return crop_tensor(voxels, centre, tuple(patch_size))


def _interpolate(voxels: Tensor, grid: Tensor) -> Tensor:
    """(C, *patch) of (C, *spatial) at the library's grid points, linear, 0 outside."""
    return functional.grid_sample(
        voxels[None], grid[None], mode="bilinear", padding_mode="zeros", align_corners=False)[0]


def _interpolate_labels(label: Tensor, grid: Tensor) -> Tensor:
    """Label of largest weight at the grid points; on a tie the one listed first, the background before all.

    The numbers are those of the library's own label sampling, in groups of indicators instead of one by one (6 against
    13 ms for three labels on a patch of 40 x 56 x 40, measured with 1 thread).
    """
    present = [int(value) for value in np.unique(label.numpy()) if value != 0]
    chosen = torch.zeros(grid.shape[:-1], dtype=label.dtype)
    largest = 1 - _interpolate((label != 0).float()[None], grid)[0]
    for start in range(0, len(present), _LABELS_AT_ONCE):
        group = present[start:start + _LABELS_AT_ONCE]
        weights = _interpolate(torch.stack([label == value for value in group]).float(), grid)
        for value, weight in zip(group, weights, strict=True):
            chosen.masked_fill_(weight > largest, value)
            largest = torch.maximum(largest, weight)
    return chosen


def _matrix(motion: Motion) -> NDArray[np.float64]:
    """Patch offsets to source offsets, in voxels; the library's own matrix."""
    if len(motion.angles_rad) == 1:
        return create_affine_matrix_2d(motion.angles_rad[0], [motion.scale] * 2)
    return create_affine_matrix_3d(motion.angles_rad, [motion.scale] * 3)


def _enclosing(patch_size: Shape, reach: NDArray[np.float64], first: int) -> Shape:
    """Shape whose centred box holds offsets up to `reach` along the axes from `first` on; parity as the patch."""
    sizes = list(patch_size)
    for axis, distance in enumerate(reach, start=first):
        patch = patch_size[axis]
        sizes[axis] = patch + 2 * max(0, math.ceil(distance - (patch - 1) / 2 - 1e-9))
    return (sizes[0], sizes[1], sizes[2])
