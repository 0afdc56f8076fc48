"""Toy pairs whose deformation is known."""

from __future__ import annotations

import torch
from nn.fields import noise, smooth_field
from torch.nn import functional

from autoseg.nn.warp import exponential, warp


def texture(shape, seed=0):
    """Smooth noise (1, 1, *shape) with detail everywhere."""
    coarse = noise(1, 1, *(size // 3 for size in shape), seed=seed)
    return functional.interpolate(coarse, shape, mode="trilinear" if len(shape) == 3 else "bilinear", align_corners=True)


def deformed_pair(shape, amplitude=2.0, seed=0):
    """Fixed and moving images (1, 1, *shape) and the displacement between them: fixed(x) = moving(x + u(x))."""
    moving = texture(shape, seed=seed)
    truth = exponential(smooth_field(len(shape), amplitude=amplitude, seed=seed + 1, shape=shape), 6)
    return warp(moving, truth), moving, truth


def error(found, truth, margin=2):
    """Mean distance in voxels, away from the border."""
    inner = (slice(None), slice(None), *(slice(margin, -margin),) * (truth.ndim - 2))
    return float((found - truth)[inner].square().sum(1).sqrt().mean())


def length(truth, margin=2):
    return error(torch.zeros_like(truth), truth, margin)
