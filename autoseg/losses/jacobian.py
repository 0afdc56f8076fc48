"""Penalties on what a deformation does to lengths, areas and volumes.

They take the derivatives (N, D, D, *rest) of the deformation x + u(x), in millimetres by millimetres: from `nn.warp.jacobian`
on a grid, N samples with their voxels, or of a network at N points.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autoseg.nn.warp import cofactor, determinant

# Below this the volume penalty of Burger et al., infinite at 0, goes on as its tangent, so that a fold has a finite gradient that
# undoes it. A voxel that shrinks to a tenth is rare: log-Jacobians of brains have deviations below 0.5.
SMALLEST_VOLUME = 0.1


def volume_change(jacobian: Tensor) -> Tensor:
    """Mean distance of the determinant from 1; 0 where all volumes stay.

    Source: Wolterink et al. 2022 (IDIR), section 2.2.
    """
    return (determinant(jacobian) - 1).abs().mean()


def folding_penalty(jacobian: Tensor, smallest: float = 0.0) -> Tensor:
    """Mean of what determinants lack to `smallest`; 0 where nothing folds.

    Source: Mok and Chung 2020 (LapIRN), the anti-folding loss.
    """
    return torch.relu(smallest - determinant(jacobian)).mean()


def hyperelastic_energy(jacobian: Tensor, *, length: float = 1.0, area: float = 1.0, volume: float = 1.0) -> Tensor:
    """Mean hyperelastic energy of a deformation; 0 for the identity.

    length / 2 * |derivatives of u|**2 + area * sum over columns of max(0, |cofactors|**2 - 1)**2
    + volume * ((det - 1)**2 / det)**2.
    In two dimensions areas are volumes, and the middle term is 0. Below a determinant of 0.1 the last one goes on straight.

    Args:
        length, area, volume: weights of the three terms.
    Source: Burger, Modersitzki and Ruthotto 2013 (SIAM J. Sci. Comput. 35), eq. 3 to 6; weights of 1 as in IDIR.
    """
    dims = jacobian.shape[1]
    identity = torch.eye(dims, dtype=jacobian.dtype, device=jacobian.device).reshape(1, dims, dims, *(1,) * (jacobian.ndim - 3))
    energy = length / 2 * (jacobian - identity).square().sum((1, 2))
    if dims == 3 and area:
        for column in range(3):
            surface = sum((cofactor(jacobian, row, column).square() for row in range(3)), start=torch.zeros_like(energy))
            energy = energy + area * torch.relu(surface - 1).square()
    return (energy + volume * _volume_penalty(determinant(jacobian))).mean()


def _volume_penalty(volumes: Tensor) -> Tensor:
    inside = volumes.clamp_min(SMALLEST_VOLUME)
    penalty = ((inside - 1).square() / inside).square()
    v = SMALLEST_VOLUME
    slope = 2 * (v - 1) ** 2 / v * (v * v - 1) / (v * v)
    return penalty + slope * (volumes - inside)
