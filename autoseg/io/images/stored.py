"""What a format's reader returns: voxels as stored, and their grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import GeometryError, ReadError
from autoseg.core.geometry import Geometry, Shape, Spacing, as_direction

# Cosine between two axes above which a grid counts as sheared: 0.06 degrees, half a voxel over 500. The 32-bit floats of
# NIfTI headers stay below 1e-5.
SHEAR_TOLERANCE = 1e-3

# Of files that say none. nnU-Net 2.8.1 writes 999 mm across a picture, so that this axis counts as the coarse one; the
# planner knows an axis of one voxel by its size, and areas and volumes keep sensible numbers with 1 mm.
UNKNOWN_SPACING_MM: Spacing = (1.0, 1.0, 1.0)

# 1 nm, an electron microscope's voxel, and 10 m: beyond, a header is damaged or means another unit. nnU-Net's placeholder
# across a picture, 999 mm, is inside.
SPACING_LIMITS_MM = (1e-6, 1e4)

# 8 GiB as float32, of all channels together: a file of some megabytes can claim more and even hold it ("bomb").
MAX_VOXELS = 2**31

# Deflate cannot compress more: 258 bytes by two bits (zlib Technical Details, "Maximum Compression Factor").
LARGEST_RATIO = 1032

# What may follow the voxels: a file filled up to a block of a disk or an archive. More means that the header describes
# fewer voxels than the file has.
PADDING_BYTES = 4096


@dataclass(frozen=True)
class Note:
    """Something odd about a file that can be used: `W_...` code and sentence, without the name of the file."""

    code: str
    text: str


@dataclass(frozen=True)
class Accepted:
    """What a specification accepts of pictures; by default nothing that would change a value.

    Attributes:
        lossy: JPEG, whose compression changed the values.
        luminance: where one channel is expected, colours become their luminance instead of being refused.
    """

    lossy: bool = False
    luminance: bool = False


STRICTLY = Accepted()


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
        notes: what is odd about the file.
    """

    voxels: NDArray
    geometry: Geometry
    alpha: NDArray | None = None
    palette: NDArray | None = None
    is_colour: bool = False
    step: int = 1
    is_grid_stated: bool = True
    notes: tuple[Note, ...] = ()


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
        raise GeometryError(f"{source}: spacing {_triple(spacing)} mm (z, y, x) must be positive; repair the header",
                            code="E_AFFINE")
    if spacing.min() < SPACING_LIMITS_MM[0] or spacing.max() > SPACING_LIMITS_MM[1]:
        raise GeometryError(f"{source}: spacing {_triple(spacing)} mm (z, y, x) is beyond {SPACING_LIMITS_MM[0]:g} to "
                            f"{SPACING_LIMITS_MM[1]:g} mm; repair the header", code="E_SPACING")
    direction = matrix[:, :3] / spacing
    shear = np.abs(direction.T @ direction - np.eye(3)).max()
    if shear > SHEAR_TOLERANCE:
        angle = np.degrees(np.arcsin(min(1.0, shear)))
        raise GeometryError(f"{source}: the grid is sheared, two axes are {90 - angle:.2f} degrees apart and not 90; "
                            "resample the image to an orthogonal grid", code="E_SHEAR")
    return Geometry(shape, _triple(spacing), _triple(matrix[:, 3]), as_direction(direction))


def require_bounded(path: Path, voxels: int) -> None:
    """Raises a ReadError where a header promises more than `MAX_VOXELS`, before any of them is read."""
    if voxels > MAX_VOXELS:
        raise ReadError(f"{path} has {voxels} voxels, more than {MAX_VOXELS}; cut it into blocks, or repair its header",
                        code="E_TOO_LARGE")


def require_ends(path: Path, found_bytes: int, promised_bytes: int) -> None:
    """Raises a ReadError where a file holds fewer bytes than its header promises, or many more.

    Args:
        found_bytes: after decompression, header included or not, as `promised_bytes`.
    """
    if found_bytes < promised_bytes:
        raise ReadError(f"{path} is truncated: it has {found_bytes} bytes, its header promises {promised_bytes}; copy or "
                        "download it again", code="E_TRUNCATED")
    if found_bytes > promised_bytes + PADDING_BYTES:
        raise ReadError(f"{path} has more bytes than the {promised_bytes} that its header promises, so its header is damaged or "
                        "the file holds more than one image; repair the header, or copy it again", code="E_SIZE")


def _triple(values: NDArray) -> tuple[float, float, float]:
    return (float(values[0]), float(values[1]), float(values[2]))
