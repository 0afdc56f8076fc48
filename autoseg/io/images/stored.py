"""What a format's reader returns: voxels as stored, and their grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import GeometryError
from autoseg.core.geometry import Geometry, Shape, as_direction

# Cosine between two axes above which a grid counts as sheared: 0.06 degrees, half a voxel over 500. The 32-bit floats of
# NIfTI headers stay below 1e-5.
SHEAR_TOLERANCE = 1e-3


@dataclass(frozen=True)
class StoredImage:
    """Voxels (C, Z, Y, X) as stored in a file, values as the file's numbers mean them, and the stored grid."""

    voxels: NDArray
    geometry: Geometry


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
