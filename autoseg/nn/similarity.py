"""Networks whose answers say whether two images show the same thing at the same place, described by a `SimilarityNetwork`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, cat, nn
from torch.nn import functional

from autoseg.core.networks import SimilarityNetwork
from autoseg.nn.blocks import LEAKY_SLOPE, PointwiseConv, convolution, initialise
from autoseg.nn.encoder import unet_stages


def build_similarity(network: SimilarityNetwork) -> nn.Module:
    """What the description says, with fresh weights: a classifier of patches, or an encoder that takes weights and stays."""
    if network.kind == "patches":
        return PatchClassifier(network)
    divisor = tuple(math.prod(column) for column in zip(*network.strides, strict=True))
    stages = [stage for stage, _ in unet_stages(network)]
    encoder = FeatureEncoder(stages, divisor)
    initialise(encoder)
    return encoder


class PatchClassifier(nn.Module):
    """Two images to scores: above 0 where the patches around a place are aligned, below 0 where not.

    `forward` maps fixed and moving images, (B, C, *spatial) each, to logits (B, *places), one wherever a patch of `patch` voxels
    fits, as far from each other as the product of the strides; of two such patches, one. Convolutions without padding, so that
    a score knows nothing about where the border is.
    Source: Simonovsky et al. 2016 (arXiv 1609.05396): two channels, 17 voxels, few layers.
    """

    def __init__(self, network: SimilarityNetwork) -> None:
        super().__init__()
        self.patch = network.patch
        layers: list[nn.Module] = []
        widths = (2 * network.in_channels, *network.features)
        for (before, after), kernel, stride in zip(pairwise(widths), network.kernel_sizes, network.strides, strict=True):
            layer = convolution(before, after, kernel=kernel, stride=stride, bias=True)
            layer.padding = (0,) * network.dims  # type: ignore[assignment]
            layers += [layer, nn.LeakyReLU(LEAKY_SLOPE, inplace=True)]
        self.layers = nn.Sequential(*layers, PointwiseConv(network.features[-1], 1, network.dims))
        initialise(self)

    def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
        return self.layers(cat([fixed, moving], dim=1))[:, 0]


class FeatureEncoder(nn.Module):
    """The first stages of a trained encoder, frozen: an image to its features at several resolutions.

    `forward` maps (B, C, *spatial) to a list of (B, F, *places). Images are padded with their last voxels to multiples of
    `divisor`. Gradients pass to the image, and never reach the weights.

    Args:
        stages: such as a `UNet`'s `encoder`; they are put into evaluation mode and frozen.
        divisor: product of the strides of these stages, per axis.
    """

    def __init__(self, stages: Sequence[nn.Module], divisor: Sequence[int]) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(stages)
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
        for stage in self.encoder:
            features = stage(features)
            found.append(features)
        return found
