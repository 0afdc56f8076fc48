"""Registration of one pair by an implicit neural representation: a network from points to displacements, fitted to the pair.

After IDIR (Wolterink et al. 2022), with two of its errors put right: means are means (its bending energy is divided by the batch
twice), and mixed second derivatives count twice, all of them. Derivatives are in millimetres, whatever the voxels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from autoseg.core.errors import UsageError
from autoseg.inference.instance import shrunken
from autoseg.losses.jacobian import hyperelastic_energy, volume_change
from autoseg.nn.siren import Siren, axis_pairs
from autoseg.ops.pyramid import axis_factors

# (fixed values, moving values), (1, C, N) each, at the same N points -> scalar; less is better.
SampleSimilarity: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Regularizer = Literal["none", "jacobian", "hyperelastic", "bending"]
# A last layer of this share of SIREN's weights: the displacement begins within a few hundredths of a voxel of 0.
_LAST_SCALE = 0.01
# Points that are evaluated at once after the fit: 100 MB for hidden layers of 256.
_POINTS_AT_ONCE = 2**16


@dataclass(frozen=True)
class ImplicitRules:
    """How a network is fitted to a pair; every number is planned.

    Attributes:
        widths, frequency: of the SIREN; IDIR: 256 three times, 32.
        iterations: steps of Adam.
        rate: learning rate; the last quarter of the steps falls to a tenth of it.
        points: drawn for each step.
        regularizer, weight: of the deformation at these points; IDIR: Jacobian 0.05, hyperelastic 0.25, bending 10.
        blur: factor by which the images are smoothed as if shrunk, while the first half of the steps lasts; 1: not at all.
    """

    widths: tuple[int, ...]
    frequency: float
    iterations: int
    rate: float
    points: int
    regularizer: Regularizer
    weight: float
    blur: int = 1


def correlation_loss(fixed: Tensor, moving: Tensor) -> Tensor:
    """One minus the correlation coefficient of two sets of samples (1, C, N), mean over channels; 1 for constant ones."""
    first, second = (values - values.mean(2, keepdim=True) for values in (fixed.float(), moving.float()))
    lengths = (first.square().sum(2) * second.square().sum(2)).clamp_min(torch.finfo(torch.float32).tiny).sqrt()
    return 1 - ((first * second).sum(2) / lengths).mean()


def fit_implicit(fixed: Tensor, moving: Tensor, mask: Tensor, spacing_mm: Sequence[float], rules: ImplicitRules,
                 generator: torch.Generator, *, similarity: SampleSimilarity = correlation_loss) -> Siren:
    """A network whose displacement makes the moving image like the fixed one inside a mask.

    Args:
        fixed, moving: (1, C, *spatial) float32 on one grid.
        mask: bool (*spatial): where points are drawn, anywhere within the voxels.
        spacing_mm: voxel size per spatial axis.
        generator: of the network's weights and of the points; on the CPU, whatever the device of the images.
    Raises:
        UsageError: the mask is empty.
    """
    voxels = mask.nonzero()
    if not len(voxels):
        raise UsageError(f"no voxel of the {tuple(mask.shape)} in the mask is set, so there is no place to register; give "
                         "another mask, or none")
    scale = _Scale(fixed.shape[2:], spacing_mm, fixed.device)
    network = fresh_siren(len(spacing_mm), rules, generator).to(fixed.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=rules.rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 if 4 * step < 3 * rules.iterations else 0.1)
    blurred = tuple(_blurred(image, axis_factors(rules.blur, spacing_mm)) for image in (fixed, moving))
    for step in range(rules.iterations):
        first, second = blurred if 2 * step < rules.iterations else (fixed, moving)
        points = _draw(voxels, rules.points, generator, scale)
        displacement, penalty = _regularised(network, points, rules.regularizer, scale)
        loss = similarity(_sample(first, points), _sample(second, points + displacement)) + rules.weight * penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network


def implicit_displacement(network: Siren, shape: Sequence[int]) -> Tensor:
    """The displacement (1, D, *shape) in voxels, at the voxel centres of a grid of the pair's shape."""
    device = next(network.parameters()).device
    lines = [torch.linspace(-1, 1, size, device=device) if size > 1 else torch.zeros(1, device=device) for size in shape]
    points = torch.stack(torch.meshgrid(*lines, indexing="ij"), dim=-1).reshape(-1, len(shape))
    with torch.no_grad():
        found = torch.cat([network(part) for part in points.split(_POINTS_AT_ONCE)])
    half = torch.tensor([(size - 1) / 2 for size in shape], device=device)
    return (found * half).T.reshape(1, len(shape), *shape)


def fresh_siren(dims: int, rules: ImplicitRules, generator: torch.Generator) -> Siren:
    """A network whose weights follow from the generator; torch's global one is as before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        return Siren(dims, rules.widths, frequency=rules.frequency, last_scale=_LAST_SCALE)


class _Scale:
    """Half the size of the grid along each axis, from the first voxel centre to the last: in voxels, and in mm."""

    def __init__(self, shape: Sequence[int], spacing_mm: Sequence[float], device: torch.device) -> None:
        self.half_voxels = torch.tensor([max(size - 1, 1) / 2 for size in shape], device=device)
        self.half_mm = self.half_voxels * torch.tensor(list(spacing_mm), device=device)


def _draw(voxels: Tensor, count: int, generator: torch.Generator, scale: _Scale) -> Tensor:
    """Points (N, D) from -1 to 1, uniform over the voxels of a mask and within them, cut off at the outer voxel centres."""
    chosen = voxels[torch.randint(len(voxels), (count,), generator=generator).to(voxels.device)]
    within = torch.rand(chosen.shape, generator=generator).to(voxels.device) - 0.5
    return ((chosen + within) / scale.half_voxels - 1).clamp(-1, 1)


def _sample(image: Tensor, points: Tensor) -> Tensor:
    """Values (1, C, N) at points (N, D), linear; beyond the border its values."""
    dims = points.shape[1]
    grid = points.flip(1).reshape(1, -1, *(1,) * (dims - 1), dims)
    return functional.grid_sample(image, grid, padding_mode="border", align_corners=True).flatten(2)


def _regularised(network: Siren, points: Tensor, regularizer: Regularizer, scale: _Scale) -> tuple[Tensor, Tensor]:
    """Displacement (N, D) in the units of the points, and the penalty on the deformation there."""
    if regularizer == "none":
        displacement = network(points)
        return displacement, displacement.new_zeros(())
    if regularizer == "bending":
        displacement, _, second = network.with_second(points)
        return displacement, bending_of(second, scale.half_mm)
    displacement, first = network.with_first(points)
    return displacement, {"jacobian": volume_change, "hyperelastic": hyperelastic_energy}[regularizer](
        deformation_gradient(first, scale.half_mm))


def deformation_gradient(first: Tensor, half_mm: Tensor) -> Tensor:
    """Derivatives (N, D, D) of x + u(x) in mm by mm, from those of a displacement in units of half the grid."""
    scaled = first * (half_mm[:, None] / half_mm[None, :])
    return scaled + torch.eye(len(half_mm), dtype=first.dtype, device=first.device)


def bending_of(second: Tensor, half_mm: Tensor) -> Tensor:
    """Mean over points of the squares of all second derivatives, summed over components, in 1 / mm**2; see `bending_energy`.

    Args:
        second: (N, D, P) in units of half the grid, pairs as in `axis_pairs`.
    """
    pairs = axis_pairs(len(half_mm))
    weights = second.new_tensor([1.0 if a == b else 2.0 for a, b in pairs])
    units = half_mm[:, None] / torch.stack([half_mm[a] * half_mm[b] for a, b in pairs])[None, :]
    return ((second * units).square() * weights).sum((1, 2)).mean()


def _blurred(image: Tensor, factors: Sequence[float]) -> Tensor:
    """The image smoothed as if it was shrunk by a factor for each axis, on its own grid."""
    if max(factors) == 1:
        return image
    return functional.interpolate(shrunken(image, factors), image.shape[2:], mode="trilinear" if image.ndim == 5 else "bilinear",
                                  align_corners=True)
