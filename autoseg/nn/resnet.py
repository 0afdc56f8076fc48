"""ResNet of basic or bottleneck blocks (He et al. 2016, arXiv 1512.03385).

MONAI's has the same layers; its strides and kernels are fixed, and its shortcuts have batch norms whatever norm is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from autoseg.core.networks import Classifier
from autoseg.nn.blocks import Norm, Stages, convolution, max_pool, norm_of

# A bottleneck block computes a quarter of the features that it returns (table 1).
BOTTLENECK = 4


class Block(nn.Module):
    """Two convolutions, or 1, kernel and 1 of them on a quarter of the features, beside a shortcut.

    The stride is that of the convolution with the kernel. The shortcut is projected where the block strides or changes the
    width ("option B", section 4.1).
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel: Sequence[int], stride: Sequence[int], bottleneck: bool,
                 norm: Norm) -> None:
        super().__init__()
        point = (1,) * len(kernel)
        inside = out_channels // BOTTLENECK if bottleneck else out_channels
        layers: list[nn.Module] = []
        if bottleneck:
            layers = [convolution(in_channels, inside, kernel=point), norm(inside), nn.ReLU(inplace=True)]
        layers += [convolution(inside if bottleneck else in_channels, inside, kernel=kernel, stride=stride), norm(inside),
                   nn.ReLU(inplace=True),
                   convolution(inside, out_channels, kernel=point if bottleneck else kernel), norm(out_channels)]
        self.main = nn.Sequential(*layers)
        changes = in_channels != out_channels or any(step > 1 for step in stride)
        self.shortcut = nn.Sequential(
            convolution(in_channels, out_channels, kernel=point, stride=stride), norm(out_channels)) if changes else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """(B, C_in, ...) to (B, C_out, ...), spatial sizes divided by the stride."""
        return functional.relu(self.main(features) + self.shortcut(features))


def resnet_stages(network: Classifier) -> Stages:
    """Stem, and for each later stage its blocks; stage 1 strides by its max-pool."""
    norm, features = norm_of(network.norm, network.dims), network.features
    stem = nn.Sequential(
        convolution(network.in_channels, features[0], kernel=network.kernel_sizes[0], stride=network.strides[0]),
        norm(features[0]), nn.ReLU(inplace=True))
    stages: Stages = [(stem, features[0])]
    unit = (1,) * network.dims
    for number in range(1, len(features)):
        first = unit if number == 1 else network.strides[number]
        blocks: list[nn.Module] = [
            Block(features[number] if index else features[number - 1], features[number], kernel=network.kernel_sizes[number],
                  stride=unit if index else first, bottleneck=network.bottleneck, norm=norm)
            for index in range(network.blocks[number])]
        pooled = [max_pool(network.strides[1])] if number == 1 else []
        stages.append((nn.Sequential(*pooled, *blocks), features[number]))
    return stages
