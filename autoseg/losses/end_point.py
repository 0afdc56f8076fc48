"""Distance between two displacements, where the true one is known."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional


def end_point_error(displacement: Tensor, truth: Tensor, spacing_mm: Sequence[float], weights: Tensor | None = None) -> Tensor:
    """Mean length of the difference of two displacements, in mm.

    Args:
        displacement, truth: (B, D, *spatial) in voxels of one grid.
        spacing_mm: voxel size per spatial axis.
        weights: (B, *spatial), 0 where nothing is to be learnt; None: everywhere the same. All 0: an error of 0.
    Source: Sokooti et al. 2017 (RegNet); gradients are finite where both are equal.
    """
    spacing = displacement.new_tensor(list(spacing_mm)).reshape(-1, *(1,) * (displacement.ndim - 2))
    difference = (displacement - truth) * spacing
    # the root of 0 has no derivative: a difference of a nanometre is none
    length = (difference.square().sum(1) + 1e-12).sqrt() - 1e-6
    return length.mean() if weights is None else (length * weights).sum() / weights.sum().clamp_min(1e-6)


def robust_displacement_error(displacement: Tensor, truth: Tensor, spacing_mm: Sequence[float], turn_mm: float = 1.0) -> Tensor:
    """Mean Huber loss of all components in mm: squared up to `turn_mm`, straight above.

    Source: Huber 1964; for displacements Sokooti et al. 2017 (RegNet), section 2.3.
    """
    spacing = displacement.new_tensor(list(spacing_mm)).reshape(-1, *(1,) * (displacement.ndim - 2))
    return functional.huber_loss(displacement * spacing, truth * spacing, delta=turn_mm)
