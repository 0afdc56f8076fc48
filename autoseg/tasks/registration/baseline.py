"""The cheap model: SimpleITK's affine map and demons, as they are for any images of one contrast."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice

import numpy as np

from autoseg.core.case import Unit
from autoseg.core.geometry import Geometry
from autoseg.core.image import Image
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Arrays, Inputs
from autoseg.inference.classical import AffineMethod, DemonsMethod, register_affine, register_demons
from autoseg.ops.displacement import affine_displacement, warp
from autoseg.tasks.registration.output import FIXED, MOVING, Registration
from autoseg.tasks.registration.target import PairTarget

# Pairs on which the starting alignment and the metric are chosen.
LOOKED_AT = 4
# Voxels at the finest resolution: demons on a million take some ten seconds on one core.
MOST_VOXELS = 2**20
# Correlation is the better metric where intensities of aligned images go together; else mutual information.
LINEAR_FROM = 0.3


def fit_baseline(samples: Iterable[tuple[Unit, Inputs, PairTarget | None]], spec: DatasetSpec,
                 rng: np.random.Generator) -> Arrays:
    """What the first few pairs say about how to begin: nothing else is learned.

    Returns:
        `positions`: 1 where images lie on each other as they are better than with their centres together, else 0; `linear`: 1
        where intensities of pairs go together, else 0.
    """
    found: list[tuple[float, float]] = []
    for _, inputs, _ in islice(samples, LOOKED_AT):
        if MOVING in inputs:
            found.append(alignment_correlations(inputs[FIXED], inputs[MOVING]))
    centres, positions = (np.mean(column) for column in zip(*found, strict=True)) if found else (0.0, -1.0)
    best = max(abs(float(centres)), abs(float(positions)))
    return {"positions": np.array([int(positions > centres)], np.uint8), "linear": np.array([int(best >= LINEAR_FROM)], np.uint8)}


def alignment_correlations(fixed: Image, moving: Image) -> tuple[float, float]:
    """Correlation of two images with their centres together, and as they lie in the world."""
    together = affine_displacement(centre_shift(fixed.geometry, moving.geometry), fixed.geometry)
    found = []
    for displacement in (together, None):
        warped = warp(moving.voxels[:1].astype(np.float32), moving.geometry, displacement, fixed.geometry, interpolation="linear",
                      outside=None)[0]
        found.append(correlation(fixed.voxels[0], warped))
    return found[0], found[1]


def centre_shift(fixed: Geometry, moving: Geometry) -> np.ndarray:
    """The map (3, 4) that brings the centre of one grid to that of another one, mm."""
    centres = []
    for geometry in (fixed, moving):
        z, y, x = ((size - 1) / 2 for size in geometry.shape)
        centres.append(np.array(geometry.position_mm((z, y, x))))
    return np.concatenate([np.eye(3), (centres[1] - centres[0])[:, None]], axis=1)


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's coefficient of two arrays; 0 where one has one value."""
    a, b = (values.astype(np.float64).ravel() - values.mean(dtype=np.float64) for values in (first, second))
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm else 0.0


def apply_baseline(arrays: Arrays, inputs: Inputs, spec: DatasetSpec) -> Registration:
    """An affine map; where intensities go together demons after it."""
    fixed, moving = inputs[FIXED], inputs[MOVING]
    factors = shrink_factors(fixed.geometry)
    linear = bool(arrays["linear"][0])
    affine = register_affine(fixed, moving, AffineMethod(
        "positions" if arrays["positions"][0] else "centres", "correlation" if linear else "mutual_information", 100, factors,
        tuple(factor / 2 for factor in factors), 32, 1.0))
    if not linear:
        return Registration(affine_displacement(affine, fixed.geometry))
    return Registration(register_demons(fixed, moving, affine, DemonsMethod(
        "diffeomorphic", (60,) * len(factors), factors, 1.0, 0.0, True)))


def shrink_factors(geometry: Geometry) -> tuple[int, ...]:
    """Coarse to fine: the finest has at most `MOST_VOXELS`, the coarsest half of its resolution."""
    finest = 1
    while math.prod(math.ceil(size / finest) for size in geometry.shape) > MOST_VOXELS:
        finest += 1
    return (2 * finest, finest) if min(size for size in geometry.shape if size > 1) >= 16 * finest else (finest,)
