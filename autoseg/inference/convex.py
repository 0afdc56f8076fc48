"""A discrete search for large displacements: every cell looks at all shifts, and agrees with its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from autoseg.nn.warp import compose

# Weights of agreement, in squared cells per descriptor, one after the other; and steps towards each other's inverse. Both as in
# ConvexAdam (Siebert et al. 2021).
AGREEMENT = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
CONSISTENCY_STEPS = 15
_POOLS = {2: functional.avg_pool2d, 3: functional.avg_pool3d}


@dataclass(frozen=True)
class ConvexSearch:
    """Where a search looks.

    Attributes:
        cell: voxels of the images along an edge of a cell.
        reach: cells to look at on each side, along each axis.
    """

    cell: int
    reach: int


def convex_displacement(fixed: Tensor, moving: Tensor, search: ConvexSearch) -> Tensor:
    """Displacement (B, D, *cells) in voxels of its own grid, one voxel per cell; smooth and nearly the inverse of its converse.

    Args:
        fixed, moving: descriptors (B, C, *spatial) on one grid, whose squared differences are summed over channels: MIND's, say.
    Source: Heinrich et al. 2014 (coupled convex optimisation), as in ConvexAdam, Siebert et al. 2021.
    """
    pool = _POOLS[fixed.ndim - 2]
    first, second = (pool(image.float(), search.cell, search.cell, ceil_mode=True) for image in (fixed, moving))
    with torch.no_grad():
        forward, backward = _one_way(first, second, search.reach), _one_way(second, first, search.reach)
        for _ in range(CONSISTENCY_STEPS):
            forward, backward = (forward - _beside(backward, forward)) / 2, (backward - _beside(forward, backward)) / 2
    return forward


def _one_way(fixed: Tensor, moving: Tensor, reach: int) -> Tensor:
    axes = fixed.ndim - 2
    steps = list(product(range(-reach, reach + 1), repeat=axes))
    padded = functional.pad(moving, [reach] * (2 * axes), mode="replicate")
    costs = torch.stack([(_shifted(padded, step, reach) - fixed).square().sum(1) for step in steps])
    shifts = torch.tensor(steps, dtype=fixed.dtype, device=fixed.device)
    chosen = _smooth(_shifts_of(costs.argmin(0), shifts))
    for weight in AGREEMENT:
        apart = sum((shifts[:, axis].reshape(-1, *(1,) * (axes + 1)) - chosen[:, axis]).square() for axis in range(axes))
        chosen = _smooth(_shifts_of((costs + weight * apart).argmin(0), shifts))
    return chosen


def _shifted(padded: Tensor, step: tuple[int, ...], reach: int) -> Tensor:
    for axis, shift in enumerate(step, start=2):
        padded = padded.narrow(axis, reach + shift, padded.shape[axis] - 2 * reach)
    return padded


def _shifts_of(chosen: Tensor, shifts: Tensor) -> Tensor:
    """(B, D, *cells) of the indices of shifts (B, *cells)."""
    return shifts[chosen].movedim(-1, 1).contiguous()


def _smooth(field: Tensor) -> Tensor:
    return _POOLS[field.ndim - 2](field, 3, 1, 1, count_include_pad=False)


def _beside(other: Tensor, own: Tensor) -> Tensor:
    """The other displacement, where one's own leads to."""
    return compose(own, other) - own
