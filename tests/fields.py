"""Oblique grids and smooth displacements for tests; no axis has the size or the spacing of another."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from autoseg.core.geometry import Geometry, as_direction, canonical_orientation
from autoseg.core.image import Image


def turned(angles_deg: tuple[float, float, float], axes: tuple[int, int, int] = (0, 1, 2),
           signs: tuple[int, int, int] = (1, 1, 1)):
    """A direction: permuted, flipped and rotated axes."""
    rotation = Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix()
    return as_direction(rotation[:, list(axes)] * np.array(signs))


def stored_grid(shape=(14, 18, 22), spacing_mm=(2.0, 1.4, 0.9), origin_mm=(-12.0, 31.0, 5.0), angles_deg=(0.0, 0.0, 0.0),
                axes=(0, 1, 2), signs=(1, 1, 1)) -> Geometry:
    return Geometry(shape, spacing_mm, origin_mm, turned(angles_deg, axes, signs))


def image_on(stored: Geometry, seed: int = 0, channels: int = 1) -> Image:
    """A smooth image of values between 0 and 1."""
    orientation = canonical_orientation(stored.direction)
    geometry = orientation.apply_to_geometry(stored)
    noise = np.random.default_rng(seed).normal(size=(channels, *geometry.shape))
    smooth = np.stack([ndimage.gaussian_filter(channel, 1.5) for channel in noise])
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return Image(smooth.astype(np.float32), geometry, orientation, stored)


def smooth_displacement(geometry: Geometry, largest_mm: float, seed: int = 1, sigma: float = 3.0) -> np.ndarray:
    """(3, Z, Y, X) that does not fold for a few millimetres."""
    noise = np.random.default_rng(seed).normal(size=(3, *geometry.shape))
    smooth = np.stack([ndimage.gaussian_filter(part, [min(sigma, size / 2) for size in geometry.shape]) for part in noise])
    return (smooth * largest_mm / np.abs(smooth).max()).astype(np.float32)


def naive_value(channel: np.ndarray, index: np.ndarray) -> float:
    """Linear interpolation at one place (z, y, x), the border repeated: a loop over eight neighbours."""
    index = np.clip(index, 0, np.array(channel.shape) - 1)
    lower = np.floor(index).astype(int)
    value = 0.0
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod([share if side else 1 - share for side, share in zip(corner, index - lower, strict=True)])
        place = np.minimum(lower + corner, np.array(channel.shape) - 1)
        value += weight * float(channel[tuple(place)])
    return value
