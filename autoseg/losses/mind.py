"""Modality-independent descriptors of neighbourhoods: what an image looks like around a voxel, whatever its contrast."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional

from autoseg.losses.local_correlation import local_mean

# ConvexAdam's `MINDSSC` (Siebert et al. 2021): the noise estimate of a voxel lies within these factors of the image's mean.
_LEAST_VARIANCE, _MOST_VARIANCE = 1e-3, 1e3
# Squared differences below this share of the square of the largest value are rounding.
_ROUNDING = 1e-12

Offset = tuple[int, ...]


def mind_loss(fixed: Tensor, warped: Tensor, *, radius: int = 1, dilation: int = 2) -> Tensor:
    """Mean squared difference of the descriptors of two images (B, C, *spatial); 0 is perfect. See `mind_descriptors`."""
    return (mind_descriptors(fixed, radius=radius, dilation=dilation)
            - mind_descriptors(warped, radius=radius, dilation=dilation)).square().mean()


def mind_descriptors(image: Tensor, *, radius: int = 1, dilation: int = 2) -> Tensor:
    """Self-similarity context of each voxel: (B, C K, *spatial) in (0, 1], K = 12 in three dimensions and 4 in two.

    Each of K channels compares the patches around two of the voxel's neighbours, `dilation` voxels from it along two different
    axes, by their mean squared difference d: exp(-(d - least d) / v), v the mean over channels of d - least d, within limits.

    Args:
        image: (B, C, *spatial); neither scale nor offset counts. A constant image has descriptors of 1.
        radius: of a patch of 2 radius + 1 voxels.
        dilation: distance of the neighbours in voxels; beyond the border the image goes on with its last voxel.
    Source: Heinrich et al. 2013 (MICCAI), eq. 2 to 4; radius 1, dilation 2 and the limits are those of ConvexAdam.
    """
    voxels = image.float().flatten(0, 1)[:, None]
    axes = image.ndim - 2
    padded = functional.pad(voxels, [dilation] * (2 * axes), mode="replicate")
    distances = torch.cat([
        (_shifted(padded, first, dilation) - _shifted(padded, second, dilation)).square()
        for first, second in neighbour_pairs(axes)], dim=1)
    distances = local_mean(distances, [radius] * axes, "box")
    above = distances - distances.amin(1, keepdim=True)
    noise = above.mean(1, keepdim=True)
    typical = noise.detach().flatten(1).mean(1).reshape(-1, *(1,) * (axes + 1))
    rounding = _ROUNDING * voxels.detach().flatten(1).abs().amax(1).square().reshape(typical.shape)
    least = torch.maximum(_LEAST_VARIANCE * typical, rounding.clamp_min(torch.finfo(torch.float32).tiny ** 0.5))
    noise = torch.minimum(torch.maximum(noise, least), torch.maximum(_MOST_VARIANCE * typical, least))
    return torch.exp(-above / noise).reshape(len(image), -1, *image.shape[2:])


def neighbour_pairs(axes: int) -> list[tuple[Offset, Offset]]:
    """Pairs of neighbours along two different axes: 12 of six neighbours, 4 of four."""
    steps = [tuple(sign * int(axis == along) for axis in range(axes)) for along in range(axes) for sign in (-1, 1)]
    return [(first, second) for first, second in combinations(steps, 2)
            if sum(abs(a - b) for a, b in zip(first, second, strict=True)) == 2 and not _opposite(first, second)]


def _opposite(first: Offset, second: Offset) -> bool:
    return all(a == -b for a, b in zip(first, second, strict=True))


def _shifted(padded: Tensor, offset: Sequence[int], dilation: int) -> Tensor:
    """The image at `dilation` times the offset, from its padded version."""
    for axis, step in enumerate(offset, start=2):
        padded = padded.narrow(axis, dilation * (1 + step), padded.shape[axis] - 2 * dilation)
    return padded
