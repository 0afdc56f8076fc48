"""The encoders of our U-Nets as parts of other networks: their tensors have the names and shapes of a segmentation network's."""

from __future__ import annotations

from functools import partial

from autoseg.core.networks import Classifier, SimilarityNetwork
from autoseg.nn.blocks import ConvBlock, ResidualBlock, Stages, conv_stage, norm_of

BLOCKS = {"plain_encoder": ConvBlock, "residual_encoder": ResidualBlock}


def unet_stages(network: Classifier | SimilarityNetwork) -> Stages:
    """The stages of `nn.unet` of the same numbers, which the decoder would have taken its skips from."""
    block = partial(BLOCKS[network.kind], norm=norm_of(network.norm, network.dims))
    widths = (network.in_channels, *network.features)
    return [(conv_stage(widths[s], widths[s + 1], count=network.blocks[s], kernel=network.kernel_sizes[s],
                        stride=network.strides[s], block=block), widths[s + 1]) for s in range(len(network.features))]
