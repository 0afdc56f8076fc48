"""A network from two images to the deformation between them, described by a plan's `Registrar`."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from autoseg.core.errors import IncompatibleError
from autoseg.core.networks import Registrar
from autoseg.core.plan_rules import require_sound_network
from autoseg.nn.blocks import ConvBlock, InstanceNorm, conv_stage, convolution, initialise, upsampling
from autoseg.nn.similarity import build_similarity
from autoseg.nn.warp import affine_after, affine_displacement, compose, exponential, inverse_affine, resize, warp

# VoxelMorph 0.3.4: slope of its activations and deviation of the weights of its last layer, so that training begins near the
# identity.
LEAKY_SLOPE, LAST_DEVIATION = 0.2, 1e-5
# Kernel and stride of the affine encoder, as in the encoders of VoxelMorph and of the affine network of de Vos et al. 2019.
AFFINE_KERNEL, AFFINE_STRIDE = 3, 2


class Deformation(NamedTuple):
    """What a registrar answers; displacements and velocities as in `nn.warp`.

    Attributes:
        displacement: (B, D, *spatial): along the velocity, then by the affine matrix.
        velocity: stationary, (B, D, *coarse), in voxels of its own grid between the same outer voxels.
        affine: (B, D, D + 1); the identity where no affine part is planned.
    """

    displacement: Tensor
    velocity: Tensor
    affine: Tensor


class PairRegistrar(nn.Module):
    """An affine part where it is planned, then a U-Net whose last features become a velocity, which further passes correct.

    `forward` maps fixed and moving images, (B, C, *spatial) each, to a `Deformation`. Every spatial size must be a
    multiple of `divisor`. In evaluation mode it may look more often than in training, and both ways.
    """

    def __init__(self, network: Registrar) -> None:
        super().__init__()
        try:
            require_sound_network(network)
        except ValueError as error:
            raise IncompatibleError(f"the plan's network cannot be built: {error}") from error
        self.divisor = tuple(math.prod(column) for column in zip(*network.strides, strict=True))
        self.integration_steps, self.passes = network.integration_steps, network.passes
        self.answer_passes, self.both_ways = network.answer_passes or network.passes, network.both_ways
        self.affine = AffineEncoder(2 * network.in_channels, network.affine_features, network.dims) \
            if network.affine_features else None
        block = partial(ConvBlock, norm=InstanceNorm if network.norm == "instance" else _no_norm, slope=LEAKY_SLOPE)
        widths = (2 * network.in_channels, *network.features)
        self.encoder = nn.ModuleList(
            conv_stage(widths[s], widths[s + 1], count=network.convs_encoder[s], kernel=network.kernel_sizes[s],
                       stride=network.strides[s], block=block) for s in range(len(network.features)))
        decoded = range(len(network.features) - 2, len(network.features) - 2 - len(network.convs_decoder), -1)
        self.upsamplings = nn.ModuleList(
            upsampling(network.features[s + 1], network.features[s], network.strides[s + 1]) for s in decoded)
        self.decoder = nn.ModuleList(
            conv_stage(2 * network.features[s], network.features[s], count=count, kernel=network.kernel_sizes[s],
                       stride=(1,) * network.dims, block=block)
            for s, count in zip(decoded, network.convs_decoder, strict=True))
        last = decoded[-1]
        self.velocity = convolution(network.features[last], network.dims, kernel=network.kernel_sizes[last], bias=True)
        initialise(self)
        _start_near_zero(self.velocity)
        if self.affine is not None:
            _start_near_zero(self.affine.head)
        # Last: the other weights are the same with and without it. `forward` does not use it.
        self.similarity = None if network.similarity is None else build_similarity(network.similarity)

    def forward(self, fixed: Tensor, moving: Tensor) -> Deformation:
        self._check_size(fixed, moving)
        matrix = self._affine_of(fixed, moving)
        moved = moving
        if self.affine is not None:
            with _exact(fixed):
                moved = warp(moving, affine_displacement(matrix, fixed.shape[2:]).to(moving.dtype))
        velocity = self._velocity_of(fixed, moved)
        for _ in range((self.passes if self.training else self.answer_passes) - 1):
            with _exact(fixed):
                so_far = deformation(velocity, matrix, self.integration_steps, fixed.shape[2:]).displacement
                moved = warp(moving, so_far.to(moving.dtype))
            velocity = velocity + self._velocity_of(fixed, moved)
        with _exact(fixed):
            return deformation(velocity, matrix, self.integration_steps, fixed.shape[2:])

    def _affine_of(self, fixed: Tensor, moving: Tensor) -> Tensor:
        if self.affine is not None:
            return self.affine(torch.cat([fixed, moving], dim=1))
        return identity_affine(len(fixed), fixed.ndim - 2, fixed.device)

    def _velocity_of(self, fixed: Tensor, moved: Tensor) -> Tensor:
        """Of one pass, (B, D, *coarse) float32."""
        pair = torch.cat([fixed, moved], dim=1)
        if self.training or not self.both_ways:
            return self._seen(pair).float()
        there, back = self._seen(torch.cat([pair, torch.cat([moved, fixed], dim=1)])).float().chunk(2)
        return (there - back) / 2

    def _seen(self, pair: Tensor) -> Tensor:
        features, skips = pair, []
        for stage in self.encoder:
            features = stage(features)
            skips.append(features)
        skips.pop()
        for upsample, stage in zip(self.upsamplings, self.decoder, strict=True):
            features = stage(torch.cat([upsample(features), skips.pop()], dim=1))
        return self.velocity(features)

    def _check_size(self, fixed: Tensor, moving: Tensor) -> None:
        sizes = tuple(fixed.shape[2:])
        if fixed.shape != moving.shape:
            raise IncompatibleError(f"the network got a fixed image of {tuple(fixed.shape)} and a moving one of "
                                    f"{tuple(moving.shape)} (batch, channels, axes); both must be sampled on one grid")
        if len(sizes) != len(self.divisor) or any(size % d for size, d in zip(sizes, self.divisor, strict=True)):
            raise IncompatibleError(
                f"the network got images of {sizes} voxels; each axis must be a multiple of {self.divisor}, the product of its "
                "strides. Change patch_size or strides in the plan")


class AffineEncoder(nn.Module):
    """Two images, as channels, to affine matrices (B, D, D + 1): strided convolutions, moments of the last features, one layer.

    The means of the features alone do not know where in the image something is, so the head also sees their means weighted with
    the position along each axis, from -1 to 1. Shifts are in halves of the longest side.
    """

    def __init__(self, in_channels: int, features: tuple[int, ...], dims: int) -> None:
        super().__init__()
        widths = (in_channels, *features)
        block = partial(ConvBlock, norm=_no_norm, slope=LEAKY_SLOPE)
        self.encoder = nn.Sequential(*(
            block(before, after, kernel=(AFFINE_KERNEL,) * dims, stride=(AFFINE_STRIDE,) * dims)
            for before, after in pairwise(widths)))
        self.head = nn.Linear(features[-1] * (dims + 1), dims * (dims + 1))

    def forward(self, pair: Tensor) -> Tensor:
        """(B, 2C, *spatial) to float32 matrices, which begin near the identity."""
        dims = pair.ndim - 2
        change = self.head(moments(self.encoder(pair))).float().reshape(-1, dims, dims + 1)
        unit = torch.ones(dims + 1, device=pair.device)
        unit[-1] = (max(pair.shape[2:]) - 1) / 2
        return identity_affine(len(pair), dims, pair.device) + change * unit


def moments(features: Tensor) -> Tensor:
    """Means of features (B, F, *places) over places, and weighted with each coordinate from -1 to 1: (B, F (D + 1))."""
    axes = features.ndim - 2
    found = [features.flatten(2).mean(2)]
    for axis, size in enumerate(features.shape[2:]):
        line = torch.linspace(-1, 1, size, dtype=features.dtype, device=features.device) if size > 1 else features.new_zeros(1)
        others = [other + 2 for other in range(axes) if other != axis]
        found.append((features.mean(others) * line).mean(2))
    return torch.cat(found, dim=1)


def identity_affine(count: int, dims: int, device: torch.device | str = "cpu") -> Tensor:
    """`count` matrices (D, D + 1) that move nothing, float32."""
    return torch.eye(dims, dims + 1, device=device).expand(count, -1, -1)


def deformation(velocity: Tensor, affine: Tensor, steps: int, shape: tuple[int, ...]) -> Deformation:
    """Follow a velocity (or take it as the displacement, for 0 steps), then go by the affine matrix; on a grid of `shape`."""
    return Deformation(affine_after(exponential(velocity, steps, shape), affine), velocity, affine)


def inverse_displacement(found: Deformation, steps: int) -> Tensor:
    """The way back, (B, D, *spatial): by the inverse matrix, then along the velocity with the other sign.

    Args:
        steps: of the integration; 0 has no inverse of this form.
    """
    shape = found.displacement.shape[2:]
    back = resize(exponential(-found.velocity, steps), shape)
    return compose(affine_displacement(inverse_affine(found.affine), shape), back)


def _no_norm(channels: int) -> nn.Module:
    return nn.Identity()


def _start_near_zero(layer: nn.Module) -> None:
    """Weights N(0, 1e-5), no bias, in place."""
    nn.init.normal_(layer.weight, std=LAST_DEVIATION)  # type: ignore[arg-type]
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def _exact(like: Tensor) -> torch.autocast:
    """Positions need float32: in bfloat16 voxel 200 and voxel 201 are one."""
    return torch.autocast(like.device.type, enabled=False)
