"""Mutual information of two images: how much one says about the other, whatever the relation."""

from __future__ import annotations

import torch
from torch import Tensor

# Bins between the least and the largest value, and the deviation of the Gaussian window in bins (as in MONAI's
# `GlobalMutualInformationLoss`, which has 23 bins); Mattes et al. 2003 use 32 to 64.
BINS, DEVIATION_BINS = 32, 0.5
# Keeps logarithms finite: less than one voxel of a billion.
_LEAST = 1e-10


def mutual_information_loss(fixed: Tensor, warped: Tensor, *, bins: int = BINS) -> Tensor:
    """Minus the mutual information in nats, mean over the batch; 0 where one image says nothing about the other.

    Args:
        fixed, warped: (B, C, *spatial) of any values; channels are samples of one image. Bins span the values of each sample. A
            constant image has no information, and a gradient of 0.
        bins: per image. A value falls into all bins, weighted by a Gaussian (Parzen window).
    Source: Viola and Wells 1997; Parzen windows on both images as in Mattes et al. 2003.
    """
    joint = joint_probabilities(fixed, warped, bins=bins)
    return (_entropy(joint.flatten(1)) - _entropy(joint.sum(2)) - _entropy(joint.sum(1))).mean()


def normalised_mutual_information_loss(fixed: Tensor, warped: Tensor, *, bins: int = BINS) -> Tensor:
    """Minus the sum of the entropies over the joint entropy, mean over the batch: -1 for unrelated images, -2 at the very least.

    Unlike mutual information it does not grow where more background overlaps. Windows keep even equal images above -2.
    Source: Studholme et al. 1999, eq. 4; bins as in `mutual_information_loss`.
    """
    joint = joint_probabilities(fixed, warped, bins=bins)
    alone = _entropy(joint.sum(2)) + _entropy(joint.sum(1))
    return -(alone / _entropy(joint.flatten(1)).clamp_min(_LEAST)).mean()


def joint_probabilities(fixed: Tensor, warped: Tensor, *, bins: int = BINS) -> Tensor:
    """(B, bins, bins): share of voxels whose fixed and warped values fall into two bins; sums to 1."""
    first, second = _weights(fixed, bins), _weights(warped, bins)
    return torch.einsum("bnk,bnl->bkl", first, second) / first.shape[1]


def _weights(image: Tensor, bins: int) -> Tensor:
    """(B, voxels, bins): how much each voxel falls into each bin; sums to 1 over bins."""
    voxels = image.float().flatten(1)
    least, largest = voxels.detach().aminmax(dim=1, keepdim=True)
    span = largest - least
    position = (voxels - least) * torch.where(span > 0, (bins - 1) / span.clamp_min(torch.finfo(torch.float32).tiny), 0.0)
    centres = torch.arange(bins, dtype=torch.float32, device=image.device)
    return torch.softmax(-0.5 * ((position[:, :, None] - centres) / DEVIATION_BINS).square(), dim=2)


def _entropy(probabilities: Tensor) -> Tensor:
    """Nats, (B,), of (B, states)."""
    return -(probabilities * torch.log(probabilities + _LEAST)).sum(1)
