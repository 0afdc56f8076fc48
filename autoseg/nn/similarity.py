"""Networks whose answers say whether two images show the same thing at the same place."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from autoseg.nn.blocks import LEAKY_SLOPE, PointwiseConv, convolution, initialise

# Voxels along an edge of what one score sees (Simonovsky et al. 2016: 17): five kernels of 3 without padding, of which
# the second has a stride of 2.
PATCH = 17
_STRIDES = (1, 2, 1, 1, 1)


class PatchClassifier(nn.Module):
    """Two images to scores: above 0 where the patches around a place are aligned, below 0 where not.

    `forward` maps fixed and moving images, (B, C, *spatial) each, to logits (B, *places), one every second voxel where a patch of
    17 voxels an edge fits; of two such patches, one. An axis of one voxel stays. Five convolutions without padding, so that a
    score knows nothing about where the border is.
    Source: Simonovsky et al. 2016 (arXiv 1609.05396): two channels, 17 voxels, few layers.
    """

    def __init__(self, in_channels: int, dims: int, features: Sequence[int]) -> None:
        super().__init__()
        if len(features) != len(_STRIDES):
            raise ValueError(f"a patch classifier has {len(_STRIDES)} layers, found features {tuple(features)}")
        layers: list[nn.Module] = []
        for (before, after), stride in zip(pairwise((2 * in_channels, *features)), _STRIDES, strict=True):
            layer = convolution(before, after, kernel=(3,) * dims, stride=(stride,) * dims, bias=True)
            layer.padding = (0,) * dims  # type: ignore[assignment]
            layers += [layer, nn.LeakyReLU(LEAKY_SLOPE, inplace=True)]
        self.layers = nn.Sequential(*layers, PointwiseConv(features[-1], 1, dims))
        initialise(self)

    def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
        return self.layers(torch.cat([fixed, moving], dim=1))[:, 0]


class FeatureEncoder(nn.Module):
    """The first stages of a trained encoder, frozen: an image to its features at several resolutions.

    `forward` maps (B, C, *spatial) to a list of (B, F, *places). Images are padded with their last voxels to multiples of
    `divisor`. Gradients pass to the image, and never reach the weights.

    Args:
        stages: such as a `UNet`'s `encoder`, with its weights; they are put into evaluation mode and frozen.
        divisor: product of the strides of these stages, per axis.
    """

    def __init__(self, stages: Sequence[nn.Module], divisor: Sequence[int]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.divisor = tuple(divisor)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FeatureEncoder:
        """Stays in evaluation mode, whatever it is part of."""
        return super().train(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        missing = [-size % step for size, step in zip(image.shape[2:], self.divisor, strict=True)]
        features = functional.pad(image, [side for rest in missing[::-1] for side in (0, rest)], mode="replicate")
        found = []
        for stage in self.stages:
            features = stage(features)
            found.append(features)
        return found
