"""Patch, strides and kernels: how often each axis can be halved, by nnU-Net's rules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# nnU-Net 2.8.1, default_experiment_planner.py and network_topology.py.
SMALLEST_EDGE = 4
INITIAL_EDGE = {3: 256, 2: 2048}
NEAR_SPACING = 2.0


@dataclass(frozen=True)
class Topology:
    """A U-Net without its width.

    Attributes:
        patch_size: voxels per axis, a multiple of `divisor`.
        strides: per stage and axis; the first stage has stride 1.
        kernel_sizes: per stage and axis, 1 or 3; the deepest stage has 3 everywhere.
    """

    patch_size: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]

    @property
    def divisor(self) -> tuple[int, ...]:
        """By what every axis of the patch is divided on the way to the deepest stage."""
        return tuple(math.prod(stage[axis] for stage in self.strides) for axis in range(len(self.patch_size)))

    @property
    def voxels(self) -> int:
        """Voxels of one patch."""
        return math.prod(self.patch_size)


def initial_patch(spacing_mm: Sequence[float], median_shape: Sequence[float]) -> tuple[float, ...]:
    """The patch before memory is considered: a cube in millimetres of 256^3 (2048^2) voxels, at most the median shape."""
    density = [1 / spacing for spacing in spacing_mm]
    dims = len(density)
    scale = (INITIAL_EDGE[dims] ** dims / math.prod(density)) ** (1 / dims)
    return tuple(min(round(d * scale), size) for d, size in zip(density, median_shape, strict=True))


def plan_topology(spacing_mm: Sequence[float], size: Sequence[float]) -> Topology:
    """Strides and kernels for a patch of about `size` voxels; the patch is padded to what the strides divide.

    Every stage halves the axes that still have 8 voxels and whose spacing is below twice the finest one of these; a single
    axis is halved only from 12 voxels on. An axis' kernel grows from 1 to 3 once its spacing is below twice the finest.
    """
    axes = range(len(spacing_mm))
    spacing, current, kernel = list(spacing_mm), list(size), [1] * len(spacing_mm)
    strides, kernels = [(1,) * len(spacing_mm)], []
    while halved := _axes_to_halve(spacing, current):
        kernel = [3 if k == 3 or s / min(spacing) < NEAR_SPACING else 1 for k, s in zip(kernel, spacing, strict=True)]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in halved else 1 for axis in axes))
        spacing = [s * stride for s, stride in zip(spacing, strides[-1], strict=True)]
        current = [math.ceil(c / 2) if axis in halved else c for axis, c in enumerate(current)]
    kernels.append((3,) * len(spacing_mm))
    divisor = [math.prod(stage[axis] for stage in strides) for axis in axes]
    patch = tuple(int(math.ceil(s / d) * d) for s, d in zip(size, divisor, strict=True))
    return Topology(patch, tuple(strides), tuple(kernels))


def _axes_to_halve(spacing_mm: Sequence[float], size: Sequence[float]) -> list[int]:
    large = [axis for axis, voxels in enumerate(size) if voxels >= 2 * SMALLEST_EDGE]
    if not large:
        return []
    finest = min(spacing_mm[axis] for axis in large)
    near = [axis for axis in large if spacing_mm[axis] / finest < NEAR_SPACING]
    return [] if len(near) == 1 and size[near[0]] < 3 * SMALLEST_EDGE else near
