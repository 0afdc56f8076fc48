"""Networks from a whole image to a vector: topology from the size of the image, width from data and time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from autoseg.core.networks import Classifier
from autoseg.planning.whole_image import SMALL_SIDE, WholeGrid

# Parameters of a network that is trained from fresh weights, for every patient that it is trained on (docs/classification.md).
PARAMETERS_PER_PATIENT = 2_000
# A map of fewer cells along an axis is not halved again (docs/classification.md); 7 at 224 pixels, 4 at 128.
SMALLEST_MAP = 4
MOST_HALVINGS = 5
# Volumes above this side are halved by stem and pool as large images are: a stage at full resolution of 64^3 takes most of
# the time of a step (counted: 3.6 of 4.1 thousand million products at 16 features).
SMALL_SIDE_3D = 32
# Wang et al. 2017 (ChestX-ray8): maps for localisation, and the sharpness of their pooling (docs/classification.md).
LOCALISING_MAP = 14
SHARPNESS, LOWEST_SHARPNESS = 10.0, 4.0
# Features double at most so often: 512 of 64 in ResNet-18 (He et al. 2016, table 1).
MOST_DOUBLINGS = 3
DENSENET_121 = ((1, 6, 12, 24, 16), 64, 32)
# Widths of DenseNet-121's stages as they follow from growth 32 and compression by half.
DENSENET_FEATURES = (64, 256, 512, 1024, 1024)
INCEPTION_V3_SIDE = 96

Norm = Literal["batch", "group"]
# Statistics of a batch are noise below this many images.
BATCH_NORM_FROM = 16


@dataclass(frozen=True)
class Wish:
    """What the network of a whole image has to be.

    Attributes:
        base_features: of the first stage of a ResNet.
        blocks: of each of its stages.
        localise: the last map is kept at 14 cells and more, and pooled by log-sum-exp.
        shared_output: the outputs are thresholds between grades.
    """

    in_channels: int
    out_channels: int
    base_features: int = 64
    blocks: int = 2
    norm: Norm = "batch"
    attention: Literal["none", "squeeze_excitation", "cbam"] = "none"
    localise: bool = False
    shared_output: bool = False
    output_bias: tuple[float, ...] = ()
    dropout: float = 0.0


def plan_resnet(grid: WholeGrid, wish: Wish) -> Classifier:
    """A ResNet of basic blocks whose stages fit the image; with ResNet-18's numbers at 64 features, 2 blocks and 224 pixels."""
    strides = plan_strides(grid, localise=wish.localise)
    stages = len(strides)
    features = (wish.base_features, *(wish.base_features * 2**min(stage, MOST_DOUBLINGS) for stage in range(stages - 1)))
    stem = 7 if math.prod(strides[0]) > 1 and max(grid.sides) > 2 * SMALL_SIDE else 3
    return _classifier("resnet", grid, wish, strides, features=features, kernels=(stem, *(3,) * (stages - 1)),
                       blocks=(1, *(wish.blocks,) * (stages - 1)))


def plan_densenet121(grid: WholeGrid, wish: Wish) -> Classifier:
    """DenseNet-121, CheXNet's network; fewer strides on small images."""
    blocks, width, growth = DENSENET_121
    strides = _exactly(plan_strides(grid, localise=wish.localise), len(blocks), grid.dims)
    stem = 7 if math.prod(strides[0]) > 1 else 3
    return _classifier("densenet", grid, wish, strides, features=DENSENET_FEATURES, kernels=(stem, 3, 3, 3, 3), blocks=blocks,
                       growth=growth)


def plan_inception_v3(grid: WholeGrid, wish: Wish) -> Classifier:
    """Inception-v3, the network of Esteva et al. 2017."""
    strides = _exactly(plan_strides(grid, localise=wish.localise), 5, grid.dims)
    return _classifier("inception", grid, wish, strides, features=(32, 64, 288, 768, 2048), kernels=(3, 3, 5, 7, 3),
                       blocks=(1, 1, 3, 4, 2))


def plan_vit(grid: WholeGrid, wish: Wish) -> Classifier:
    """A small vision transformer (ViT-S of Touvron et al. 2021: 384 features, 12 blocks), tokens of 16 or, of small images, 4."""
    small = 8 if grid.dims == 3 else 4
    token = tuple(16 if side % 16 == 0 and side > SMALL_SIDE else math.gcd(side, small) for side in grid.sides)
    return _classifier("vit", grid, wish, (token,), features=(384,), kernels=(3,), blocks=(12,))


def plan_strides(grid: WholeGrid, *, localise: bool = False) -> tuple[tuple[int, ...], ...]:
    """Strides of the stem, of the pool behind it, and of every later stage.

    Small images are first halved in the third stage. An axis is halved while it is even and at least `SMALLEST_MAP` cells
    remain (`LOCALISING_MAP` where maps are wanted), all together at most five times.
    """
    sides = list(grid.sides)
    least = LOCALISING_MAP if localise else SMALLEST_MAP
    is_small = max(sides) <= (SMALL_SIDE if grid.dims == 2 else SMALL_SIDE_3D)
    unit = (1,) * grid.dims
    strides: list[tuple[int, ...]] = [unit, unit] if is_small else []
    while len(strides) < MOST_HALVINGS:
        step = tuple(2 if side % 2 == 0 and side // 2 >= least else 1 for side in sides)
        if step == unit:
            break
        strides.append(step)
        sides = [side // stride for side, stride in zip(sides, step, strict=True)]
    return tuple(strides) if len(strides) > 2 else _exactly(tuple(strides), 3, grid.dims)


def last_map(grid: WholeGrid, network: Classifier) -> tuple[int, ...]:
    """Cells of the last map along every axis."""
    total = [math.prod(stage) for stage in zip(*network.strides, strict=True)]
    return tuple(side // step for side, step in zip(grid.sides, total, strict=True))


def plan_norm(batch: int) -> Norm:
    """Over the batch where it has enough images for its statistics, else over groups of features."""
    return "batch" if batch >= BATCH_NORM_FROM else "group"


def classifier_parameters(network: Classifier) -> int:
    """Weights and biases of a ResNet of basic blocks, a DenseNet or a vision transformer, without attention modules.

    Raises:
        ValueError: another kind.
    """
    counts = {"resnet": _resnet_parameters, "densenet": _densenet_parameters, "vit": _vit_parameters}
    if network.kind not in counts:
        raise ValueError(f"the parameters of a network of kind {network.kind!r} are not counted")
    body, width = counts[network.kind](network)
    pooled = 128 * width + 256 if network.pooling == "attention" else 0
    heads = width + network.out_channels if network.shared_output else (width + 1) * network.out_channels
    return body + pooled + heads


def largest_width(grid: WholeGrid, wish: Wish, patients: int, widths: Sequence[int]) -> int:
    """The largest of these widths whose ResNet keeps to the parameters of so many patients; else the smallest."""
    from dataclasses import replace

    most = PARAMETERS_PER_PATIENT * patients
    allowed = [width for width in sorted(widths)
               if classifier_parameters(plan_resnet(grid, replace(wish, base_features=width))) <= most]
    return max(allowed, default=min(widths))


def _classifier(kind: Literal["densenet", "resnet", "inception", "vit"], grid: WholeGrid, wish: Wish,
                strides: tuple[tuple[int, ...], ...], *, features: tuple[int, ...], kernels: tuple[int, ...],
                blocks: tuple[int, ...], growth: int = 0) -> Classifier:
    pooling: Literal["mean", "log_sum_exp", "attention"] = "mean"
    sharpness = SHARPNESS
    if grid.slices:
        pooling = "attention"
    elif wish.localise:
        pooling = "log_sum_exp"
        cells = max(side // math.prod(steps) for side, steps in zip(grid.sides, zip(*strides, strict=True), strict=True))
        sharpness = min(SHARPNESS, max(LOWEST_SHARPNESS, SHARPNESS * math.sqrt(LOCALISING_MAP / cells)))
    return Classifier(
        kind=kind, dims=2 if grid.dims == 2 else 3, in_channels=wish.in_channels, out_channels=wish.out_channels,
        features=features, strides=strides, kernel_sizes=tuple((kernel,) * grid.dims for kernel in kernels), blocks=blocks,
        growth=growth, slices=grid.slices, norm=wish.norm, attention=wish.attention, pooling=pooling, sharpness=sharpness,
        dropout=wish.dropout, shared_output=wish.shared_output, output_bias=wish.output_bias)


def _exactly(strides: tuple[tuple[int, ...], ...], stages: int, dims: int) -> tuple[tuple[int, ...], ...]:
    """The strides of as many stages as a network has; those that are missing are 1, at the beginning."""
    return ((1,) * dims,) * (stages - len(strides)) + strides[:stages]


def _resnet_parameters(network: Classifier) -> tuple[int, int]:
    kernels = [math.prod(kernel) for kernel in network.kernel_sizes]
    width = network.features[0]
    count = kernels[0] * network.in_channels * width + 2 * width
    for stage in range(1, len(network.features)):
        features = network.features[stage]
        for block in range(network.blocks[stage]):
            strided = block == 0 and stage > 1 and math.prod(network.strides[stage]) > 1
            count += kernels[stage] * (width + features) * features + 4 * features
            count += width * features + 2 * features if width != features or strided else 0
            width = features
    return count, width


def _densenet_parameters(network: Classifier) -> tuple[int, int]:
    kernels = [math.prod(kernel) for kernel in network.kernel_sizes]
    width, growth = network.features[0], network.growth
    count = kernels[0] * network.in_channels * width + 2 * width
    for stage in range(1, len(network.blocks)):
        if stage > 1:
            count += 2 * width + width * (width // 2)
            width //= 2
        for _ in range(network.blocks[stage]):
            count += 2 * width + width * 4 * growth + 8 * growth + kernels[stage] * 4 * growth * growth
            width += growth
    return count + 2 * width, width


def _vit_parameters(network: Classifier) -> tuple[int, int]:
    width = network.features[0]
    tokens = network.in_channels * math.prod(network.strides[0]) * width + width
    block = 12 * width**2 + 13 * width
    return tokens + network.blocks[0] * block + 2 * width, width
