"""Building blocks of convolutional networks in two and three dimensions, shared by every network kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from autoseg.core.errors import choose

# nnU-Net's constants (reference: Isensee et al. 2021, supplementary note 2; dynamic-network-architectures).
NORM_EPS = 1e-5
LEAKY_SLOPE = 0.01
# Fewest features of a group: the 8 that plans mean by `group`; Wu and He 2018 (arXiv 1803.08494), table 3, lose nothing
# from 8 to 64 a group.
GROUP_FEATURES = 8

_CONVOLUTIONS: dict[int, Callable[..., nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_MAX_POOLS: dict[int, Callable[..., nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_BATCH_NORMS: dict[int, Callable[..., nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_POOLS: dict[int, Callable[..., nn.Module]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
_TRANSPOSED: dict[int, Callable[..., nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


class InstanceNorm(nn.Module):
    """Affine instance normalisation that returns its input's memory format, with the numbers of `nn.InstanceNorm3d`.

    Torch's own converts channels-last tensors to contiguous ones and back at the next convolution. On the CPU this one
    runs the channels-last batch-norm kernel once per sample instead: 13.6 against 28.8 ms forward and backward for
    2 x 16 x 40 x 56 x 40 with the activation (measured, 1 thread, EPYC 7xx3, torch 2.13).
    """

    def __init__(self, channels: int, eps: float = NORM_EPS) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        """Normalised features (B, C, ...): per sample and channel zero mean and unit variance, then affine."""
        if features.device.type != "cpu" or features.is_contiguous():
            return functional.instance_norm(features, weight=self.weight, bias=self.bias, eps=self.eps)
        return torch.cat([
            functional.batch_norm(sample, None, None, self.weight, self.bias, training=True, eps=self.eps)
            for sample in features.split(1)])


class PointwiseConv(nn.Module):
    """Convolution of kernel 1 that runs as a matrix product on channels-last features; keeps their memory format.

    Torch sends kernel-1 convolutions with few output channels to a slow path on the CPU and returns them contiguous.
    """

    def __init__(self, in_channels: int, out_channels: int, dims: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *(1,) * dims))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C_in, ...) to (B, C_out, ...)."""
        if features.is_contiguous():
            convolve = functional.conv3d if features.ndim == 5 else functional.conv2d
            return convolve(features, self.weight, self.bias)
        return functional.linear(features.movedim(1, -1), self.weight.flatten(1), self.bias).movedim(-1, 1)


Norm: TypeAlias = Callable[[int], nn.Module]
# The stages of an encoder, each (B, C, *places) -> (B, F, *places), with the F of each.
Stages: TypeAlias = list[tuple[nn.Module, int]]


def norm_of(kind: str, dims: int) -> Norm:
    """What makes an affine norm of a number of features: over the batch (`batch`), the image (`instance`) or `group`s.

    Groups have at least 8 features, and more where 8 do not divide them.
    """
    norms: dict[str, Norm] = {"batch": partial(_BATCH_NORMS[dims], eps=NORM_EPS), "instance": InstanceNorm, "group": group_norm}
    return choose(norms, kind, "norm")


def group_norm(channels: int) -> nn.GroupNorm:
    """Norm over as many equal groups of at least 8 features as there can be."""
    most = max(1, channels // GROUP_FEATURES)
    return GroupNorm(next(count for count in range(most, 0, -1) if channels % count == 0), channels, eps=NORM_EPS)


class GroupNorm(nn.GroupNorm):
    """Norm over groups of features; in a trace by its formula, as OpenVINO 2026.4.1 crashes on torch's operator."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, *places) to the same shape."""
        if not torch.jit.is_tracing():
            return super().forward(features)
        shape = features.shape
        groups = features.reshape(shape[0], self.num_groups, -1)
        centred = groups - groups.mean(2, keepdim=True)
        scaled = (centred / torch.sqrt(centred.square().mean(2, keepdim=True) + self.eps)).reshape(shape)
        affine = (-1, *(1,) * (features.ndim - 2))
        return scaled * self.weight.reshape(affine) + self.bias.reshape(affine)


def convolution(in_channels: int, out_channels: int, *, kernel: Sequence[int], stride: Sequence[int] = (),
                bias: bool = False) -> nn.Module:
    """Convolution of an odd kernel with padding (k - 1) / 2; without a stride every size stays."""
    return _CONVOLUTIONS[len(kernel)](in_channels, out_channels, tuple(kernel), tuple(stride) or 1,
                                      tuple((size - 1) // 2 for size in kernel), bias=bias)


def max_pool(stride: Sequence[int]) -> nn.Module:
    """Largest of 3 along every axis that strides; nothing where none does."""
    if all(step == 1 for step in stride):
        return nn.Identity()
    kernel = tuple(3 if step > 1 else 1 for step in stride)
    return _MAX_POOLS[len(stride)](kernel, tuple(stride), tuple(size // 2 for size in kernel))


def mean_pool(stride: Sequence[int]) -> nn.Module:
    """Means over boxes of the size of the stride; nothing where it is 1."""
    return nn.Identity() if all(step == 1 for step in stride) else _POOLS[len(stride)](tuple(stride), tuple(stride))


class ConvBlock(nn.Sequential):
    """Convolution (padding (k - 1) / 2, bias), instance norm or another, leaky ReLU of slope 0.01 or another."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel: Sequence[int], stride: Sequence[int],
                 norm: Norm = InstanceNorm, slope: float = LEAKY_SLOPE) -> None:
        super().__init__(convolution(in_channels, out_channels, kernel=kernel, stride=stride, bias=True), norm(out_channels),
                         nn.LeakyReLU(slope, inplace=True))


class ResidualBlock(nn.Module):
    """Two convolution blocks beside a shortcut, added before the last activation.

    The shortcut is the input, average-pooled where the block strides and projected by a normalised 1 x 1 convolution
    where it changes the width. Source: nnU-Net's residual encoder (Isensee et al. 2024, arXiv 2404.09556).
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel: Sequence[int], stride: Sequence[int],
                 norm: Norm = InstanceNorm) -> None:
        super().__init__()
        unit = (1,) * len(kernel)
        first = ConvBlock(in_channels, out_channels, kernel=kernel, stride=stride, norm=norm)
        second, normed, _ = ConvBlock(out_channels, out_channels, kernel=kernel, stride=unit, norm=norm)
        self.main = nn.Sequential(first, second, normed)
        shortcut: list[nn.Module] = []
        if any(step > 1 for step in stride):
            shortcut.append(mean_pool(stride))
        if in_channels != out_channels:
            shortcut += [PointwiseConv(in_channels, out_channels, len(kernel)), norm(out_channels)]
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C_in, ...) to (B, C_out, ...), spatial sizes divided by the stride."""
        return functional.leaky_relu(self.main(features) + self.shortcut(features), LEAKY_SLOPE)


def conv_stage(
        in_channels: int, out_channels: int, *, count: int, kernel: Sequence[int], stride: Sequence[int],
        block: Callable[..., nn.Module] = ConvBlock,
) -> nn.Sequential:
    """`count` blocks; the first one strides and changes the width."""
    unit = (1,) * len(kernel)
    return nn.Sequential(*(
        block(out_channels if index else in_channels, out_channels, kernel=kernel, stride=unit if index else stride)
        for index in range(count)))


def upsampling(in_channels: int, out_channels: int, stride: Sequence[int]) -> nn.Module:
    """Transposed convolution whose kernel is its stride: every input voxel paints its own box."""
    return _TRANSPOSED[len(stride)](in_channels, out_channels, tuple(stride), tuple(stride))


def embedding(in_channels: int, out_channels: int, stride: Sequence[int]) -> nn.Module:
    """Convolution whose kernel is its stride: every box of the input becomes one vector."""
    return _CONVOLUTIONS[len(stride)](in_channels, out_channels, tuple(stride), tuple(stride))


def initialise(network: nn.Module) -> None:
    """Set convolution weights to He-normal values for leaky ReLU (He et al. 2015, eq. 15) and biases to 0, in place."""
    kinds = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, PointwiseConv)
    for module in network.modules():
        if isinstance(module, kinds):
            nn.init.kaiming_normal_(module.weight, a=LEAKY_SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
