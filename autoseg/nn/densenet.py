"""DenseNet: every layer sees what all layers before it in its block have made (Huang et al. 2017, arXiv 1608.06993).

MONAI's has the same layers; its stem, its strides and its kernels are fixed, and small or anisotropic images need others.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autoseg.core.networks import Classifier
from autoseg.nn.blocks import Norm, Stages, convolution, max_pool, mean_pool, norm_of

# Section 3: a layer computes 4 features for each one that it adds, and a transition keeps half ("DenseNet-BC").
BOTTLENECK = 4
COMPRESSION = 2


class DenseLayer(nn.Sequential):
    """Norm, ReLU, convolution of 1, norm, ReLU, convolution; its result is put beside its input."""

    def __init__(self, in_channels: int, growth: int, kernel: Sequence[int], norm: Norm) -> None:
        inside = BOTTLENECK * growth
        super().__init__(norm(in_channels), nn.ReLU(inplace=True),
                         convolution(in_channels, inside, kernel=(1,) * len(kernel)),
                         norm(inside), nn.ReLU(inplace=True), convolution(inside, growth, kernel=kernel))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, ...) to (B, C + growth, ...)."""
        return torch.cat([features, super().forward(features)], dim=1)


def densenet_stages(network: Classifier) -> Stages:
    """Stem, and for each later stage a transition and its dense layers; the last ends with a norm and ReLU."""
    norm, width = norm_of(network.norm, network.dims), network.features[0]
    stem = nn.Sequential(
        convolution(network.in_channels, width, kernel=network.kernel_sizes[0], stride=network.strides[0]),
        norm(width), nn.ReLU(inplace=True))
    stages: Stages = [(stem, width)]
    for number in range(1, len(network.blocks)):
        layers = [max_pool(network.strides[1])] if number == 1 else _transition(width, network.strides[number], norm)
        width = width if number == 1 else width // COMPRESSION
        for _ in range(network.blocks[number]):
            layers.append(DenseLayer(width, network.growth, network.kernel_sizes[number], norm))
            width += network.growth
        if number == len(network.blocks) - 1:
            layers += [norm(width), nn.ReLU(inplace=True)]
        stages.append((nn.Sequential(*layers), width))
    return stages


def _transition(width: int, stride: Sequence[int], norm: Norm) -> list[nn.Module]:
    return [norm(width), nn.ReLU(inplace=True), convolution(width, width // COMPRESSION, kernel=(1,) * len(stride)),
            mean_pool(stride)]
