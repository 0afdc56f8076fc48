"""Intensity normalisation, before resampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import IncompatibleError, choose
from autoseg.core.plan import Normalization

# nnU-Net v2, default_normalization_schemes.py: a constant image divides by this.
_SMALLEST = 1e-8


@dataclass(frozen=True)
class Scaling:
    """What normalisation does to every voxel of a channel: clip, subtract, divide.

    Attributes:
        lower, upper: that values are clipped to; None: not at all.
        subtract, divide: as float32 arithmetic.
        zero_outside: voxels outside of the mask become 0.
    """

    lower: float | None = None
    upper: float | None = None
    subtract: float = 0.0
    divide: float = 1.0
    zero_outside: bool = False

    def apply(self, voxels: NDArray, mask: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """Normalised copy of any part of the channel, float32; `mask` is the same part of the mask."""
        scaled = voxels.astype(np.float32, copy=True)
        if self.lower is not None:
            np.clip(scaled, self.lower, self.upper, out=scaled)
        scaled -= np.float32(self.subtract)
        scaled /= np.float32(self.divide)
        if self.zero_outside and mask is not None:
            scaled[~mask] = 0
        return scaled


def normalize(voxels: NDArray, channels: Sequence[Normalization],
              mask: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Normalised copy of (C, Z, Y, X), float32.

    Args:
        channels: how each channel is normalised.
        mask: bool (Z, Y, X), where channels with `use_mask` are measured and kept; None: everywhere.
    Raises:
        IncompatibleError: the number of channels differs from the plan's.
    Source: nnU-Net v2, `default_normalization_schemes.py`.
    """
    require_channels(voxels, channels)
    return np.stack([measure_scaling(channel, planned, mask).apply(channel, mask)
                     for channel, planned in zip(voxels, channels, strict=True)])


def require_channels(voxels: NDArray, channels: Sequence[Normalization]) -> None:
    """Raises IncompatibleError where an image has another number of channels than the plan normalises."""
    if len(voxels) != len(channels):
        raise IncompatibleError(f"the image has {len(voxels)} channels and the plan normalises {len(channels)}; "
                                "give the channels that the model was trained on, in their order")


def measure_scaling(channel: NDArray, planned: Normalization, mask: NDArray[np.bool_] | None = None) -> Scaling:
    """How a channel (Z, Y, X) of any number type is normalised; no copy of it is made.

    Args:
        mask: bool (Z, Y, X), for channels with `use_mask`; None: everywhere.
    """
    return choose(_SCHEMES, planned.scheme, "normalization scheme")(channel, planned, mask)


def _zscore(channel: NDArray, planned: Normalization, mask: NDArray[np.bool_] | None) -> Scaling:
    """Mean 0 and standard deviation 1; with a mask, measured inside it, and 0 outside."""
    inside = mask if planned.use_mask else None
    count = channel.size if inside is None else int(np.count_nonzero(inside))
    if not count:
        return Scaling(zero_outside=True)
    mean = math.fsum(plane.sum() for plane in _planes(channel, inside)) / count
    squares = math.fsum(np.square(plane - mean).sum() for plane in _planes(channel, inside))
    return Scaling(subtract=mean, divide=max(math.sqrt(squares / count), _SMALLEST), zero_outside=inside is not None)


def _planes(channel: NDArray, mask: NDArray[np.bool_] | None) -> Iterator[NDArray[np.float64]]:
    """Voxels of one slice after the other, of those inside the mask, as float32 holds them."""
    for place, plane in enumerate(channel):
        inside = plane if mask is None else plane[mask[place]]
        yield inside.astype(np.float32).astype(np.float64)


def _ct(channel: NDArray, planned: Normalization, mask: NDArray[np.bool_] | None) -> Scaling:
    """Clipped to the dataset's foreground percentiles, then the dataset's mean and standard deviation."""
    if planned.lower is None or planned.upper is None or planned.mean is None or planned.std is None:
        raise IncompatibleError(f"scheme 'ct' needs lower, upper, mean and std, found {planned}; plan again")
    return Scaling(planned.lower, planned.upper, planned.mean, max(planned.std, _SMALLEST))


def _rescale(channel: NDArray, planned: Normalization, mask: NDArray[np.bool_] | None) -> Scaling:
    """Smallest value to 0, largest to 1."""
    lowest, highest = np.float32(channel.min()), np.float32(channel.max())
    return Scaling(subtract=float(lowest), divide=max(float(highest - lowest), _SMALLEST))


def _rgb(channel: NDArray, planned: Normalization, mask: NDArray[np.bool_] | None) -> Scaling:
    """8-bit colours to [0, 1]."""
    return Scaling(divide=255.0)


def _nothing(channel: NDArray, planned: Normalization, mask: NDArray[np.bool_] | None) -> Scaling:
    """As stored."""
    return Scaling()


_Scheme = Callable[[NDArray, Normalization, "NDArray[np.bool_] | None"], Scaling]
_SCHEMES: dict[str, _Scheme] = {"zscore": _zscore, "ct": _ct, "rescale_to_0_1": _rescale, "rgb_to_0_1": _rgb,
                                "none": _nothing}
