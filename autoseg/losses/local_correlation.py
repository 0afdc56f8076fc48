"""Local correlation of two images: how well one explains the other by a linear relation, window by window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Window = Literal["box", "gaussian"]

# Variance below which a window says nothing, as a share of the image's: a deviation of 1 % of the image's is the noise of a good
# scan. VoxelMorph's absolute 1e-5 is noise in one image and signal in another (voxelmorph issues 127 and 527).
SILENT_VARIANCE = 1e-4
# Deviation of an image of one value, over that value: what is left of it in float32 when its mean is subtracted.
_ROUNDING = 1e-6
# Gaussian windows end where the weight is 1 % of that of the centre.
_REACH = 3.0


def local_correlation_loss(fixed: Tensor, warped: Tensor, *, radius: float | Sequence[float] = 4,
                           window: Window = "box") -> Tensor:
    """One minus the mean squared correlation coefficient over all windows; 0 is perfect, 1 is no linear relation anywhere.

    Args:
        fixed, warped: (B, C, *spatial); channels are averaged. Neither scale nor offset of an image counts, with either sign.
        radius: of the window in voxels, one or one per axis: a box of 2 radius + 1 voxels, or a Gaussian of this standard
            deviation. 4 is VoxelMorph's window of 9.
    Returns:
        Scalar, in float32 from images with their mean subtracted. Windows reach over the border with what is inside. A window
        without variance in one of the images counts as no relation, with a gradient that is finite.
    Source: Avants et al. 2008, eq. 6, squared as in VoxelMorph (Balakrishnan et al. 2019, eq. 4).
    """
    return 1 - squared_correlation(fixed, warped, radius=radius, window=window).mean()


def squared_correlation(fixed: Tensor, warped: Tensor, *, radius: float | Sequence[float] = 4, window: Window = "box") -> Tensor:
    """Squared correlation coefficients (B, C, *spatial) in [0, 1] of the windows around all voxels."""
    first, second = standardised(fixed), standardised(warped)
    axes = fixed.ndim - 2
    radii = [float(radius)] * axes if isinstance(radius, (int, float)) else [float(value) for value in radius]
    products = torch.cat([first, second, first * first, second * second, first * second], dim=1)
    mean_first, mean_second, square_first, square_second, product = local_mean(products, radii, window).chunk(5, dim=1)
    covariance = product - mean_first * mean_second
    variance_first = (square_first - mean_first * mean_first).clamp_min(SILENT_VARIANCE)
    variance_second = (square_second - mean_second * mean_second).clamp_min(SILENT_VARIANCE)
    return (covariance * covariance / (variance_first * variance_second)).clamp_max(1)  # a share, up to rounding


def standardised(image: Tensor) -> Tensor:
    """The image in float32 with mean 0 and variance 1 per sample and channel, or of 0 where it has one value.

    Mean and deviation are taken as constants: correlations do not depend on them, and so have no gradient through them.
    """
    voxels = image.float()
    with torch.no_grad():
        axes = tuple(range(2, voxels.ndim))
        mean = voxels.mean(axes, keepdim=True)
        deviation = (voxels - mean).square().mean(axes, keepdim=True).sqrt()
        constant = deviation <= _ROUNDING * voxels.abs().amax(axes, keepdim=True)
        scale = torch.where(constant, torch.zeros_like(deviation), 1 / deviation.clamp_min(torch.finfo(torch.float32).tiny))
    return (voxels - mean) * scale


def local_mean(values: Tensor, radii: Sequence[float], window: Window) -> Tensor:
    """Means over the window around each voxel, (B, C, *spatial), weighted with a Gaussian or not; only voxels inside count.

    One product with a matrix per axis. That is more arithmetic than pooling, and faster up to some hundred voxels an axis.
    """
    shape = values.shape
    for axis, radius in enumerate(radii, start=2):
        if shape[axis] > 1 and radius > 0:
            weights = _weights(shape[axis], radius, window, values.device)
            if axis == values.ndim - 1:
                values = values @ weights.T
            else:
                values = (weights @ values.flatten(axis + 1).flatten(0, axis - 1)).reshape(shape)
    return values


def _weights(size: int, radius: float, window: Window, device: torch.device) -> Tensor:
    """(size, size): row i has the weights of voxels 0 to size - 1 around voxel i, which sum to 1."""
    line = torch.arange(size, dtype=torch.float32, device=device)
    distance = (line[:, None] - line[None, :]).abs()
    if window == "box":
        weights = (distance <= round(radius)).float()
    else:
        weights = torch.exp(-0.5 * (distance / radius) ** 2) * (distance <= math.ceil(_REACH * radius))
    return weights / weights.sum(1, keepdim=True)
