"""An image in memory: voxels and the grid they lie on."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import NDArray

from autoseg.core.errors import GeometryError
from autoseg.core.geometry import Geometry, Orientation


@dataclass(frozen=True)
class Image:
    """Voxels in canonical orientation with the way back to the stored file.

    Attributes:
        voxels: (C, Z, Y, X); a 2-D image has Z = 1.
        geometry: the canonical grid.
        orientation: how the stored array was turned.
        stored: the grid as in the file.
    """

    voxels: NDArray
    geometry: Geometry
    orientation: Orientation
    stored: Geometry

    def __post_init__(self) -> None:
        if self.voxels.ndim != 4 or self.voxels.shape[1:] != self.geometry.shape:
            raise GeometryError(f"voxels of shape {self.voxels.shape} (c, z, y, x) do not lie on a grid of "
                                f"{self.geometry.shape} (z, y, x)")

    @classmethod
    def canonical(cls, voxels: NDArray, geometry: Geometry) -> Image:
        """An image whose array already is canonical, e.g. one made in memory."""
        return cls(voxels, geometry, Orientation(), geometry)
