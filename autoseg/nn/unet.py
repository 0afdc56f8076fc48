"""The U-Nets of nnU-Net, plain (Isensee et al. 2021) and with a residual encoder, described by a plan's `Network`."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from autoseg.core.errors import IncompatibleError
from autoseg.core.plan import Network
from autoseg.nn.blocks import ConvBlock, PointwiseConv, ResidualBlock, conv_stage, initialise, upsampling

ENCODER_BLOCKS: dict[str, type[ConvBlock] | type[ResidualBlock]] = {"plain_unet": ConvBlock, "residual_unet": ResidualBlock}


class UNet(nn.Module):
    """Encoder of plain or residual blocks, and decoder of plain convolution blocks with skip connections.

    `forward` maps (B, C, *spatial) to logits (B, K, *spatial). In training mode with deep supervision it returns a list
    of logits, full resolution first, one for each decoder stage; there is none at the bottleneck.
    Every spatial size must be a multiple of `divisor`.

    With an `image_head` (`nn.image_head`) training gets these logits and what it says of the image, (B, N). Evaluation gets one
    tensor (B, K + N, *spatial), in which the last N are the same everywhere: whatever joins windows then joins these, too.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        _check(network)
        stages = len(network.features)
        widths = (network.in_channels, *network.features)
        self.deep_supervision = network.deep_supervision
        self.dims, self.deepest_features = network.dims, network.features[-1]
        self.image_head: nn.Module | None = None
        self.divisor = tuple(_product(column) for column in zip(*network.strides, strict=True))
        self.encoder = nn.ModuleList(
            conv_stage(widths[s], widths[s + 1], count=network.convs_encoder[s], kernel=network.kernel_sizes[s],
                       stride=network.strides[s], block=ENCODER_BLOCKS[network.kind]) for s in range(stages))
        deepest_first = range(stages - 2, -1, -1)
        self.upsamplings = nn.ModuleList(
            upsampling(network.features[s + 1], network.features[s], network.strides[s + 1]) for s in deepest_first)
        self.decoder = nn.ModuleList(
            conv_stage(2 * network.features[s], network.features[s], count=count, kernel=network.kernel_sizes[s],
                       stride=(1,) * network.dims)
            for s, count in zip(deepest_first, network.convs_decoder, strict=True))
        supervised = deepest_first if network.deep_supervision else range(1)
        self.heads = nn.ModuleList(
            PointwiseConv(network.features[s], network.out_channels, network.dims) for s in supervised)
        initialise(self)
        if network.output_bias:
            for head in self.heads:
                cast(PointwiseConv, head).bias.data.copy_(torch.tensor(network.output_bias))

    def forward(self, image: Tensor) -> Tensor | list[Tensor] | tuple[Tensor | list[Tensor], Tensor]:
        self._check_size(image)
        features, skips = image, []
        for stage in self.encoder:
            features = stage(features)
            skips.append(features)
        deepest = skips.pop()
        decoded = []
        for upsample, stage in zip(self.upsamplings, self.decoder, strict=True):
            features = stage(torch.cat([upsample(features), skips.pop()], dim=1))
            decoded.append(features)
        if not self.training:
            logits = self.heads[-1](features)
            return logits if self.image_head is None else beside(logits, self.image_head(deepest))
        outputs = [head(level) for head, level in zip(self.heads, decoded, strict=True)][::-1] if self.deep_supervision \
            else self.heads[-1](features)
        return outputs if self.image_head is None else (outputs, self.image_head(deepest))

    def _check_size(self, image: Tensor) -> None:
        sizes = tuple(image.shape[2:])
        if len(sizes) != len(self.divisor) or any(size % d for size, d in zip(sizes, self.divisor, strict=True)):
            raise IncompatibleError(
                f"the network got a patch of {sizes} voxels; each axis must be a multiple of {self.divisor}, the "
                "product of its strides. Change patch_size or strides in the plan")


def beside(logits: Tensor, vector: Tensor) -> Tensor:
    """Logits (B, K, *spatial) and a vector (B, N) as one tensor (B, K + N, *spatial), the vector the same everywhere."""
    constant = vector.reshape(*vector.shape, *(1,) * (logits.ndim - 2)).expand(-1, -1, *logits.shape[2:])
    return torch.cat([logits, constant.to(logits.dtype)], dim=1)


def _check(network: Network) -> None:
    stages = len(network.features)
    lengths = {"strides": len(network.strides), "kernel_sizes": len(network.kernel_sizes),
               "convs_encoder": len(network.convs_encoder), "convs_decoder": len(network.convs_decoder) + 1}
    wrong = [name for name, length in lengths.items() if length != stages]
    axes = {len(entry) for entry in (*network.strides, *network.kernel_sizes)}
    if stages < 2 or wrong or axes != {network.dims}:
        raise IncompatibleError(
            f"a U-Net of {stages} stages (features {network.features}) in {network.dims} dimensions needs one stride, "
            f"kernel size and encoder count per stage, one decoder count less, {network.dims} numbers per stride and "
            f"kernel, and at least two stages; found {network}")


def _product(values: tuple[int, ...]) -> int:
    result = 1
    for value in values:
        result *= value
    return result
