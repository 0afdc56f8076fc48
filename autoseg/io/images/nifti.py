"""NIfTI-1 and NIfTI-2 single files, plain and gzipped, through nibabel.

Reference: NIfTI-1 standard (nifti1.h, 2007), sections on data storage, qform and sform.
"""

from __future__ import annotations

import gzip
import io
import logging
import math
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from autoseg.core.errors import GeometryError, ReadError
from autoseg.core.geometry import Geometry, Shape
from autoseg.io.images.stored import StoredImage, geometry_of

_LOG = logging.getLogger(__name__)

# qform and sform may differ by this much of a voxel at any corner: they are 32-bit floats and a rounded quaternion.
AFFINE_TOLERANCE_VOXELS = 1e-3
# nibabel's default; label maps shrink well at any level and level 1 writes several times faster than level 6.
_GZIP_LEVEL = 1
_CHUNK_BYTES = 2**20
_NO_EXTENSION = b"\0\0\0\0"
_MAGIC_1 = b"n+1\0"
_MAGIC_2 = b"n+2\0\r\n\x1a\n"
_HEADER_BYTES = {"nifti1": 348, "nifti2": 540}
# Rows: right, anterior, superior to superior, posterior, left.
_RAS_TO_SPL = np.array([[0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])
_HEADER_ERRORS = (HeaderDataError, ImageFileError, ValueError, OverflowError, ZeroDivisionError, np.linalg.LinAlgError)


def decode(path: Path, content: bytes) -> StoredImage:
    """The image in a file's content.

    Args:
        path: names the file in messages; its ending says whether the content is gzipped.
    Raises:
        ReadError: empty, truncated, damaged, or of a kind that is not an image of numbers.
        GeometryError: the header does not say one sound grid.
    """
    raw = _inflate(path, content) if path.name.lower().endswith(".gz") else content
    header = _header(path, raw)
    dims = _dims(path, header)
    dtype = _number_type(path, header)
    offset = int(header.get_data_offset())
    count = math.prod(dims)
    if len(raw) < offset + count * dtype.itemsize:
        raise ReadError(f"{path} is truncated: it has {len(raw)} bytes, its header promises "
                        f"{offset + count * dtype.itemsize}; copy or download it again", code="E_TRUNCATED")
    numbers = np.frombuffer(raw, dtype, count, offset).reshape(dims[::-1])
    voxels = _scaled(numbers, header)
    shape = _shape(dims)
    return StoredImage(voxels.reshape(-1, *shape), _geometry(path, header, shape))


def decode_geometry(path: Path) -> Geometry:
    """The stored grid, from the header only."""
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            raw = file.read(_HEADER_BYTES["nifti2"])
    except (OSError, EOFError, zlib.error) as error:
        raise ReadError(f"{path} cannot be read: {error}") from error
    header = _header(path, raw)
    return _geometry(path, header, _shape(_dims(path, header)))


def encode(path: Path, voxels: NDArray, geometry: Geometry) -> bytes:
    """File content of voxels (C, Z, Y, X) on a stored grid; `path` says by its ending whether to gzip."""
    array = voxels[0].transpose(2, 1, 0) if voxels.shape[0] == 1 else voxels.transpose(3, 2, 1, 0)
    affine = _affine(geometry)
    image = nib.Nifti1Image(array, affine, dtype=voxels.dtype)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    # A slightly sheared grid has no quaternion; the sform alone then says what is meant.
    if _corner_distance(image.header.get_qform(), affine, geometry.shape) > AFFINE_TOLERANCE_VOXELS / 10:
        image.set_qform(None, code=0)
        image.header["pixdim"][1:4] = geometry.spacing_mm[::-1]
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(1, 0)
    image.header.set_data_offset(_HEADER_BYTES["nifti1"] + len(_NO_EXTENSION))
    buffer = io.BytesIO()
    compressed = path.name.lower().endswith(".gz")
    file = gzip.GzipFile("", "wb", _GZIP_LEVEL, buffer, mtime=0) if compressed else buffer
    file.write(image.header.binaryblock + _NO_EXTENSION)
    for channel in voxels:  # plane by plane: nibabel's `to_bytes` and `gzip.compress` each hold the whole image
        for plane in channel:
            file.write(plane.tobytes())
    if compressed:
        file.close()
    return buffer.getvalue()


def _inflate(path: Path, content: bytes) -> bytes | bytearray:
    """All bytes of a gzip file, its checksum and length verified."""
    raw = bytearray()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:  # gzip.decompress holds the result twice while it joins it
            while chunk := file.read(_CHUNK_BYTES):
                raw += chunk
        return raw
    except EOFError as error:
        raise ReadError(f"{path} is truncated: the compressed data end too early; copy or download it again",
                        code="E_TRUNCATED") from error
    except (OSError, zlib.error) as error:
        raise ReadError(f"{path} is damaged: {error}; copy or download it again", code="E_DAMAGED") from error


def _header(path: Path, raw: bytes | bytearray) -> nib.Nifti1Header:
    if raw[344:348] == _MAGIC_1:
        kind, size = nib.Nifti1Header, _HEADER_BYTES["nifti1"]
    elif raw[4:12] == _MAGIC_2:
        kind, size = nib.Nifti2Header, _HEADER_BYTES["nifti2"]
    else:
        raise ReadError(f"{path} is not a single-file NIfTI image: its magic bytes are {raw[344:348]!r}; "
                        "convert it to .nii.gz", code="E_FORMAT")
    try:
        return kind(bytes(raw[:size]), check=False)
    except _HEADER_ERRORS as error:
        raise ReadError(f"{path} has a damaged header: {error}", code="E_HEADER") from error


def _dims(path: Path, header: nib.Nifti1Header) -> tuple[int, ...]:
    """Sizes along x, y, z and channels; at least three; trailing axes of one voxel are dropped."""
    rank = int(header["dim"][0])
    dims = [int(size) for size in header["dim"][1:rank + 1]] if 1 <= rank <= 7 else []
    if not dims or min(dims) < 1:
        raise ReadError(f"{path} has impossible dimensions {header['dim'].tolist()} (count, x, y, z, ...) in its header",
                        code="E_HEADER")
    size = _HEADER_BYTES["nifti2" if isinstance(header, nib.Nifti2Header) else "nifti1"]
    if not (size <= float(header["vox_offset"]) < 2**31):
        raise ReadError(f"{path} has an impossible data offset of {float(header['vox_offset'])} bytes in its header; "
                        f"at least {size} are expected", code="E_HEADER")
    channels = [extent for extent in dims[3:] if extent > 1]
    if len(channels) > 1:
        raise ReadError(f"{path} has {rank} dimensions {dims} (x, y, z, ...); at most four are understood",
                        code="E_DIMENSIONS")
    return (*(dims + [1, 1])[:3], *channels)


def _shape(dims: tuple[int, ...]) -> Shape:
    return (dims[2], dims[1], dims[0])


def _number_type(path: Path, header: nib.Nifti1Header) -> np.dtype:
    try:
        dtype = header.get_data_dtype()
    except KeyError as error:
        raise ReadError(f"{path} has the unknown data type {error} in its header; integers or floats are expected",
                        code="E_DTYPE") from error
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise ReadError(f"{path} holds {header.get_value_label('datatype')} voxels; integers or floats of at most 64 bits "
                        "are expected. Split colours or complex values into channels first", code="E_DTYPE")
    return dtype


def _scaled(numbers: NDArray, header: nib.Nifti1Header) -> NDArray:
    """Stored numbers times slope plus intercept; a slope of 0 or nan means none (nifti1.h, `scl_slope`)."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if not (math.isfinite(slope) and math.isfinite(intercept)) or slope == 0 or (slope == 1 and intercept == 0):
        return numbers
    return numbers.astype(np.float64) * slope + intercept


def _geometry(path: Path, header: nib.Nifti1Header, shape: Shape) -> Geometry:
    matrix = _RAS_TO_SPL @ _header_affine(path, header, shape)[:3]
    return geometry_of(shape, matrix[:, [2, 1, 0, 3]], str(path))


def _header_affine(path: Path, header: nib.Nifti1Header, shape: Shape) -> NDArray[np.float64]:
    """(4, 4) from (x, y, z) indices to right, anterior, superior: the sform, else the qform, else the spacing alone."""
    try:
        sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    except _HEADER_ERRORS as error:
        raise GeometryError(f"{path} has a damaged qform: {error}; repair the header", code="E_AFFINE") from error
    if sform is not None and qform is not None:
        _require_agreement(path, sform, qform, shape)
    if sform is not None:
        return sform
    if qform is not None:
        return qform
    _LOG.warning("%s says nothing about orientation (qform and sform codes are 0); the axes are taken as right, anterior, "
                 "superior", path)
    return np.diag([*np.abs(header["pixdim"][1:4].astype(np.float64)), 1.0])


def _require_agreement(path: Path, sform: NDArray, qform: NDArray, shape: Shape) -> None:
    distance = _corner_distance(qform, sform, shape)
    if not distance <= AFFINE_TOLERANCE_VOXELS:
        raise GeometryError(f"{path}: sform and qform put a corner {distance:.3g} voxels apart, so programs disagree on "
                            f"where the image lies; sform {_rows(sform)}, qform {_rows(qform)} (x, y, z to right, "
                            "anterior, superior, mm). Correct the wrong one in the header", code="E_AFFINE_CONFLICT")


def _corner_distance(affine: NDArray, other: NDArray, shape: Shape) -> float:
    """Largest distance between the places that two affines give a corner of the image, in voxels of the finest axis."""
    corners = np.array([[x, y, z, 1.0] for x in (0, shape[2] - 1) for y in (0, shape[1] - 1) for z in (0, shape[0] - 1)])
    distance = np.linalg.norm(corners @ (affine - other)[:3].T, axis=1).max()
    finest = np.linalg.norm(other[:3, :3], axis=0).min()
    return float(distance / finest) if finest > 0 else math.inf


def _rows(affine: NDArray) -> str:
    return str([[round(float(value), 4) for value in row] for row in affine[:3]])


def _affine(geometry: Geometry) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3] = (_RAS_TO_SPL.T @ geometry.matrix())[:, [2, 1, 0, 3]]
    return affine
