"""Prediction with everything in memory at once: the second implementation that the streaming one is compared with."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch

from autoseg.inference.sliding_window import window_starts, window_weights
from autoseg.ops.crop import paste
from autoseg.ops.resample import resample, separate_axis


def naive_logits(forward, voxels, *, patch_size, tile_step, gaussian_sigma, tiles_per_batch, out_channels, dims):
    """Logits (K, Z, Y, X): one sum for the whole image, every window through the network."""
    missing = [max(patch - size, 0) for patch, size in zip(patch_size, voxels.shape[1:], strict=True)]
    padded = np.pad(voxels, [(0, 0), *((m // 2, m - m // 2) for m in missing)])
    starts = [window_starts(size, patch, tile_step) for size, patch in zip(padded.shape[1:], patch_size, strict=True)]
    shares = []
    for size, patch, first in zip(padded.shape[1:], patch_size, starts, strict=True):
        weights, total = window_weights(patch, gaussian_sigma), np.zeros(size)
        for start in first:
            total[start:start + patch] += weights
        shares.append([weights / total[start:start + patch] for start in first])
    logits = torch.zeros(out_channels, *padded.shape[1:])
    places = list(product(*(range(len(first)) for first in starts)))
    for first in range(0, len(places), tiles_per_batch):
        chosen = places[first:first + tiles_per_batch]
        windows = [tuple(slice(s[i], s[i] + p) for s, i, p in zip(starts, place, patch_size, strict=True)) for place in chosen]
        batch = torch.from_numpy(np.stack([padded[(slice(None), *window)] for window in windows]))
        with torch.no_grad():
            results = forward(batch[:, :, 0])[:, :, None] if dims == 2 else forward(batch)
        for place, window, result in zip(chosen, windows, results, strict=True):
            z, y, x = (share[i] for share, i in zip(shares, place, strict=True))
            share = torch.from_numpy((z[:, None, None] * y[:, None] * x).astype(np.float32))
            logits[(slice(None), *window)] += result * share
    inside = tuple(slice(m // 2, m // 2 + size) for m, size in zip(missing, voxels.shape[1:], strict=True))
    return logits[(slice(None), *inside)].numpy()


def naive_case_logits(logits, record, rules):
    """Logits (K, Z, Y, X) on the grid of the crop, in model axis order."""
    apart = separate_axis(record.model_spacing_mm, record.turned_spacing_mm, rules.separate_z_ratio)
    return resample(logits, record.turned_shape, order=rules.output_order, order_z=rules.output_order_z,
                    separate_axis=apart)


def naive_restore(logits, record, rules, decide=lambda logits: logits.argmax(axis=0)):
    """Label map on the case grid: all logits on the case grid, decided, turned and pasted."""
    back = tuple(int(axis) for axis in np.argsort(record.transpose))
    label = decide(naive_case_logits(logits, record, rules)).astype(np.uint8)
    return paste(label.transpose(back), record.crop_box, record.canonical.shape, 0)


def margin(logits):
    """Distance of the two largest of K logits at every voxel: rounding may decide where it is tiny."""
    two = np.sort(logits, axis=0)[-2:]
    return two[1] - two[0]
