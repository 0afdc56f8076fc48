"""Random smooth deformations that are known: what a registration is taught with, and tested by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.losses.local_correlation import local_mean
from autoseg.nn.warp import exponential

# A step of the integration moves no voxel by more than half a voxel, as the next one is read between its neighbours.
_LARGEST_STEP_VOXELS = 0.5


@dataclass(frozen=True)
class DeformationRules:
    """Which deformations are drawn; every number is planned.

    Attributes:
        length_mm: least and largest root mean square length of the velocity, drawn evenly.
        widths_mm: standard deviations of the Gaussians that smooth the noise, one for each scale; each gets a random share.
    """

    length_mm: tuple[float, float]
    widths_mm: tuple[float, ...]


def draw_displacement(shape: Sequence[int], spacing_mm: Sequence[float], rules: DeformationRules,
                      rng: np.random.Generator) -> NDArray[np.float32]:
    """A diffeomorphic displacement (D, *shape) in voxels, as `nn.warp` has them.

    Its inverse is the exponential of minus its velocity.

    warp(image, u) is the fixed image to which the image itself is the moving one, and u the truth.
    Source: RegNet (Sokooti et al. 2017) draws fields of several scales; smoothed noise as a velocity as in SynthMorph
        (Hoffmann et al. 2022, section 3.1), with lengths in mm.
    """
    velocity = draw_velocity(shape, spacing_mm, rules, rng)
    steps = integration_steps(velocity)
    return exponential(torch.from_numpy(velocity)[None], steps)[0].numpy()


def draw_velocity(shape: Sequence[int], spacing_mm: Sequence[float], rules: DeformationRules,
                  rng: np.random.Generator) -> NDArray[np.float32]:
    """A stationary velocity (D, *shape) in voxels: smoothed noise of every scale, weighted at random."""
    axes, spacing = len(shape), np.asarray(spacing_mm, dtype=np.float64)
    total = torch.zeros(1, axes, *shape)
    for width, share in zip(rules.widths_mm, rng.uniform(size=len(rules.widths_mm)), strict=True):
        noise = torch.from_numpy(rng.standard_normal((1, axes, *shape), dtype=np.float32))
        smooth = local_mean(noise, [width / step for step in spacing], "gaussian")
        total += float(share) * smooth / smooth.square().sum(1).mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    length = float(rng.uniform(*rules.length_mm))
    norm = float(total.square().sum(1).mean().sqrt())
    in_mm = total[0].numpy() * (length / max(norm, float(np.finfo(np.float32).tiny)))
    return (in_mm / spacing.reshape(-1, *(1,) * axes)).astype(np.float32)


def integration_steps(velocity: NDArray[np.float32]) -> int:
    """Doublings after which no voxel moves by more than half a voxel in one step."""
    largest = float(np.abs(velocity).max(initial=0.0))
    return max(0, math.ceil(math.log2(max(largest, _LARGEST_STEP_VOXELS) / _LARGEST_STEP_VOXELS)))
