"""Displacements of image grids: warping, composing, integrating, and the Jacobian of what they do.

A displacement is (B, D, *spatial) in voxels of its own grid, component d along spatial axis d, and D spatial axes. The point x of
the fixed grid corresponds to x + u(x) of the moving image, and a warped image is moving(x + u(x)); voxel centres are the integers
(`align_corners`). A velocity has the same layout and unit. Affine matrices (B, D, D + 1) act on voxels from the centre c of the
grid: x -> A (x - c) + c + t.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Mode = Literal["linear", "nearest"]
Padding = Literal["border", "zeros"]

_INTERPOLATION = {2: "bilinear", 3: "trilinear"}


def warp(image: Tensor, displacement: Tensor, *, mode: Mode = "linear", padding: Padding = "border") -> Tensor:
    """The image at x + u(x), (B, C, *spatial of the displacement), of the image's type.

    Args:
        image: (B, C, *spatial) of any type. Its grid may have another shape than the displacement's, with the same voxels from
            the same first voxel on.
        mode: `nearest` for labels, which keep their values up to 2**24; halves go to the even voxel.
        padding: what lies outside: the nearest voxel of the `border`, or `zeros` (linear from the border on).
    """
    voxels = image if image.is_floating_point() else image.to(displacement.dtype)
    found = functional.grid_sample(
        voxels, sampling_grid(displacement, image.shape[2:]), mode="bilinear" if mode == "linear" else "nearest",
        padding_mode=padding, align_corners=True)
    return found.to(image.dtype)


def sampling_grid(displacement: Tensor, shape: Sequence[int]) -> Tensor:
    """Positions (B, *spatial, D) of x + u(x) as `grid_sample` has them: -1 to 1 over an image of `shape`, last axis first."""
    axes = displacement.ndim - 2
    positions = [
        (displacement[:, axis] + _coordinates(displacement, axis)) * (2 / max(shape[axis] - 1, 1)) - 1 for axis in range(axes)]
    return torch.stack(positions[::-1], dim=-1)


def compose(first: Tensor, then: Tensor) -> Tensor:
    """Displacement of going along `first`, and from there along `then`: u(x) = first(x) + then(x + first(x)).

    Warping by it is warping by `then` and the result by `first`. Outside its grid `then` is that of the border.
    """
    return first + warp(then, first)


def exponential(velocity: Tensor, steps: int, shape: Sequence[int] | None = None) -> Tensor:
    """Displacement after following a stationary velocity for one unit of time, by scaling and squaring.

    Args:
        velocity: (B, D, *spatial); its exponential with the other sign is the inverse.
        steps: doublings; a step of time is 2**-steps, in which no voxel should move by more than half a voxel. 0: the velocity.
        shape: of the grid of the result, where it is finer: interpolated after the integration, values scaled.
    Source: Arsigny et al. 2006, algorithm 1; in networks Dalca et al. 2019.
    """
    displacement = velocity * 2.0**-steps
    for _ in range(steps):
        displacement = compose(displacement, displacement)
    return displacement if shape is None else resize(displacement, shape)


def resize(field: Tensor, shape: Sequence[int]) -> Tensor:
    """A displacement or velocity on a grid of another shape between the same outer voxels, in voxels of that grid; linear."""
    before = field.shape[2:]
    if tuple(before) == tuple(shape):
        return field
    ratios = [(after - 1) / (size - 1) if size > 1 else 1.0 for size, after in zip(before, shape, strict=True)]
    scale = torch.tensor(ratios, dtype=field.dtype, device=field.device).reshape(-1, *(1,) * len(ratios))
    return functional.interpolate(field, tuple(shape), mode=_INTERPOLATION[len(ratios)], align_corners=True) * scale


def affine_displacement(matrix: Tensor, shape: Sequence[int]) -> Tensor:
    """Displacement (B, D, *shape) of affine matrices (B, D, D + 1)."""
    axes = len(shape)
    linear = matrix[:, :, :axes] - torch.eye(axes, dtype=matrix.dtype, device=matrix.device)
    spread = (*matrix.shape[:2], *(1,) * axes)
    displacement = matrix[:, :, axes].reshape(spread)
    for axis, size in enumerate(shape):
        line = torch.arange(size, dtype=matrix.dtype, device=matrix.device) - (size - 1) / 2
        displacement = displacement + linear[:, :, axis].reshape(spread) * _along(line, axis, axes)
    return displacement


def affine_after(displacement: Tensor, matrix: Tensor) -> Tensor:
    """Displacement of going along `displacement` and then by the affine matrix, exact: A (x + u - c) + c + t - x."""
    axes = displacement.ndim - 2
    moved = torch.einsum("bij,bj...->bi...", matrix[:, :, :axes], displacement)
    return moved + affine_displacement(matrix, displacement.shape[2:])


def inverse_affine(matrix: Tensor) -> Tensor:
    """The matrices (B, D, D + 1) that undo others."""
    linear = torch.linalg.inv(matrix[:, :, :-1])
    return torch.cat([linear, -linear @ matrix[:, :, -1:]], dim=2)


def jacobian(displacement: Tensor, spacing_mm: Sequence[float] | None = None) -> Tensor:
    """Derivatives (B, D, D, *spatial) of x + u(x): entry [:, d, e] is that of component d along axis e.

    Central differences, one-sided at the border; along an axis of one voxel the displacement is constant.

    Args:
        spacing_mm: voxel size per spatial axis; the derivatives are of millimetres by millimetres. None: cubic voxels.
    """
    axes = displacement.ndim - 2
    spacing = [1.0] * axes if spacing_mm is None else list(spacing_mm)
    rows = []
    for d in range(axes):
        row = [derivative(displacement[:, d], e) * (spacing[d] / spacing[e]) + float(d == e) for e in range(axes)]
        rows.append(torch.stack(row, dim=1))
    return torch.stack(rows, dim=1)


def derivative(values: Tensor, axis: int) -> Tensor:
    """Central differences (B, *spatial) along a spatial axis, one-sided at the border, 0 along an axis of one voxel."""
    if values.shape[axis + 1] == 1:
        return torch.zeros_like(values)
    return torch.gradient(values, dim=axis + 1)[0]


def determinant(matrices: Tensor) -> Tensor:
    """Determinants (N, *rest) of matrices (N, D, D, *rest), D up to 3, by cofactors."""
    size = matrices.shape[1]
    if size == 1:
        return matrices[:, 0, 0]
    if size == 2:
        return matrices[:, 0, 0] * matrices[:, 1, 1] - matrices[:, 0, 1] * matrices[:, 1, 0]
    return sum((matrices[:, 0, column] * cofactor(matrices, 0, column) for column in range(3)),
               start=torch.zeros_like(matrices[:, 0, 0]))


def cofactor(matrices: Tensor, row: int, column: int) -> Tensor:
    """Cofactors (N, *rest) of matrices (N, 3, 3, *rest): the signed determinant without a row and a column."""
    above, below = ((row + 1) % 3, (row + 2) % 3)
    left, right = ((column + 1) % 3, (column + 2) % 3)
    return matrices[:, above, left] * matrices[:, below, right] - matrices[:, above, right] * matrices[:, below, left]


def jacobian_determinant(displacement: Tensor) -> Tensor:
    """How much a displacement enlarges each voxel, (B, *spatial); 0 and less where it folds. Does not depend on the spacing."""
    return determinant(jacobian(displacement))


def _coordinates(like: Tensor, axis: int) -> Tensor:
    """Indices along a spatial axis, to be added to one component (B, *spatial)."""
    line = torch.arange(like.shape[axis + 2], dtype=like.dtype, device=like.device)
    return _along(line, axis, like.ndim - 2)


def _along(line: Tensor, axis: int, axes: int) -> Tensor:
    return line.reshape([-1 if other == axis else 1 for other in range(axes)])
