"""Pairs of patches of two images that lie on each other: aligned ones, and ones of which one was moved away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class PatchRules:
    """Which patches are drawn; every number is planned.

    Attributes:
        count: patches; the second half is misaligned.
        size: voxels along each axis.
        shift_voxels: least and largest length of a misalignment.
    """

    count: int
    size: tuple[int, ...]
    shift_voxels: tuple[float, float]


def draw_patches(fixed: Tensor, moving: Tensor, rules: PatchRules, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Patches around the same places of two aligned images; those of the moving image are moved away in the second half.

    Places are where the fixed image is not air, its lowest value: two patches of air are aligned and are not. They lie between
    voxels and shifts are parts of voxels, since a moving image is interpolated in use. Every pair of patches is mirrored
    alike, at random along each axis.

    Args:
        fixed, moving: (C, *spatial) of one grid, no axis shorter than the patch.
    Returns:
        Two tensors (count, C, *size), and bool (count,): whether they are aligned.
    Source: Simonovsky et al. 2016, section 2.2.
    """
    centres = _places(fixed, rules, rng)
    aligned = np.arange(rules.count) < rules.count - rules.count // 2
    away = rng.normal(size=centres.shape)
    away *= rng.uniform(*rules.shift_voxels, size=(rules.count, 1)) / np.linalg.norm(away, axis=1, keepdims=True)
    moved = centres + np.where(aligned[:, None], 0.0, away)
    signs = rng.choice([-1, 1], size=centres.shape)
    return (_patches(fixed, centres, signs, rules.size), _patches(moving, moved, signs, rules.size), torch.from_numpy(aligned))


def _places(fixed: Tensor, rules: PatchRules, rng: np.random.Generator) -> NDArray[np.float64]:
    """Centres (count, D) in voxels around which a patch fits."""
    shape = np.array(fixed.shape[1:])
    margin = (np.array(rules.size) - 1) / 2
    inner = tuple(slice(math.ceil(least), size - math.ceil(least)) for least, size in zip(margin, shape, strict=True))
    inside = (fixed > fixed.amin()).any(0)[inner].numpy()
    voxels = np.argwhere(inside if inside.any() else np.ones_like(inside))
    chosen = voxels[rng.integers(len(voxels), size=rules.count)] + np.ceil(margin)
    return np.clip(chosen + rng.uniform(-0.5, 0.5, chosen.shape), margin, shape - 1 - margin)


def _patches(image: Tensor, centres: NDArray, signs: NDArray, size: Sequence[int]) -> Tensor:
    """(count, C, *size) around points in voxels, linear, turned where a sign is negative; beyond the border its values."""
    count, dims = centres.shape
    lines = []
    for axis, length in enumerate(size):
        places = centres[:, axis, None] + signs[:, axis, None] * (np.arange(length) - (length - 1) / 2)
        relative = places * (2 / max(image.shape[1 + axis] - 1, 1)) - 1
        lines.append(torch.from_numpy(relative.astype(np.float32)).reshape(count, *(-1 if a == axis else 1 for a in range(dims))))
    grid = torch.stack([line.expand(count, *size) for line in reversed(lines)], dim=-1)
    flat = grid.reshape(1, count * size[0], *grid.shape[2:])  # one image, its patches one below the other
    found = functional.grid_sample(image[None], flat, padding_mode="border", align_corners=True)
    return found.reshape(len(image), count, *size).transpose(0, 1).contiguous()
