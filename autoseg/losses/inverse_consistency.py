"""How far two deformations of opposite directions are from undoing each other."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from autoseg.losses.smoothness import diffusion_energy
from autoseg.nn.warp import compose


def inverse_consistency(forward: Tensor, backward: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    """Mean squared distance in mm**2 between a point and where it comes back to, along `forward` and then `backward`.

    Args:
        forward, backward: (B, D, *spatial) in voxels of one grid; the displacements of x + u(x).
    Source: Christensen and Johnson 2001, eq. 4.
    """
    there_and_back = compose(forward, backward)
    spacing = forward.new_tensor(list(spacing_mm)).reshape(-1, *(1,) * (forward.ndim - 2))
    return (there_and_back * spacing).square().sum(1).mean()


def gradient_inverse_consistency(forward: Tensor, backward: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    """Mean squared derivatives of what `inverse_consistency` measures, without unit: a shift that comes back beside is free.

    Source: Tian et al. 2023 (GradICON), eq. 2, a ninth of it in three dimensions, as in `diffusion_energy`.
    """
    return diffusion_energy(compose(forward, backward), spacing_mm)
