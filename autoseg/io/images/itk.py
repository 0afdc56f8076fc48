"""NRRD and MetaImage (MHA) through SimpleITK."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from autoseg.core.errors import ReadError
from autoseg.core.geometry import Geometry, Shape
from autoseg.io.images.stored import StoredImage, geometry_of

sitk.ProcessObject.SetGlobalWarningDisplay(False)


def decode(path: Path) -> StoredImage:
    """The image in a file.

    Raises:
        ReadError: truncated, damaged, or of a kind that is not an image of numbers.
        GeometryError: the header does not say one sound grid.
    """
    reader = _reader(path)
    _require_numbers(path, reader)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise ReadError(f"{path} cannot be read completely: {_last_line(error)}; copy or download it again",
                        code="E_DAMAGED") from error
    voxels = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        voxels = np.moveaxis(voxels, -1, 0)
    geometry = _geometry(path, reader)
    return StoredImage(voxels.reshape(-1, *geometry.shape), geometry)


def decode_geometry(path: Path) -> Geometry:
    """The stored grid, from the header only."""
    return _geometry(path, _reader(path))


def write(path: Path, voxels: NDArray, geometry: Geometry, ending: str) -> None:
    """Write voxels (C, Z, Y, X) on a stored grid to `path`, compressed, in the format of `ending`; several channels
    become the components of one voxel."""
    image = (sitk.GetImageFromArray(np.ascontiguousarray(voxels[0])) if voxels.shape[0] == 1
             else sitk.GetImageFromArray(np.ascontiguousarray(np.moveaxis(voxels, 0, -1)), isVector=True))
    image.SetSpacing(geometry.spacing_mm[::-1])
    image.SetOrigin(geometry.origin_mm[::-1])
    image.SetDirection(np.asarray(geometry.direction)[::-1, ::-1].ravel().tolist())
    # The library chooses the format by the ending, which a temporary name does not have.
    named = path.with_name(path.name + ending)
    try:
        sitk.WriteImage(image, str(named), useCompression=True)
        named.replace(path)
    except RuntimeError as error:
        raise OSError(f"{path} cannot be written: {_last_line(error)}") from error
    finally:
        named.unlink(missing_ok=True)


def _reader(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise ReadError(f"{path} has a header that cannot be read: {_last_line(error)}", code="E_HEADER") from error
    return reader


def _require_numbers(path: Path, reader: sitk.ImageFileReader) -> None:
    kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    if "complex" in kind or "label" in kind:
        raise ReadError(f"{path} holds {kind} voxels; integers or floats are expected", code="E_DTYPE")
    if reader.GetNumberOfComponents() > 1 and reader.GetDimension() > 3:
        raise ReadError(f"{path} has {reader.GetDimension()} dimensions of {reader.GetNumberOfComponents()} components; "
                        "channels in one place are expected", code="E_DIMENSIONS")


def _geometry(path: Path, reader: sitk.ImageFileReader) -> Geometry:
    dimension = reader.GetDimension()
    if not 2 <= dimension <= 4:
        raise ReadError(f"{path} has {dimension} dimensions; two to four are understood", code="E_DIMENSIONS")
    spatial = min(dimension, 3)
    size, spacing, origin, direction = np.ones(3, int), np.ones(3), np.zeros(3), np.eye(3)
    size[:spatial] = reader.GetSize()[:spatial]
    spacing[:spatial] = reader.GetSpacing()[:spatial]
    origin[:spatial] = reader.GetOrigin()[:spatial]
    direction[:spatial, :spatial] = np.reshape(reader.GetDirection(), (dimension, dimension))[:spatial, :spatial]
    # ITK's x, y, z and left, posterior, superior, both reversed.
    matrix = np.concatenate([direction * spacing, origin[:, None]], axis=1)[::-1][:, [2, 1, 0, 3]]
    shape: Shape = (int(size[2]), int(size[1]), int(size[0]))
    return geometry_of(shape, matrix, str(path))


def _last_line(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[-1].strip()
