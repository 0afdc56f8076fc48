"""Smooth logits of many classes, plane by plane from a seed: needs numpy alone, so that every program can draw the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Distance of independent values: regions come out some 2 to 5 cm wide, as organs are.
CELL_MM = 25.0
# The first class is ahead by this, in standard deviations of a logit: of 60 classes it wins in half of the image.
BACKGROUND = 1.2


@dataclass(frozen=True)
class Case:
    """A case and the grid on which a model predicts it; everything z, y, x.

    Attributes:
        shape, spacing_mm: of the case.
        model_spacing_mm: of the model grid.
    """

    classes: int
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    model_spacing_mm: tuple[float, float, float]

    @property
    def model_shape(self) -> tuple[int, int, int]:
        z, y, x = (round(old / new * size) for old, new, size in
                   zip(self.spacing_mm, self.model_spacing_mm, self.shape, strict=True))
        return z, y, x


def smooth_planes(case: Case, seed: int = 0) -> Iterator[NDArray[np.float32]]:
    """Planes (K, Y, X) of the model grid: values on a coarse grid, interpolated linearly, rounded to half precision."""
    cells = [max(2, round(size * spacing / CELL_MM) + 1)
             for size, spacing in zip(case.shape, case.spacing_mm, strict=True)]
    values = np.random.default_rng(seed).normal(size=(case.classes, *cells)).astype(np.float32)
    values[0] += BACKGROUND
    z, y, x = (_interpolation(size, count) for size, count in zip(case.model_shape, cells, strict=True))
    for weights in z:
        columns = np.tensordot(values, weights, (1, 0)) @ x.T  # (K, coarse Y, X)
        yield (y @ columns).astype(np.float16).astype(np.float32)


def _interpolation(size: int, cells: int) -> NDArray[np.float32]:
    """Linear weights (size, cells)."""
    place = np.linspace(0, cells - 1, size)[:, None]
    return np.maximum(0, 1 - np.abs(place - np.arange(cells))).astype(np.float32)
