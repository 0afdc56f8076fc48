"""One door for all image formats; the ending of a file name says which format it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import GeometryError, ReadError
from autoseg.core.geometry import Geometry, canonical_orientation
from autoseg.core.image import Image
from autoseg.io.atomic import replacing, sha256_bytes
from autoseg.io.images.endings import ENDINGS, NIFTI_ENDINGS, image_ending
from autoseg.io.images.stored import StoredImage

_LABEL_TYPES = (np.uint8, np.int16, np.uint16, np.int32)
# Label maps that went through a float format or a scale factor: farther from an integer they were interpolated.
_LABEL_TOLERANCE = 1e-4


def read_image(paths: Sequence[Path], *, channels: int | None = None, digests: dict[Path, str] | None = None,
               compact: bool = False) -> Image:
    """The image in one file, or with one channel per file, in canonical orientation.

    Args:
        paths: one 3-D file per channel, in order, or one 4-D file that holds all channels.
        channels: number of channels that must come out; None: any.
        digests: receives the SHA-256 of every file.
        compact: one file of integers of at most 16 bits, which float32 holds exactly, comes as a view of these.
    Returns:
        float32 voxels (C, Z, Y, X), contiguous.
    Raises:
        ReadError: a file is missing, empty, truncated, damaged, not numeric, has voxels that are nan or infinite as
            float32, or the number of channels is not `channels`.
        GeometryError: the files do not share one grid, or a header does not say one.
    """
    files = [_read_stored(path, digests) for path in paths]
    for path, file in zip(paths, files, strict=True):
        _require_same_grid(paths[0], files[0].geometry, path, file.geometry)
    count = sum(len(file.voxels) for file in files)
    if channels is not None and count != channels:
        raise ReadError(f"{', '.join(map(str, paths))}: {count} channels found, {channels} expected", code="E_CHANNELS")
    stored = files[0].geometry
    orientation = canonical_orientation(stored.direction)
    geometry = orientation.apply_to_geometry(stored)
    if compact and len(files) == 1 and files[0].voxels.dtype.kind in "iu" and files[0].voxels.dtype.itemsize <= 2:
        return Image(orientation.apply(files[0].voxels), geometry, orientation, stored)
    voxels = np.empty((count, *geometry.shape), np.float32)
    with np.errstate(over="ignore"):  # what does not fit into float32 becomes infinite and is refused below
        np.concatenate([orientation.apply(file.voxels) for file in files], out=voxels, casting="unsafe")
    _require_finite(paths, voxels)
    return Image(voxels, geometry, orientation, stored)


def read_label_map(path: Path, *, reference: Geometry | None = None) -> Image:
    """The label map in a file, in canonical orientation.

    Args:
        reference: canonical grid of the image that the label map belongs to; None: not compared.
    Returns:
        voxels (1, Z, Y, X) of the smallest type among uint8, int16, uint16 and int32 that holds the values.
    Raises:
        ReadError: see `read_image`; also values that are not integers, or beyond 32 bits.
        GeometryError: the grid is not that of `reference`.
    """
    file = _read_stored(path, None)
    if len(file.voxels) != 1:
        raise ReadError(f"{path} has {len(file.voxels)} channels; a label map has one", code="E_CHANNELS")
    orientation = canonical_orientation(file.geometry.direction)
    geometry = orientation.apply_to_geometry(file.geometry)
    if reference is not None and not geometry.agrees_with(reference):
        raise GeometryError(f"{path}: the label map lies on {_grid_text(geometry)}, its image on {_grid_text(reference)}; "
                            "resample the label map to the image", code="E_GRID")
    labels = np.ascontiguousarray(orientation.apply(_integers(path, file.voxels)))
    return Image(labels, geometry, orientation, file.geometry)


def read_geometry(path: Path) -> Geometry:
    """The stored grid of an image file, from its header only."""
    ending = _require_ending(path)
    _require_file(path)
    if ending in NIFTI_ENDINGS:
        from autoseg.io.images import nifti

        return nifti.decode_geometry(path)
    from autoseg.io.images import itk

    return itk.decode_geometry(path)


def write_label_map(path: Path, label: NDArray, like: Image) -> None:
    """Write a canonical label map (Z, Y, X) on the stored grid of `like`, atomically, in the smallest integer type.

    Args:
        path: its ending decides the format.
    Raises:
        GeometryError: the shape is not that of `like`.
        ResourceError: the disk is full, read-only or forbidden.
    """
    _write_stored(path, label[None].astype(_smallest_type(label, path), copy=False), like)


def write_volume(path: Path, voxels: NDArray, like: Image) -> None:
    """Write canonical voxels (C, Z, Y, X) as float32 on the stored grid of `like`, atomically; see `write_label_map`."""
    _write_stored(path, voxels.astype(np.float32, copy=False), like)


def _write_stored(path: Path, voxels: NDArray, like: Image) -> None:
    if voxels.shape[1:] != like.geometry.shape:
        raise GeometryError(f"{path}: an array of {voxels.shape[1:]} (z, y, x) does not lie on the grid of its image, "
                            f"{like.geometry.shape}")
    ending = _require_ending(path)
    stored = like.orientation.undo(voxels)
    # The libraries are loaded here because SimpleITK takes half a second and most datasets never need it.
    with replacing(path) as part:
        if ending in NIFTI_ENDINGS:
            from autoseg.io.images import nifti

            part.write_bytes(nifti.encode(path, stored, like.stored))
        else:
            from autoseg.io.images import itk

            itk.write(part, stored, like.stored, ending)


def _read_stored(path: Path, digests: dict[Path, str] | None) -> StoredImage:
    ending = _require_ending(path)
    content = _content(path) if ending in NIFTI_ENDINGS or digests is not None else b""
    if digests is not None:
        digests[path] = sha256_bytes(content)
    if ending in NIFTI_ENDINGS:
        from autoseg.io.images import nifti

        return nifti.decode(path, content)
    _require_file(path)
    from autoseg.io.images import itk

    return itk.decode(path)


def _content(path: Path) -> bytes:
    _require_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror}") from error


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise ReadError(f"{path} does not exist or is not a regular file", code="E_MISSING")
    if path.stat().st_size == 0:
        raise ReadError(f"{path} is empty; copy or download it again", code="E_EMPTY")


def _require_ending(path: Path) -> str:
    ending = image_ending(path)
    if ending is None:
        raise ReadError(f"{path} is not an image format that can be read or written; endings are {', '.join(ENDINGS)}",
                        code="E_FORMAT")
    return ending


def _require_same_grid(first: Path, expected: Geometry, path: Path, found: Geometry) -> None:
    if not found.agrees_with(expected):
        raise GeometryError(f"the channels of one image must share a grid: {first} lies on {_grid_text(expected)}, {path} "
                            f"on {_grid_text(found)}; resample one to the other", code="E_GRID")


def _require_finite(paths: Sequence[Path], voxels: NDArray) -> None:
    count = sum(plane.size - int(np.count_nonzero(np.isfinite(plane))) for channel in voxels for plane in channel)
    if count:
        raise ReadError(f"{', '.join(map(str, paths))}: {count} of {voxels.size} voxels are nan or infinite; replace them, "
                        "or exclude the case", code="E_NONFINITE")


def _integers(path: Path, values: NDArray) -> NDArray:
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise ReadError(f"{path}: a label map must not hold nan or infinite values", code="E_NONFINITE")
        rounded = np.rint(values)
        wrong = np.abs(values - rounded) > _LABEL_TOLERANCE
        if wrong.any():
            raise ReadError(f"{path}: {np.count_nonzero(wrong)} voxels of the label map are not integers, for example "
                            f"{float(values[wrong][0]):g}; it may have been resampled with interpolation", code="E_LABEL_VALUE")
        values = rounded
    return values.astype(_smallest_type(values, path), copy=False)


def _smallest_type(label: NDArray, path: Path) -> type[np.integer]:
    low, high = (label.min(), label.max()) if label.size else (0, 0)
    for kind in _LABEL_TYPES:
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return kind
    raise ReadError(f"{path}: label values from {low} to {high} do not fit into 32 bits", code="E_LABEL_VALUE")


def _grid_text(geometry: Geometry) -> str:
    spacing, origin = (tuple(round(value, 4) for value in values) for values in (geometry.spacing_mm, geometry.origin_mm))
    return f"{geometry.shape} voxels of {spacing} mm (z, y, x) from {origin} mm (superior, posterior, left)"
