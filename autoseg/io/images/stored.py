"""What a format's reader returns: voxels as stored, and their grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import GeometryError
from autoseg.core.geometry import Geometry, Shape, Spacing, as_direction

# Cosine between two axes above which a grid counts as sheared: 0.06 degrees, half a voxel over 500. The 32-bit floats of
# NIfTI headers stay below 1e-5.
SHEAR_TOLERANCE = 1e-3

# Of files that say none. nnU-Net 2.8.1 writes 999 mm across a picture, so that this axis counts as the coarse one; the
# planner knows an axis of one voxel by its size, and areas and volumes keep sensible numbers with 1 mm.
UNKNOWN_SPACING_MM: Spacing = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class StoredImage:
    """What a file holds, and the stored grid.

    Attributes:
        voxels: (C, Z, Y, X) as stored, values as the file's numbers mean them; indices where there is a palette.
        alpha: opacity (Z, Y, X); None where there is none.
        palette: colours (n, 3) of the indices; None where voxels are values themselves.
        is_colour: the three channels are red, green and blue.
        step: grey samples of 2 and 4 bits are meant to be multiplied by this, to fill 8 bits (PNG 3rd edition, 13.12).
        is_grid_stated: False where the file says no spacing, so that `geometry` has 1 mm and lies anywhere.
    """

    voxels: NDArray
    geometry: Geometry
    alpha: NDArray | None = None
    palette: NDArray | None = None
    is_colour: bool = False
    step: int = 1
    is_grid_stated: bool = True


def plain_geometry(shape: Shape, spacing_mm: Spacing = UNKNOWN_SPACING_MM) -> Geometry:
    """The grid of a picture: rows run to posterior and columns to left, as in an axial slice seen from the feet."""
    return Geometry(shape, spacing_mm)


def is_plain(geometry: Geometry) -> bool:
    """True for a grid without a place and an orientation of its own, which a PNG or TIFF can hold."""
    return geometry.agrees_with(plain_geometry(geometry.shape, geometry.spacing_mm))


def geometry_of(shape: Shape, matrix: NDArray[np.float64], source: str) -> Geometry:
    """The grid of a file from its affine.

    Args:
        shape: z, y, x.
        matrix: (3, 4), from (z, y, x) indices to (S, P, L) millimetres.
        source: names the file in messages.
    Raises:
        GeometryError: the affine is not finite, singular or sheared.
    """
    if not np.isfinite(matrix).all():
        raise GeometryError(f"{source}: the affine in the header has values that are not finite; repair the header",
                            code="E_AFFINE")
    spacing = np.linalg.norm(matrix[:, :3], axis=0)
    if (spacing == 0).any():
        raise GeometryError(f"{source}: spacing {tuple(spacing)} mm (z, y, x) must be positive; repair the header",
                            code="E_AFFINE")
    direction = matrix[:, :3] / spacing
    shear = np.abs(direction.T @ direction - np.eye(3)).max()
    if shear > SHEAR_TOLERANCE:
        angle = np.degrees(np.arcsin(min(1.0, shear)))
        raise GeometryError(f"{source}: the grid is sheared, two axes are {90 - angle:.2f} degrees apart and not 90; "
                            "resample the image to an orthogonal grid", code="E_SHEAR")
    return Geometry(shape, _triple(spacing), _triple(matrix[:, 3]), as_direction(direction))


def _triple(values: NDArray) -> tuple[float, float, float]:
    return (float(values[0]), float(values[1]), float(values[2]))
