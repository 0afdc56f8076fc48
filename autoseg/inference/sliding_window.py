"""Prediction of a whole image by overlapping windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from autoseg.core.geometry import Shape
from autoseg.ops.slabs import LogitSlabs, planes_per_slab

# Sums of windows in float32 may take this much memory; above, they are kept in float16, as nnU-Net keeps all of them.
# 2 GiB are 60 classes, 512 x 512 voxels and 34 planes; in float16 a patch of 68 planes stays within, a deeper one takes more.
LARGEST_SUMS_BYTES = 2**31
# Largest difference within a window of one value / that value. A constant that went through cubic resampling differs by
# some 3e-7 of itself, because the float32 weights do not add up to exactly 1. Zeros stay zeros.
CONSTANT_TOLERANCE = 4e-6
_CONSTANT = "constant"

# A network in use: (B, C, *spatial) -> (B, K, *spatial), any floating type.
Forward: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Axis:
    """Windows along one axis: where they start, and the share (patch,) that each one has in every voxel it covers."""

    starts: tuple[int, ...]
    shares: tuple[NDArray[np.float64], ...]


@dataclass(frozen=True)
class _Windows:
    """Where the windows of an image stand.

    Attributes:
        axes: along z, y, x.
        patch_size: of a window, z, y, x.
        inside: where the image lies in the surrounding zeros, z, y, x.
    """

    axes: tuple[_Axis, ...]
    patch_size: Shape
    inside: tuple[slice, ...]

    @property
    def tiles(self) -> list[tuple[int, ...]]:
        """Place of each window along each axis; those that start on the same plane follow each other."""
        return list(product(*(range(len(axis.starts)) for axis in self.axes)))

    @property
    def overlap(self) -> bool:
        return any(not np.all(share == 1) for axis in self.axes for share in axis.shares)

    def window(self, tile: tuple[int, ...]) -> tuple[slice, ...]:
        """Slices (z, y, x) of one window."""
        starts = [axis.starts[index] for axis, index in zip(self.axes, tile, strict=True)]
        return tuple(slice(start, start + patch) for start, patch in zip(starts, self.patch_size, strict=True))

    def shares(self, tile: tuple[int, ...], device: torch.device) -> Tensor:
        """Share (z, y, x) of one window in the voxels it covers."""
        z, y, x = (axis.shares[index] for axis, index in zip(self.axes, tile, strict=True))
        return torch.from_numpy((z[:, None, None] * y[:, None] * x).astype(np.float32)).to(device)


def predict_slabs(forward: Forward, voxels: Tensor | NDArray, *, patch_size: Shape, tile_step: float,
                  gaussian_sigma: float, tiles_per_batch: int, out_channels: int, dims: int,
                  device: torch.device | str | None = None, reuse_constant: bool = True) -> LogitSlabs:
    """Logits of a whole image (K, Z, Y, X), slab by slab; the network runs while slabs are drawn.

    Windows overlap evenly and count more in their middle; the shares of all windows at a voxel add up to 1. An image
    smaller than the patch is surrounded by zeros, half at each side. Windows stand in order of their first plane, and
    planes that no later window reaches are released, so that sums exist for as many planes as the patch has. They are
    float32, or float16 where they would take more than `LARGEST_SUMS_BYTES`: half of the memory, and an error of some
    2e-3 of the largest logit, which changes labels where two classes are that close.

    Args:
        forward: receives (B, C, *spatial) with B at most `tiles_per_batch`, returns (B, out_channels, *spatial).
        voxels: float32 (C, Z, Y, X).
        patch_size: of a window, z, y, x; 1 along z when `dims` is 2.
        tile_step: largest distance of neighbouring windows / patch size, in (0, 1].
        gaussian_sigma: width of a window's weights / patch size.
        dims: 3, or 2 for a network that sees slices (Y, X) of axis 0.
        device: where `forward` runs; None: where `voxels` lie.
        reuse_constant: windows of nothing but one value (air, padding, outside of a mask) go through the network once,
            and its answer serves for all of them. A network answers equal windows equally, so this changes no label.
    Source: nnU-Net v2, `inference/sliding_window_prediction.py`; accumulated in float16 there.
    """
    volume = voxels if isinstance(voxels, Tensor) else torch.from_numpy(np.require(voxels, np.float32, ["C", "W"]))
    padded, inside = _pad(volume, patch_size)
    axes = tuple(_axis(size, patch, tile_step, gaussian_sigma)
                 for size, patch in zip(padded.shape[1:], patch_size, strict=True))
    windows = _Windows(axes, patch_size, inside[1:])
    ask = partial(_run, forward, dims=dims, device=device)
    answers = _answers(ask, padded, windows, tiles_per_batch, reuse_constant)
    parts = _slabs(answers, _Sums(out_channels, padded, windows), windows)
    # `map` keeps no slab, as the variable of a loop would: the one before is gone when the next one is made.
    return LogitSlabs((out_channels, *volume.shape[1:]), map(_to_numpy, parts))


def _to_numpy(part: Tensor) -> NDArray[np.float32]:
    return part.cpu().numpy()


def predict_logits(forward: Forward, voxels: Tensor | NDArray, **plan: Any) -> Tensor:
    """Logits of a whole image in one piece, float32 (K, Z, Y, X), for tasks with few outputs; see `predict_slabs`."""
    logits = torch.from_numpy(predict_slabs(forward, voxels, **plan).whole())
    return logits.to(voxels.device) if isinstance(voxels, Tensor) else logits


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


def _slabs(answers: Iterable[tuple[tuple[int, ...], Tensor]], sums: _Sums, windows: _Windows) -> Iterator[Tensor]:
    """Adds up windows in order of their first plane; yields what is finished as float32 (K, z, Y, X)."""
    overlap = windows.overlap
    for tile, result in answers:
        window = windows.window(tile)
        yield from sums.release(window[0].start)
        result = result.to(sums.device, torch.float32)
        if overlap:
            sums.at(window).add_(result * windows.shares(tile, sums.device))
        else:
            sums.at(window).copy_(result)
    yield from sums.release(sums.depth)


class _Sums:
    """Sums of windows on as many planes as a window has; the first of them moves on as planes are released.

    Attributes:
        depth: planes of the image with the zeros around it.
    """

    def __init__(self, classes: int, padded: Tensor, windows: _Windows) -> None:
        shape = (classes, windows.patch_size[0], *padded.shape[2:])
        dtype = torch.float32 if 4 * math.prod(shape) <= LARGEST_SUMS_BYTES else torch.float16
        self._sums = torch.zeros(shape, dtype=dtype, device=padded.device)
        self._first = 0
        self._inside = windows.inside
        self.depth = padded.shape[1]
        self.device = padded.device

    def at(self, window: tuple[slice, ...]) -> Tensor:
        """The sums (K, z, y, x) of a window that starts on the first plane."""
        return self._sums[:, :, window[1], window[2]]

    def release(self, first: int) -> Iterator[Tensor]:
        """Slabs of the image's planes before `first`, which no later window reaches; `first` becomes the first plane."""
        z, y, x = self._inside
        count, depth = first - self._first, self._sums.shape[1]
        start, stop = (min(max(bound - self._first, 0), count) for bound in (z.start, z.stop))
        step = planes_per_slab(self._sums.shape[0], y.stop - y.start, x.stop - x.start)
        for place in range(start, stop, step):
            yield self._sums[:, place:min(place + step, stop), y, x].to(torch.float32, copy=True)
        if 0 < count < depth:
            for place in range(depth - count):  # plane by plane: source and destination overlap
                self._sums[:, place] = self._sums[:, place + count]
        self._sums[:, max(depth - count, 0):] = 0
        self._first = first


def _answers(ask: Callable[[Sequence[Tensor]], Iterator[Tensor]], padded: Tensor, windows: _Windows, tiles_per_batch: int,
             reuse_constant: bool) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Every window's tile with the network's logits (K, z, y, x), in order of the tiles.

    Of the windows of one value the latest answer is kept: nearly all of them hold the same background.
    """
    known: dict[tuple, Tensor] = {}
    unknown: dict[tuple, Tensor] = {}
    waiting: list[tuple[tuple[int, ...], tuple]] = []
    tiles = windows.tiles
    for place, tile in enumerate(tiles):
        window = padded[(slice(None), *windows.window(tile))]
        key = (_constant_value(window) if reuse_constant else None) or tile
        if key not in known:
            unknown.setdefault(key, window)
        waiting.append((tile, key))
        if len(unknown) < tiles_per_batch and unknown and place + 1 < len(tiles):
            continue
        if unknown:
            answers = dict(zip(unknown, ask(list(unknown.values())), strict=True))
            known |= answers
        yield from ((tile, known[key]) for tile, key in waiting)
        known = {key: known[key] for key in [key for key in known if key[0] == _CONSTANT][-1:]}
        unknown, waiting = {}, []


def _constant_value(window: Tensor) -> tuple | None:
    """Names the value of each channel of a window (C, z, y, x) that has but one; None where it has several."""
    lowest, highest = window.amin(dim=(1, 2, 3)), window.amax(dim=(1, 2, 3))
    if bool((highest - lowest > CONSTANT_TOLERANCE * highest.abs()).any()):
        return None
    return (_CONSTANT, *(f"{value:.6g}" for value in highest.tolist()))


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


def _run(forward: Forward, windows: Sequence[Tensor], dims: int, device: torch.device | str | None) -> Iterator[Tensor]:
    """Logits (K, z, y, x) of each window."""
    with torch.inference_mode():  # here and not around the loop: a generator that pauses would leave the mode on outside
        batch = torch.stack(list(windows))
        if device is not None:
            batch = batch.to(device)
        if dims == 2:
            return iter(forward(batch.squeeze(2)).unsqueeze(2))
        return iter(forward(batch))
