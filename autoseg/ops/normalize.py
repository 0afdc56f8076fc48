"""Intensity normalisation, before resampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import IncompatibleError, choose
from autoseg.core.plan import Normalization

# nnU-Net v2, default_normalization_schemes.py: a constant image divides by this.
_SMALLEST = 1e-8


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
    if len(voxels) != len(channels):
        raise IncompatibleError(f"the image has {len(voxels)} channels and the plan normalises {len(channels)}; "
                                "give the channels that the model was trained on, in their order")
    normalized = voxels.astype(np.float32, copy=True)
    for channel, planned in zip(normalized, channels, strict=True):
        choose(_SCHEMES, planned.scheme, "normalization scheme")(channel, planned, mask)
    return normalized


def _zscore(channel: NDArray[np.float32], planned: Normalization, mask: NDArray[np.bool_] | None) -> None:
    """Mean 0 and standard deviation 1; with a mask, measured inside it, and 0 outside."""
    if not planned.use_mask or mask is None or mask.all():
        _standardize(channel, channel)
        return
    inside = channel[mask]
    if inside.size:
        _standardize(inside, inside)
    channel[...] = 0
    channel[mask] = inside


def _standardize(values: NDArray[np.float32], measured: NDArray[np.float32]) -> None:
    mean = measured.mean(dtype=np.float64)
    std = measured.std(dtype=np.float64)
    values -= np.float32(mean)
    values /= np.float32(max(std, _SMALLEST))


def _ct(channel: NDArray[np.float32], planned: Normalization, mask: NDArray[np.bool_] | None) -> None:
    """Clipped to the dataset's foreground percentiles, then the dataset's mean and standard deviation."""
    if None in (planned.lower, planned.upper, planned.mean, planned.std):
        raise IncompatibleError(f"scheme 'ct' needs lower, upper, mean and std, found {planned}; plan again")
    np.clip(channel, planned.lower, planned.upper, out=channel)
    channel -= np.float32(planned.mean)
    channel /= np.float32(max(planned.std or 0.0, _SMALLEST))


def _rescale(channel: NDArray[np.float32], planned: Normalization, mask: NDArray[np.bool_] | None) -> None:
    """Smallest value to 0, largest to 1."""
    channel -= channel.min()
    channel /= np.float32(max(float(channel.max()), _SMALLEST))


def _rgb(channel: NDArray[np.float32], planned: Normalization, mask: NDArray[np.bool_] | None) -> None:
    """8-bit colours to [0, 1]."""
    channel /= np.float32(255)


def _nothing(channel: NDArray[np.float32], planned: Normalization, mask: NDArray[np.bool_] | None) -> None:
    """As stored."""


_Scheme = Callable[[NDArray[np.float32], Normalization, "NDArray[np.bool_] | None"], None]
_SCHEMES: dict[str, _Scheme] = {"zscore": _zscore, "ct": _ct, "rescale_to_0_1": _rescale, "rgb_to_0_1": _rgb,
                                "none": _nothing}
