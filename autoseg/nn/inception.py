"""Inception-v3: factorised convolutions and grid reductions (Szegedy et al. 2016, arXiv 1512.00567), in two and three dimensions.

Widths are those of the published network (its table 1 and code) times features[0] / 32. Convolutions are padded, so that sizes
are halved exactly where they stride; the published stem and reductions lose their borders. There is no auxiliary head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from autoseg.core.networks import Classifier
from autoseg.nn.blocks import Norm, Stages, convolution, max_pool, norm_of

# Width of the published stem.
STEM = 32
_MEAN_POOLS: dict[int, Callable[..., nn.Module]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
_PADS: dict[int, Callable[..., nn.Module]] = {2: nn.ZeroPad2d, 3: nn.ZeroPad3d}


class Branches(nn.Module):
    """Several ways for the same features, side by side."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, ...) to (B, sum of the branches' features, ...)."""
        return torch.cat([branch(features) for branch in self.branches], dim=1)


class _Maker:
    """Makes a network's parts: its kernels, norms and the scale of its widths."""

    def __init__(self, network: Classifier) -> None:
        self.dims = network.dims
        self.norm: Norm = norm_of(network.norm, network.dims)
        self.point = (1,) * network.dims
        self._scale = network.features[0] / STEM

    def width(self, published: int) -> int:
        return max(1, round(published * self._scale))

    def conv(self, inside: int, outside: int, kernel: Sequence[int], stride: Sequence[int] = ()) -> nn.Module:
        return nn.Sequential(convolution(inside, outside, kernel=kernel, stride=stride), self.norm(outside),
                             nn.ReLU(inplace=True))

    def chain(self, inside: int, *widths_kernels: tuple[int, Sequence[int]], stride: Sequence[int] = ()) -> nn.Sequential:
        """Convolutions one after the other; the last one strides."""
        layers = []
        for place, (width, kernel) in enumerate(widths_kernels):
            layers.append(self.conv(inside, width, kernel, stride if place == len(widths_kernels) - 1 else ()))
            inside = width
        return nn.Sequential(*layers)

    def lines(self, kernel: Sequence[int]) -> list[tuple[int, ...]]:
        """A kernel as one line per axis, the last axis first: 7 x 7 is 1 x 7 and 7 x 1."""
        return [tuple(size if axis == line else 1 for axis, size in enumerate(kernel)) for line in reversed(range(self.dims))]

    def pooled(self, inside: int, width: int, kernel: Sequence[int]) -> nn.Sequential:
        """Means of a neighbourhood, then a convolution of 1. Padded apart: torch's own pads no image smaller than the kernel."""
        margins = tuple(size // 2 for size in reversed(kernel) for _ in range(2))
        pool = _MEAN_POOLS[self.dims](tuple(kernel), 1)
        return nn.Sequential(_PADS[self.dims](margins), pool, self.conv(inside, width, self.point))


def inception_stages(network: Classifier) -> Stages:
    """Stem, two convolutions, and blocks at three resolutions (figures 5, 6 and 7 of the paper)."""
    make = _Maker(network)
    stem = make.chain(network.in_channels, *((make.width(n), network.kernel_sizes[0]) for n in (32, 32, 64)))
    stem[0] = make.conv(network.in_channels, make.width(32), network.kernel_sizes[0], network.strides[0])
    second = nn.Sequential(max_pool(network.strides[1]),
                           make.chain(make.width(64), (make.width(80), make.point), (make.width(192), network.kernel_sizes[1])))
    stages: Stages = [(stem, make.width(64)), (second, make.width(192))]
    for number, blocks in ((2, _first_blocks), (3, _second_blocks), (4, _third_blocks)):
        layers, width = blocks(make, stages[-1][1], network, number)
        stages.append((nn.Sequential(*layers), width))
    return stages


def _first_blocks(make: _Maker, width: int, network: Classifier, number: int) -> tuple[list[nn.Module], int]:
    """After a max-pool: branches of 1, of the kernel (5), of two of 3, and pooled (figure 5)."""
    layers: list[nn.Module] = [max_pool(network.strides[number])]
    w, point, kernel = make.width, make.point, network.kernel_sizes[number]
    three = _at_most(3, kernel)
    for index in range(network.blocks[number]):
        pooled = w(64 if index else 32)
        layers.append(Branches(
            make.conv(width, w(64), point), make.chain(width, (w(48), point), (w(64), kernel)),
            make.chain(width, (w(64), point), (w(96), three), (w(96), three)), make.pooled(width, pooled, three)))
        width = w(64) + w(64) + w(96) + pooled
    return layers, width


def _second_blocks(make: _Maker, width: int, network: Classifier, number: int) -> tuple[list[nn.Module], int]:
    """After a grid reduction (figure 10): branches of 1, of one and of two kernels (7) as lines, and pooled (figure 6)."""
    w, point, kernel, stride = make.width, make.point, network.kernel_sizes[number], network.strides[number]
    three, lines, count = _at_most(3, kernel), make.lines(kernel), network.blocks[number]
    layers: list[nn.Module] = [Branches(
        make.conv(width, w(384), three, stride),
        make.chain(width, (w(64), point), (w(96), three), (w(96), three), stride=stride), max_pool(stride))]
    width += w(384) + w(96)
    for index in range(count):
        inside = w(128 if index == 0 else 192 if index == count - 1 else 160)
        once = [(inside, line) for line in lines]
        twice = [(inside, line) for line in (*lines[::-1], *lines[::-1])]
        once[-1], twice[-1] = (w(192), once[-1][1]), (w(192), twice[-1][1])
        layers.append(Branches(
            make.conv(width, w(192), point), make.chain(width, (inside, point), *once),
            make.chain(width, (inside, point), *twice), make.pooled(width, w(192), three)))
        width = 4 * w(192)
    return layers, width


def _third_blocks(make: _Maker, width: int, network: Classifier, number: int) -> tuple[list[nn.Module], int]:
    """After a grid reduction: branches of 1, of kernels (3) whose lines lie side by side, and pooled (figure 7)."""
    w, point, kernel, stride = make.width, make.point, network.kernel_sizes[number], network.strides[number]
    long_lines = [(w(192), line) for line in make.lines(network.kernel_sizes[number - 1])]
    layers: list[nn.Module] = [Branches(
        make.chain(width, (w(192), point), (w(320), kernel), stride=stride),
        make.chain(width, (w(192), point), *long_lines, (w(192), kernel), stride=stride), max_pool(stride))]
    width += w(320) + w(192)
    share, lines = w(2 * 384 // make.dims), make.lines(kernel)
    for _ in range(network.blocks[number]):
        aside, deeper = (Branches(*(make.conv(w(384), share, line) for line in lines)) for _ in range(2))
        layers.append(Branches(
            make.conv(width, w(320), point), nn.Sequential(make.conv(width, w(384), point), aside),
            nn.Sequential(make.chain(width, (w(448), point), (w(384), kernel)), deeper),
            make.pooled(width, w(192), _at_most(3, kernel))))
        width = w(320) + 2 * make.dims * share + w(192)
    return layers, width


def _at_most(size: int, kernel: Sequence[int]) -> tuple[int, ...]:
    return tuple(min(size, extent) for extent in kernel)
