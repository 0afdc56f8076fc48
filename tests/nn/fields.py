"""Small images and smooth displacements of odd shapes, so that a swapped axis fails."""

from __future__ import annotations

import itertools
import math

import torch

SHAPES = {2: (9, 12), 3: (7, 9, 11)}


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def smooth_field(dims, *, batch=1, amplitude=1.0, seed=0, shape=None):
    """Sines of one and two halves over each axis, zero at the border, so that nothing leaves the image."""
    shape = shape or SHAPES[dims]
    field = noise(batch, dims, *(2,) * dims, seed=seed)
    for axis, size in enumerate(shape):
        waves = torch.stack([torch.sin(torch.linspace(0, math.pi * number, size)) for number in (1, 2)])
        field = torch.tensordot(field, waves, dims=([2], [0]))  # takes the first coarse axis away and puts the fine one last
        assert field.shape[-1] == shape[axis]
    return field * (amplitude / field.abs().max())


def interpolated(image, position):
    """Linear interpolation of an array (*spatial) at one position, corner by corner; the border is replicated."""
    position = [min(max(p, 0.0), size - 1.0) for p, size in zip(position, image.shape, strict=True)]
    value = 0.0
    for corner in itertools.product((0, 1), repeat=image.ndim):
        weight, index = 1.0, []
        for p, side, size in zip(position, corner, image.shape, strict=True):
            low = math.floor(p)
            weight *= (p - low) if side else 1 - (p - low)
            index.append(min(low + side, size - 1))
        value += weight * float(image[tuple(index)])
    return value
