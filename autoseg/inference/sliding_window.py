"""Prediction of a whole image by overlapping windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from autoseg.core.geometry import Shape

# A network in use: (B, C, *spatial) -> (B, K, *spatial), any floating type.
Forward: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Axis:
    """Windows along one axis: where they start, and the share (patch,) that each one has in every voxel it covers."""

    starts: tuple[int, ...]
    shares: tuple[NDArray[np.float64], ...]


def predict_logits(forward: Forward, voxels: Tensor | NDArray, *, patch_size: Shape, tile_step: float,
                   gaussian_sigma: float, tiles_per_batch: int, out_channels: int, dims: int,
                   device: torch.device | str | None = None) -> Tensor:
    """Logits of a whole image: float32 (K, Z, Y, X), where `voxels` lie.

    Windows overlap evenly and count more in their middle; the shares of all windows at a voxel add up to 1. An image
    smaller than the patch is surrounded by zeros, half at each side.

    Args:
        forward: receives (B, C, *spatial) with B at most `tiles_per_batch`, returns (B, out_channels, *spatial).
        voxels: float32 (C, Z, Y, X).
        patch_size: of a window, z, y, x; 1 along z when `dims` is 2.
        tile_step: largest distance of neighbouring windows / patch size, in (0, 1].
        gaussian_sigma: width of a window's weights / patch size.
        dims: 3, or 2 for a network that sees slices (Y, X) of axis 0.
        device: where `forward` runs; None: where `voxels` lie.
    Source: nnU-Net v2, `inference/sliding_window_prediction.py`; accumulated in float32 instead of float16.
    """
    volume = voxels if isinstance(voxels, Tensor) else torch.from_numpy(np.require(voxels, np.float32, ["C", "W"]))
    padded, inside = _pad(volume, patch_size)
    axes = [_axis(size, patch, tile_step, gaussian_sigma)
            for size, patch in zip(padded.shape[1:], patch_size, strict=True)]
    overlap = any(not np.all(share == 1) for axis in axes for share in axis.shares)
    tiles = list(product(*(range(len(axis.starts)) for axis in axes)))
    logits = torch.zeros((out_channels, *padded.shape[1:]), dtype=torch.float32, device=volume.device)
    with torch.inference_mode():
        for first in range(0, len(tiles), tiles_per_batch):
            chosen = tiles[first:first + tiles_per_batch]
            windows = [_window(axes, tile, patch_size) for tile in chosen]
            results = _run(forward, [padded[window] for window in windows], dims, device)
            for tile, window, result in zip(chosen, windows, results, strict=True):
                result = result.to(logits.device, torch.float32)
                if overlap:
                    logits[window] += result * _shares(axes, tile, logits.device)
                else:
                    logits[window] = result
    return logits[inside]


def window_starts(size: int, patch: int, tile_step: float) -> tuple[int, ...]:
    """Starts of evenly spread windows that cover `size` voxels, at most about `patch * tile_step` apart.

    Windows of one voxel stand at every voxel. `size` must be at least `patch`.
    Source: nnU-Net v2, `compute_steps_for_sliding_window`.
    """
    if patch == 1:
        return tuple(range(size))
    count = math.ceil((size - patch) / (patch * tile_step)) + 1
    if count == 1:
        return (0,)
    starts = (round((size - patch) / (count - 1) * index) for index in range(count))
    return tuple(dict.fromkeys(starts))  # in patches of a few voxels, steps below one voxel repeat a start


def window_weights(patch: int, gaussian_sigma: float) -> NDArray[np.float64]:
    """Weights (patch,) of one axis of a window, largest at `patch // 2`; a window's weight is the product over axes.

    A Gaussian of `patch * gaussian_sigma` voxels, cut off at four sigma; zeros become the smallest other weight.
    Source: nnU-Net v2, `compute_gaussian`, whose weights are these times a constant.
    """
    centre = np.zeros(patch)
    centre[patch // 2] = 1.0
    weights = ndimage.gaussian_filter1d(centre, patch * gaussian_sigma, mode="constant")
    weights[weights == 0] = weights[weights > 0].min()
    return weights


def _pad(volume: Tensor, patch_size: Shape) -> tuple[Tensor, tuple[slice, ...]]:
    """The volume at least as large as the patch, and where the original lies in it."""
    missing = [max(patch - size, 0) for patch, size in zip(patch_size, volume.shape[1:], strict=True)]
    before = [m // 2 for m in missing]
    inside = (slice(None), *(slice(b, b + size) for b, size in zip(before, volume.shape[1:], strict=True)))
    if not any(missing):
        return volume, inside
    padded = volume.new_zeros((volume.shape[0], *(s + m for s, m in zip(volume.shape[1:], missing, strict=True))))
    padded[inside] = volume
    return padded, inside


def _axis(size: int, patch: int, tile_step: float, gaussian_sigma: float) -> _Axis:
    starts = window_starts(size, patch, tile_step)
    weights = window_weights(patch, gaussian_sigma)
    total = np.zeros(size)
    for start in starts:
        total[start:start + patch] += weights
    return _Axis(starts, tuple(weights / total[start:start + patch] for start in starts))


def _window(axes: Sequence[_Axis], tile: tuple[int, ...], patch_size: Shape) -> tuple[slice, ...]:
    starts = [axis.starts[index] for axis, index in zip(axes, tile, strict=True)]
    return slice(None), *(slice(start, start + patch) for start, patch in zip(starts, patch_size, strict=True))


def _run(forward: Forward, windows: Sequence[Tensor], dims: int, device: torch.device | str | None) -> Iterator[Tensor]:
    """Logits (K, z, y, x) of each window."""
    batch = torch.stack(list(windows))
    if device is not None:
        batch = batch.to(device)
    if dims == 2:
        return iter(forward(batch.squeeze(2)).unsqueeze(2))
    return iter(forward(batch))


def _shares(axes: Sequence[_Axis], tile: tuple[int, ...], device: torch.device) -> Tensor:
    """Share (z, y, x) of one window in the voxels it covers."""
    z, y, x = (axis.shares[index] for axis, index in zip(axes, tile, strict=True))
    return torch.from_numpy((z[:, None, None] * y[:, None] * x).astype(np.float32)).to(device)
