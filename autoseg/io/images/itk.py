"""NRRD and MetaImage (MHA) through SimpleITK."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from autoseg.core.errors import ReadError
from autoseg.core.geometry import Geometry, Shape
from autoseg.io.images.attached import find_voxels, inflated
from autoseg.io.images.stored import Note, StoredImage, geometry_of, require_bounded
from autoseg.io.itk import image_to_itk

_PARSERS = {".nrrd": "NrrdImageIO", ".mha": "MetaImageIO", ".png": "PNGImageIO"}
_NRRD_SPACE = "NRRD_space"  # the field `space`, under ITK's name


def decode(path: Path) -> StoredImage:
    """The image in a NRRD or MHA file.

    Raises:
        ReadError: truncated, damaged, without its voxels, or of a kind that is not an image of numbers.
        GeometryError: the header does not say one sound grid.
    """
    attached, reader = find_voxels(path), _reader(path)
    _require_numbers(path, reader)
    geometry, dtype = _geometry(path, reader), _number_type(reader)
    shape = (reader.GetNumberOfComponents(), *reversed(reader.GetSize()))
    require_bounded(path, math.prod(shape))
    raw = inflated(path, attached, math.prod(shape) * dtype.itemsize)
    if raw is None or (shape[0] > 1 and not attached.is_interleaved):
        samples = _samples(path, reader)
    else:
        numbers = np.frombuffer(raw, dtype.newbyteorder(">" if attached.is_big_endian else "<"), math.prod(shape))
        samples = np.moveaxis(numbers.reshape(*shape[1:], shape[0]), -1, 0)
    return StoredImage(samples.reshape(-1, *geometry.shape), geometry, notes=_notes(path, reader))


def decode_picture(path: Path) -> NDArray:
    """The samples (C, Y, X) of a picture, whose bytes and size were looked at before."""
    reader = _reader(path)
    _require_numbers(path, reader)
    return _samples(path, reader)


def decode_geometry(path: Path) -> Geometry:
    """The stored grid, from the header only; one of more voxels than are read at all is refused."""
    find_voxels(path)  # before the header is given to a parser that may not survive it
    reader = _reader(path)
    require_bounded(path, math.prod(reader.GetSize()))
    return _geometry(path, reader)


def write(path: Path, voxels: NDArray, geometry: Geometry, ending: str) -> None:
    """Write voxels (C, Z, Y, X) on a stored grid to `path`, compressed, in the format of `ending`; several channels
    become the components of one voxel."""
    image = image_to_itk(voxels, geometry)
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
    """A reader of the format that the ending says; left to itself, the library tries every format it knows on the bytes."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_PARSERS[path.suffix.lower()])
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise ReadError(f"{path} has a header that cannot be read: {_last_line(error)}", code="E_HEADER") from error
    return reader


def _samples(path: Path, reader: sitk.ImageFileReader) -> NDArray:
    """Everything that the reader decodes; components first."""
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise ReadError(f"{path} cannot be read completely: {_last_line(error)}; copy or download it again",
                        code="E_DAMAGED") from error
    samples = sitk.GetArrayFromImage(image)
    return np.moveaxis(samples, -1, 0) if image.GetNumberOfComponentsPerPixel() > 1 else samples


def _notes(path: Path, reader: sitk.ImageFileReader) -> tuple[Note, ...]:
    if not path.name.lower().endswith(".nrrd") or reader.HasMetaDataKey(_NRRD_SPACE):
        return ()
    return (Note("W_NO_GEOMETRY", "the header says nothing about orientation (it has no field 'space'), so right and left may be "
                 "exchanged; the axes are taken as left, posterior, superior"),)


def _number_type(reader: sitk.ImageFileReader) -> np.dtype:
    """From names such as `vector of 16-bit signed integer`."""
    name = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    bits = re.search(r"(\d+)-bit", name)
    kind = "f" if "float" in name else "u" if "unsigned" in name else "i"
    return np.dtype(f"{kind}{int(bits[1]) // 8 if bits else 1}")


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
    if min(shape) < 1:
        raise ReadError(f"{path} has impossible sizes {shape} voxels (z, y, x) in its header", code="E_HEADER")
    return geometry_of(shape, matrix, str(path))


def _last_line(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[-1].strip()
