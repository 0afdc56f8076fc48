"""Registration of one pair by optimisation: an affine part, then a stationary velocity, from coarse to fine.

It registers a pair without any training, and refines what a network answered. Iterations are counted, never timed: the same pair
gives the same deformation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from autoseg.inference.convex import ConvexSearch, convex_displacement
from autoseg.losses.local_correlation import local_mean
from autoseg.losses.mind import mind_descriptors
from autoseg.losses.smoothness import bending_energy, diffusion_energy
from autoseg.nn.registrar import Deformation, deformation, identity_affine
from autoseg.nn.warp import affine_after, affine_displacement, exponential, resize, warp
from autoseg.ops.pyramid import axis_factors

# (fixed image, warped moving image), (B, C, *spatial) each -> scalar; less is better.
Similarity: TypeAlias = Callable[[Tensor, Tensor], Tensor]
# (image) -> what is warped and compared in its place, (B, K, *spatial).
Describe: TypeAlias = Callable[[Tensor], Tensor]
Energy: TypeAlias = Callable[[Tensor, Sequence[float]], Tensor]

ENERGIES: dict[str, Energy] = {"diffusion": diffusion_energy, "bending": bending_energy}
# Deviation in voxels of the Gaussian before every second voxel is left out, and as much again for each further one: of a wave of
# two voxels, which the coarse grid would take for another, exp(-(pi * 0.7)**2 / 2) is left, a tenth.
_SMOOTHING = 0.7
_INTERPOLATION = {2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class Level:
    """One resolution.

    Attributes:
        shrink: voxels of the pair for one voxel of the images that are compared, along its finest axis; see `ops.pyramid`.
        velocity_shrink: voxels of the pair for one voxel of the velocity, along the same.
        iterations: steps of Adam.
    """

    shrink: int
    velocity_shrink: int
    iterations: int


@dataclass(frozen=True)
class InstanceRules:
    """How a pair is optimised; every number is planned.

    Attributes:
        levels: coarse to fine.
        rate_voxels: learning rate of the velocity, in voxels of the pair along its finest axis, and as many mm along the others:
            a step of a fifth of a thick slice would be longer than what has to be found there.
        smoothness: weight of the energy of the velocity beside the similarity.
        energy: of first derivatives (`diffusion`) or second (`bending`).
        integration_steps: doublings of scaling and squaring; 0: a displacement, which may fold.
        affine: the level of the affine part; None: it stays as it starts.
        affine_rate_voxels: its learning rate, at the border of the pair, in voxels along the finest axis.
        search: a coupled convex search on MIND descriptors before the levels; None: none.
    """

    levels: tuple[Level, ...]
    rate_voxels: float
    smoothness: float
    energy: Literal["diffusion", "bending"]
    integration_steps: int
    affine: Level | None = None
    affine_rate_voxels: float = 0.1
    search: ConvexSearch | None = None


def optimise_pair(fixed: Tensor, moving: Tensor, spacing_mm: Sequence[float], rules: InstanceRules, similarity: Similarity, *,
                  describe: Describe | None = None, start: Deformation | None = None) -> Deformation:
    """The deformation that makes the moving image like the fixed one; the velocity is on the grid of the last level.

    Args:
        fixed, moving: (B, C, *spatial) float32 on one grid. Pairs of a batch share nothing but the number of steps.
        spacing_mm: voxel size per spatial axis.
        describe: features of an image, made once per level, warped, and compared in its place (MIND's with their squared
            difference, as in ConvexAdam); None: the images themselves.
        start: what to begin with, from a network or an earlier run; None: the identity.
    """
    shape = fixed.shape[2:]
    affine = identity_affine(len(fixed), len(shape), fixed.device) if start is None else start.affine.detach()
    if rules.affine is not None:
        affine = optimise_affine(fixed, moving, spacing_mm, rules.affine, similarity, rate_voxels=rules.affine_rate_voxels,
                                 describe=describe, start=affine)
    velocity = torch.zeros(len(fixed), len(shape), *velocity_shape(shape, rules.levels[0], spacing_mm), device=fixed.device) \
        if start is None else start.velocity.detach()
    if rules.search is not None:
        aligned = warp(moving, affine_displacement(affine, shape))
        found = convex_displacement(mind_descriptors(fixed), mind_descriptors(aligned), rules.search)
        velocity = resize(found, velocity.shape[2:])
    for level in rules.levels:
        images = _pair_at(fixed, moving, axis_factors(level.shrink, spacing_mm), describe)
        velocity = _optimise_level(images, tuple(shape), affine, velocity, spacing_mm, level, rules, similarity)
    with torch.no_grad():
        return deformation(velocity, affine, rules.integration_steps, tuple(shape))


def optimise_affine(fixed: Tensor, moving: Tensor, spacing_mm: Sequence[float], level: Level, similarity: Similarity, *,
                    rate_voxels: float, describe: Describe | None = None, start: Tensor | None = None) -> Tensor:
    """Affine matrices (B, D, D + 1) in voxels of the pair, by Adam on shift and linear part together.

    Args:
        rate_voxels: learning rate in voxels of the finest axis; the linear part's is over half of the longest side in mm, so that
            both move the border alike.
        start: matrices to begin with; None: the identity.
    """
    shape, dims = fixed.shape[2:], fixed.ndim - 2
    first, second = _pair_at(fixed, moving, axis_factors(level.shrink, spacing_mm), describe)
    unit = _affine_units(shape, spacing_mm, fixed)
    begin = identity_affine(len(fixed), dims, fixed.device) if start is None else start.detach()
    change = torch.zeros_like(begin, requires_grad=True)
    to_coarse = _coarse_units(shape, first.shape[2:], begin)
    optimizer = torch.optim.Adam([change], lr=rate_voxels)
    for _ in range(level.iterations):
        optimizer.zero_grad()
        matrix = (begin + change * unit) * to_coarse
        loss = similarity(first, warp(second, affine_displacement(matrix, first.shape[2:])))
        (loss * len(fixed)).backward()
        optimizer.step()
    return (begin + change.detach() * unit).detach()


def shrunken(image: Tensor, factors: Sequence[float]) -> Tensor:
    """The image smoothed and sampled on a coarser grid between the same outer voxels; a factor for each axis."""
    if max(factors) == 1:
        return image
    smooth = local_mean(image, [_SMOOTHING * (factor - 1) for factor in factors], "gaussian")
    return functional.interpolate(smooth, shrunken_shape(image.shape[2:], factors), mode=_INTERPOLATION[image.ndim - 2],
                                  align_corners=True)


def shrunken_shape(shape: Sequence[int], factors: Sequence[float]) -> tuple[int, ...]:
    """Shape of a grid with so many times fewer voxels along each axis, at least two where there were two."""
    return tuple(max(min(size, 2), round(size / factor)) for size, factor in zip(shape, factors, strict=True))


def velocity_shape(shape: Sequence[int], level: Level, spacing_mm: Sequence[float]) -> tuple[int, ...]:
    """Shape of the grid of a level's velocity."""
    return shrunken_shape(shape, axis_factors(level.velocity_shrink, spacing_mm))


def _pair_at(fixed: Tensor, moving: Tensor, factors: Sequence[float], describe: Describe | None) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        images = (shrunken(fixed, factors), shrunken(moving, factors))
        return images if describe is None else (describe(images[0]), describe(images[1]))


def _optimise_level(images: tuple[Tensor, Tensor], shape: tuple[int, ...], affine: Tensor, velocity: Tensor,
                    spacing_mm: Sequence[float], level: Level, rules: InstanceRules, similarity: Similarity) -> Tensor:
    first, second = images
    coarse = first.shape[2:]
    grid = velocity_shape(shape, level, spacing_mm)
    moved = resize(velocity, grid).detach()
    sizes = _voxel_sizes(shape, grid)
    units = [size * step / min(spacing_mm) for size, step in zip(sizes, spacing_mm, strict=True)]
    rate = torch.tensor(units, device=first.device).reshape(-1, *(1,) * len(shape))
    spacing = [step * size for step, size in zip(spacing_mm, sizes, strict=True)]
    matrix = affine * _coarse_units(shape, coarse, affine)
    # Adam moves each value by the rate, so the values are voxels of the pair's finest axis, whatever the grid
    values = (moved * rate).requires_grad_()
    optimizer = torch.optim.Adam([values], lr=rules.rate_voxels)
    energy = ENERGIES[rules.energy]
    for _ in range(level.iterations):
        optimizer.zero_grad()
        current = values / rate
        displacement = affine_after(exponential(current, rules.integration_steps, coarse), matrix)
        loss = similarity(first, warp(second, displacement)) + rules.smoothness * energy(current, spacing)
        # A sum, no mean: a pair's step must not depend on the pairs beside it, nor its gradients vanish below Adam's epsilon.
        (loss * values.numel()).backward()
        optimizer.step()
    return (values / rate).detach()


def _voxel_sizes(shape: Sequence[int], coarse: Sequence[int]) -> list[float]:
    """Voxels of one grid for a voxel of a coarser one between the same outer voxels."""
    return [(size - 1) / (few - 1) if few > 1 else 1.0 for size, few in zip(shape, coarse, strict=True)]


def _affine_units(shape: Sequence[int], spacing_mm: Sequence[float], like: Tensor) -> Tensor:
    """The change of each entry of affine matrices (D, D + 1) that moves the border by one voxel of the finest axis."""
    spacing = like.new_tensor(spacing_mm)
    half_mm = max((size - 1) * step / 2 for size, step in zip(shape, spacing_mm, strict=True)) or 1.0
    linear = spacing[None, :] / half_mm
    return torch.cat([linear.expand(len(shape), -1), torch.ones(len(shape), 1, device=like.device)], dim=1) * (
        spacing.min() / spacing)[:, None]


def _coarse_units(shape: Sequence[int], coarse: Sequence[int], like: Tensor) -> Tensor:
    """Factors (1, D, D + 1) of affine matrices in voxels of a grid, for voxels of a coarser one."""
    sizes = like.new_tensor(_voxel_sizes(shape, coarse))
    return torch.cat([sizes[None, :] / sizes[:, None], 1 / sizes[:, None]], dim=1)[None]
