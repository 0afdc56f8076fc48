"""How much a displacement bends: energies of its first and second derivatives, in millimetres."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement

from torch import Tensor


def diffusion_energy(displacement: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    """Mean square of the first derivatives, over components, axes and voxels; without unit, 0 for a shift.

    Args:
        displacement: (B, D, *spatial) in voxels, or a velocity.
        spacing_mm: voxel size per spatial axis: millimetres of displacement by millimetres of the image.
    Returns:
        Scalar. Differences of neighbours; an axis of one voxel adds 0.
    Source: VoxelMorph's `Grad('l2')` (Balakrishnan et al. 2019, eq. 9), so its published weights hold; with spacing.
    """
    axes = displacement.ndim - 2
    field = _in_mm(displacement, spacing_mm)
    longer = [axis for axis in range(axes) if field.shape[axis + 2] > 1]
    total = field.sum() * 0  # a gradient of 0, where there is no derivative at all
    return sum(((_difference(field, axis) / spacing_mm[axis]).square().mean() for axis in longer), start=total) / axes


def bending_energy(displacement: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    """Mean over voxels of the squares of all second derivatives, summed over components; in 1 / mm**2, 0 for affine maps.

    Mixed derivatives count twice, once for each order of the axes.

    Args:
        displacement, spacing_mm: as in `diffusion_energy`.
    Returns:
        Scalar. Each derivative is taken wherever its neighbours are inside; one along a shorter axis adds 0.
    Source: Rueckert et al. 1999, eq. 8.
    """
    axes = displacement.ndim - 2
    field = _in_mm(displacement, spacing_mm)
    total = field.sum() * 0
    for first, second in combinations_with_replacement(range(axes), 2):
        curved = _difference(_difference(field, first), second) / (spacing_mm[first] * spacing_mm[second])
        if curved.numel():
            total = total + curved.square().mean() * axes * (1 if first == second else 2)
    return total


def _in_mm(displacement: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    spacing = displacement.new_tensor(list(spacing_mm))
    return displacement * spacing.reshape(-1, *(1,) * (displacement.ndim - 2))


def _difference(field: Tensor, axis: int) -> Tensor:
    """Next voxel minus this one along a spatial axis, which gets one voxel shorter."""
    size = field.shape[axis + 2]
    return field.narrow(axis + 2, 1, max(size - 1, 0)) - field.narrow(axis + 2, 0, max(size - 1, 0)) if size > 1 \
        else field.narrow(axis + 2, 0, 0)
