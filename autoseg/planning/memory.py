"""How large patch and batch may be: nnU-Net's feature-map count against its reference, scaled to the memory budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from autoseg.core.errors import ResourceError
from autoseg.core.networks import Classifier, Network, Registrar, SimilarityNetwork
from autoseg.planning.topology import SMALLEST_EDGE, Topology, initial_patch, plan_topology

# nnU-Net 2.8.1, default_experiment_planner.py:48-72: feature-map values per sample that fill 8 GB, and at which batch.
REFERENCE_BYTES = 8 * 10**9
SMALLEST_BATCH = 2
LARGEST_SHARE_OF_DATASET = 0.05
LOW_RESOLUTION_SHARE = 0.25
LOW_RESOLUTION_STEP = 1.03
LOW_RESOLUTION_GAIN = 2.0


@dataclass(frozen=True)
class Reference:
    """Feature-map values of one sample that fill the reference memory at this batch size."""

    values: float
    batch: int


REFERENCES = {3: Reference(560e6, 2), 2: Reference(85e6, 12)}

Widths = Callable[[int], tuple[int, ...]]


@dataclass(frozen=True)
class Architecture:
    """What the feature-map count needs to know of a U-Net beside its topology.

    Attributes:
        widths: number of stages -> features per stage.
        convs: convolutions per stage, encoder and decoder alike.
        out_channels: of the output.
    """

    widths: Widths
    convs: int
    out_channels: int


@dataclass(frozen=True)
class Fit:
    """A patch that fits, and its feature-map values per sample."""

    topology: Topology
    values: int


def stage_widths(stages: int, *, first: int, largest: int, thin_first: int = 1) -> tuple[int, ...]:
    """Features per stage: doubled from `first` on, at most `largest`.

    With `thin_first` above 1 the first stage has `first / thin_first` and the doubling starts in the second.
    """
    if thin_first > 1:
        return (first // thin_first, *stage_widths(stages - 1, first=first, largest=largest))
    return tuple(min(first * 2**stage, largest) for stage in range(stages))


def feature_map_values(topology: Topology, architecture: Architecture) -> int:
    """Values that the convolutions of a U-Net write for one sample, without the outputs of deep supervision.

    With V the voxels of a stage, f its features and n stages: sum of convs f V over the encoder, of (convs + 1) f V over
    the n - 1 decoder stages (one transposed convolution), and out_channels V of the first stage.
    Source: nnU-Net 2.8.1, `compute_conv_feature_map_size`; the closed form equals it exactly.
    """
    widths = architecture.widths(len(topology.strides))
    voxels, size = [], list(topology.patch_size)
    for stride in topology.strides:
        size = [s // step for s, step in zip(size, stride, strict=True)]
        voxels.append(math.prod(size))
    encoder = sum(architecture.convs * f * v for f, v in zip(widths, voxels, strict=True))
    decoder = sum((architecture.convs + 1) * f * v for f, v in zip(widths[:-1], voxels[:-1], strict=True))
    return encoder + decoder + architecture.out_channels * voxels[0]


def fit_patch(spacing_mm: Sequence[float], median_shape: Sequence[float], architecture: Architecture, *, scale: float,
              largest_voxels: float = math.inf, or_smallest: bool = False, shorter: int = 0) -> Fit:
    """The largest patch whose feature maps fit into `scale` times the reference memory and into `largest_voxels`.

    The axis that covers most of the median shape is shortened, by what the strides divide, until the patch fits, and after
    that `shorter` times more.

    Args:
        or_smallest: where none fits, the smallest one.
    Raises:
        ResourceError: not even the smallest patch fits, or it cannot be shortened so often.
    """
    reference = REFERENCES[len(spacing_mm)]
    topology = plan_topology(spacing_mm, initial_patch(spacing_mm, median_shape))
    values = feature_map_values(topology, architecture)
    while values / reference.batch * 2 > reference.values * scale or topology.voxels > largest_voxels:
        smaller = _shorten(topology, spacing_mm, median_shape)
        if smaller is None and or_smallest:
            break
        topology = _or_refuse(smaller, topology, scale)
        values = feature_map_values(topology, architecture)
    for _ in range(shorter):
        topology = _or_refuse(_shorten(topology, spacing_mm, median_shape), topology, scale)
    return Fit(topology, feature_map_values(topology, architecture))


def _shorten(topology: Topology, spacing_mm: Sequence[float], median_shape: Sequence[float]) -> Topology | None:
    """The next smaller patch, None where the axis that is to be shortened has its smallest size."""
    size = list(topology.patch_size)
    axis = int(np.argsort([p / m for p, m in zip(size, median_shape, strict=True)])[-1])
    trial = list(size)
    trial[axis] -= topology.divisor[axis]
    if trial[axis] < SMALLEST_EDGE:
        return None
    size[axis] -= plan_topology(spacing_mm, trial).divisor[axis]
    return plan_topology(spacing_mm, size)


def _or_refuse(smaller: Topology | None, topology: Topology, scale: float) -> Topology:
    if smaller is None:
        raise ResourceError(f"a memory budget of {scale * REFERENCE_BYTES / 1e9:.2f} GB does not hold one training step on "
                            f"a patch of {tuple(topology.patch_size)} voxels (model axes), and the patch cannot shrink "
                            "further; give more memory with --memory")
    return smaller


def batch_that_fits(fit: Fit, dims: int, scale: float) -> int:
    """Samples whose feature maps fill `scale` times the reference memory."""
    reference = REFERENCES[dims]
    return round(reference.values * scale / fit.values * reference.batch)


def limit_batch(batch: int, dataset_voxels: float, patch_voxels: int) -> int:
    """A batch size that covers at most 5 % of the dataset's voxels, but is at least 2."""
    largest = round(dataset_voxels * LARGEST_SHARE_OF_DATASET / patch_voxels)
    return max(min(batch, largest), SMALLEST_BATCH)


def low_resolution_spacing(spacing_mm: Sequence[float], median_shape: Sequence[float], patch_voxels: int,
                           architecture: Architecture, *, scale: float) -> tuple[float, ...] | None:
    """Spacing (mm) of nnU-Net's low-resolution configuration; None where it makes none.

    A patch below a quarter of the median shape calls for it: the spacing grows by 3 % (first that of axes below half of the
    coarsest) until a newly planned patch covers a quarter; a result of more than half the voxels is dropped.
    """
    full, target = np.array(spacing_mm), np.array(spacing_mm, dtype=float)
    voxels, covered = math.prod(median_shape), patch_voxels
    while covered / voxels < LOW_RESOLUTION_SHARE:
        fine = target.max() / target > 2
        target[fine if fine.any() else slice(None)] *= LOW_RESOLUTION_STEP
        shape = full / target * np.array(median_shape)
        voxels = float(np.prod(shape))
        fit = fit_patch(tuple(target), [round(float(size)) for size in shape], architecture, scale=scale)
        covered = fit.topology.voxels
    is_smaller = math.prod(median_shape) / voxels >= LOW_RESOLUTION_GAIN
    return tuple(float(value) for value in target) if is_smaller else None


def parameter_count(network: Network | Classifier | Registrar) -> int:
    """Weights and biases of a U-Net: convolutions, affine norms, transposed convolutions, 1 x 1 outputs; and of a registrar.

    Of a classifier a bound from above, for disk and memory: every block counts as two convolutions of its stage's full width.
    Dense layers, bottlenecks and tokens take less.
    """
    if isinstance(network, Classifier):
        return _most_parameters(network)
    if isinstance(network, Registrar):
        return _registrar_parameters(network)
    count, width = 0, network.in_channels
    for features, kernel, convs in zip(network.features, network.kernel_sizes, network.convs_encoder, strict=True):
        count += _stage_parameters(network.kind, width, features, math.prod(kernel), convs)
        width = features
    depths = range(len(network.features) - 2, -1, -1)
    for stage, convs in zip(depths, network.convs_decoder, strict=True):
        features, kernel = network.features[stage], network.kernel_sizes[stage]
        count += math.prod(network.strides[stage + 1]) * network.features[stage + 1] * features + features
        count += _stage_parameters("plain_unet", 2 * features, features, math.prod(kernel), convs)
        if stage == 0 or network.deep_supervision:
            count += network.out_channels * (features + 1)
    return count


def _most_parameters(network: Classifier) -> int:
    """Bound from above for a classifier; wide 1 x 1 convolutions and attention within a block count as 12 squares of the width,
    as in a block of a vision transformer (Dosovitskiy et al. 2021)."""
    count, width = 0, network.in_channels
    for features, kernel, blocks in zip(network.features, network.kernel_sizes, network.blocks, strict=True):
        grown = features + network.growth * blocks
        size = max(math.prod(kernel), 12)
        count += size * (width + grown) * grown + blocks * 2 * size * grown**2
        width = grown
    return count + (width + 1) * network.out_channels


def _registrar_parameters(network: Registrar) -> int:
    """Convolutions with bias, norms where there are, transposed convolutions, the velocity's convolution, the affine part."""
    norms = 2 if network.norm == "instance" else 0
    count, width = 0, 2 * network.in_channels
    for features, kernel, convs in zip(network.features, network.kernel_sizes, network.convs_encoder, strict=True):
        count += _plain_parameters(width, features, math.prod(kernel), convs, norms)
        width = features
    stage = len(network.features) - 1
    for convs in network.convs_decoder:
        stage, above = stage - 1, network.features[stage]
        features = network.features[stage]
        count += math.prod(network.strides[stage + 1]) * above * features + features
        count += _plain_parameters(2 * features, features, math.prod(network.kernel_sizes[stage]), convs, norms)
    count += (math.prod(network.kernel_sizes[stage]) * network.features[stage] + 1) * network.dims
    if network.affine_features:
        widths = (2 * network.in_channels, *network.affine_features)
        count += sum(_plain_parameters(before, after, 3**network.dims, 1, 0) for before, after in pairwise(widths))
        count += (widths[-1] * (network.dims + 1) + 1) * network.dims * (network.dims + 1)
    return count + (0 if network.similarity is None else _similarity_parameters(network.similarity))


def _similarity_parameters(network: SimilarityNetwork) -> int:
    """Layers of a classifier of patches with bias and its last layer, or the stages of an encoder."""
    patches = network.kind == "patches"
    count, width = 0, 2 * network.in_channels if patches else network.in_channels
    for features, kernel, blocks in zip(network.features, network.kernel_sizes, network.blocks, strict=True):
        count += _plain_parameters(width, features, math.prod(kernel), 1, 0) if patches else _stage_parameters(
            "plain_unet" if network.kind == "plain_encoder" else "residual_unet", width, features, math.prod(kernel), blocks)
        width = features
    return count + (width + 1 if patches else 0)


def _plain_parameters(width: int, features: int, kernel_voxels: int, convs: int, norms: int) -> int:
    """Convolutions with bias and `norms` parameters per feature after each."""
    return sum(kernel_voxels * one * features + (1 + norms) * features for one in [width, *[features] * (convs - 1)])


def _stage_parameters(kind: str, width: int, features: int, kernel_voxels: int, convs: int) -> int:
    """Convolutions with bias, each with the two parameters per feature of its norm."""
    if kind == "plain_unet":
        return _plain_parameters(width, features, kernel_voxels, convs, 2)
    blocks = [width, *[features] * (convs - 1)]
    main = sum(kernel_voxels * (one + features) * features + 6 * features for one in blocks)
    return main + (width * features + 3 * features if width != features else 0)
