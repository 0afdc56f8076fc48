"""NIfTI-1 and NIfTI-2 single files, plain and gzipped, through nibabel.

Reference: NIfTI-1 standard (nifti1.h, 2007), sections on data storage, qform and sform.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from autoseg.core.errors import GeometryError, ReadError
from autoseg.core.geometry import Geometry, Shape
from autoseg.io.images.stored import (
    LARGEST_RATIO,
    PADDING_BYTES,
    Note,
    StoredImage,
    geometry_of,
    require_bounded,
    require_ends,
)

# qform and sform may differ by this much of a voxel at any corner, beside what `_rounding_voxels` allows: 32-bit floats.
AFFINE_TOLERANCE_VOXELS = 1e-3
# nibabel's default; label maps shrink well at any level and level 1 writes several times faster than level 6.
_GZIP_LEVEL = 1
_CHUNK_BYTES = 2**20
_NO_EXTENSION = b"\0\0\0\0"
_GZIP = b"\x1f\x8b"
_MAGIC_1 = b"n+1\0"
_MAGIC_2 = b"n+2\0\r\n\x1a\n"
_HEADER_BYTES = {"nifti1": 348, "nifti2": 540}
# Rows: right, anterior, superior to superior, posterior, left.
_RAS_TO_SPL = np.array([[0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])
# nifti1.h, `xyzt_units`: the lowest three bits are the unit of space; 0 is unknown and 2 mm.
_SPACE_UNITS = 7
_UNITS_MM = {1: (1000.0, "metres"), 3: (1e-3, "micrometres")}
_VECTORS = 1007  # nifti1.h, NIFTI_INTENT_VECTOR
_HEADER_ERRORS = (HeaderDataError, ImageFileError, ValueError, OverflowError, ZeroDivisionError, np.linalg.LinAlgError)


@dataclass(frozen=True)
class _Layout:
    """A header, and where the numbers lie that it describes.

    Attributes:
        dims: sizes along x, y, z and perhaps channels.
        offset: first byte of the numbers.
    """

    header: nib.Nifti1Header
    dims: tuple[int, ...]
    dtype: np.dtype
    offset: int

    @property
    def end(self) -> int:
        """First byte after the numbers."""
        return self.offset + math.prod(self.dims) * self.dtype.itemsize


def decode(path: Path, content: bytes) -> StoredImage:
    """The image in a file's content.

    Args:
        path: names the file in messages; its ending says whether the content is gzipped.
    Raises:
        ReadError: empty, truncated, damaged, or of a kind that is not an image of numbers.
        GeometryError: the header does not say one sound grid.
    """
    raw, layout = _inflated(path, content) if _is_gzip(path, content) else _plain(path, content)
    count = math.prod(layout.dims)
    numbers = np.frombuffer(raw, layout.dtype, count, layout.offset).reshape(layout.dims[::-1])
    voxels = _scaled(path, numbers, layout.header)
    shape = _shape(layout.dims)
    geometry, notes = _geometry(path, layout.header, shape)
    return StoredImage(voxels.reshape(-1, *shape), geometry, notes=notes)


def decode_geometry(path: Path) -> Geometry:
    """The stored grid, from the header only; a size that the file cannot hold is refused."""
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            raw = file.read(_HEADER_BYTES["nifti2"])
    except (OSError, EOFError, zlib.error) as error:
        raise ReadError(f"{path} cannot be read: {error}") from error
    layout = _layout(path, raw)
    _require_possible(path, layout, path.stat().st_size, is_gzip=opener is gzip.open)
    return _geometry(path, layout.header, _shape(layout.dims))[0]


def encode(path: Path, voxels: NDArray, geometry: Geometry, *, is_field: bool = False) -> bytes:
    """File content of voxels (C, Z, Y, X) on a stored grid; `path` says by its ending whether to gzip.

    Args:
        is_field: the channels are the components of vectors (left, posterior, superior): see `require_field`.
    """
    array = voxels[0].transpose(2, 1, 0) if voxels.shape[0] == 1 else voxels.transpose(3, 2, 1, 0)
    affine = _affine(geometry)
    image = nib.Nifti1Image(array[:, :, :, None] if is_field else array, affine, dtype=voxels.dtype)
    if is_field:
        image.header["intent_code"] = _VECTORS
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


def require_field(path: Path, content: bytes) -> None:
    """Raises a ReadError where the content of a file that could be decoded does not say that it holds vectors.

    Vectors stand along the fifth dimension, the fourth is of one, and the intent is 1007 (nifti1.h, NIFTI_INTENT_VECTOR). ITK and
    ANTs take their components as left, posterior, superior; those of intent 1006 ITK turns, and others do not.
    """
    with gzip.GzipFile(fileobj=io.BytesIO(content)) if content.startswith(_GZIP) else io.BytesIO(content) as file:
        header = _header(path, file.read(_HEADER_BYTES["nifti2"]))
    dims, intent = header["dim"].tolist(), int(header["intent_code"])
    if dims[0] != 5 or dims[4] != 1 or intent != _VECTORS:
        raise ReadError(f"{path} has {dims[0]} dimensions {dims[1:1 + dims[0]]} (x, y, z, ...) and intent {intent}; a "
                        f"displacement has five, the fourth of one, and intent {_VECTORS} (vectors, as ITK and ANTs write "
                        "them)", code="E_TRANSFORM")


def _is_gzip(path: Path, content: bytes) -> bool:
    """Whether the content is gzipped, as the name has to say."""
    named, found = path.name.lower().endswith(".gz"), content.startswith(_GZIP)
    if named == found:
        return found
    kind = "gzipped" if found else "plain NIfTI" if _is_nifti(content) else "neither gzipped nor NIfTI"
    advice = {"gzipped": "rename it to .nii.gz", "plain NIfTI": "rename it to .nii"}.get(kind, "copy or download it again")
    raise ReadError(f"{path} does not hold what its name says: it is {kind}, beginning with {content[:8]!r}; {advice}",
                    code="E_FORMAT")


def _is_nifti(raw: bytes | bytearray) -> bool:
    return raw[344:348] == _MAGIC_1 or raw[4:12] == _MAGIC_2


def _plain(path: Path, content: bytes) -> tuple[bytes, _Layout]:
    layout = _layout(path, content)
    _require_possible(path, layout, len(content), is_gzip=False)
    require_ends(path, len(content), layout.end)
    return content, layout


def _require_possible(path: Path, layout: _Layout, size_bytes: int, *, is_gzip: bool) -> None:
    """A header may promise no more than a file of this size can hold, inflated, and no more than is read at all."""
    if layout.end > size_bytes * (LARGEST_RATIO if is_gzip else 1):
        raise ReadError(f"{path} is truncated or has a damaged header: {size_bytes} bytes{' of gzip' if is_gzip else ''} cannot "
                        f"hold the {layout.end} that its header promises; copy or download it again", code="E_TRUNCATED")
    require_bounded(path, math.prod(layout.dims))


def _inflated(path: Path, content: bytes) -> tuple[bytes | bytearray, _Layout]:
    """All bytes of a gzip file, its checksum and length verified; never more than its header promises.

    The checksum covers the whole content, so all of it is read. gzip.decompress would hold the result twice while joining.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            raw = bytearray(file.read(_HEADER_BYTES["nifti2"]))
            layout = _layout(path, raw)
            _require_possible(path, layout, len(content), is_gzip=True)
            while len(raw) <= layout.end + PADDING_BYTES and (chunk := file.read(_CHUNK_BYTES)):
                raw += chunk
    except EOFError as error:
        raise ReadError(f"{path} is truncated: the compressed data end too early; copy or download it again",
                        code="E_TRUNCATED") from error
    except (OSError, zlib.error) as error:
        raise ReadError(f"{path} is damaged: {error}; copy or download it again", code="E_DAMAGED") from error
    require_ends(path, len(raw), layout.end)
    return raw, layout


def _layout(path: Path, raw: bytes | bytearray) -> _Layout:
    header = _header(path, raw)
    return _Layout(header, _dims(path, header), _number_type(path, header), int(header.get_data_offset()))


def _header(path: Path, raw: bytes | bytearray) -> nib.Nifti1Header:
    if raw[344:348] == _MAGIC_1:
        kind, size = nib.Nifti1Header, _HEADER_BYTES["nifti1"]
    elif raw[4:12] == _MAGIC_2:
        kind, size = nib.Nifti2Header, _HEADER_BYTES["nifti2"]
    else:
        raise ReadError(f"{path} is not a single-file NIfTI image: its magic bytes are {raw[344:348]!r}; "
                        "convert it to .nii.gz", code="E_FORMAT")
    if len(raw) < size:
        raise ReadError(f"{path} is truncated: it ends inside its header of {size} bytes; copy or download it again",
                        code="E_TRUNCATED")
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


def _scaled(path: Path, numbers: NDArray, header: nib.Nifti1Header) -> NDArray:
    """Stored numbers times slope plus intercept; a slope of 0 or nan means none (nifti1.h, `scl_slope`)."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if math.isnan(slope) or slope == 0 or (slope == 1 and intercept == 0):
        return numbers
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise ReadError(f"{path}: scl_slope {slope:g} and scl_inter {intercept:g} in the header do not say what the voxels mean; "
                        "finite numbers are expected, or a slope of 0 for none. Repair the header", code="E_SCALE")
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused, with the number of voxels
        return numbers.astype(np.float64) * slope + intercept


def _geometry(path: Path, header: nib.Nifti1Header, shape: Shape) -> tuple[Geometry, tuple[Note, ...]]:
    notes: list[Note] = []
    factor, unit = _UNITS_MM.get(int(header["xyzt_units"]) & _SPACE_UNITS, (1.0, ""))
    if unit:
        notes.append(Note("W_UNIT", f"lengths in the header are in {unit}; they are converted to mm"))
    affine = _header_affine(path, header, shape, notes)[:3] * factor
    return geometry_of(shape, (_RAS_TO_SPL @ affine)[:, [2, 1, 0, 3]], str(path)), tuple(notes)


def _header_affine(path: Path, header: nib.Nifti1Header, shape: Shape, notes: list[Note]) -> NDArray[np.float64]:
    """(4, 4) from (x, y, z) indices to right, anterior, superior: the sform, else the qform, else the spacing alone."""
    unusable = _repair_pixdim(header, notes)
    sform = header.get_sform(coded=True)[0]
    if unusable:
        if sform is None:
            raise GeometryError(f"{path}: pixdim in the header says voxels of {unusable} mm (x, y, z), and there is no sform; "
                                "positive numbers are expected. Repair the header", code="E_AFFINE")
        notes.append(Note("W_PIXDIM", f"pixdim in the header says voxels of {unusable} mm (x, y, z); the sform is taken"))
        return sform
    try:
        qform = header.get_qform(coded=True)[0]
    except _HEADER_ERRORS as error:
        raise GeometryError(f"{path} has a damaged qform: {error}; repair the header", code="E_AFFINE") from error
    if sform is not None and qform is not None:
        _require_agreement(path, sform, qform, shape, header)
    if sform is not None:
        return sform
    if qform is not None:
        return qform
    notes.append(Note("W_NO_GEOMETRY", "the header says nothing about orientation (qform and sform codes are 0), so right and "
                      "left may be exchanged; the axes are taken as right, anterior, superior"))
    return np.diag([*header["pixdim"][1:4].astype(np.float64), 1.0])


def _repair_pixdim(header: nib.Nifti1Header, notes: list[Note]) -> str:
    """Makes `pixdim` what the standard allows; returns the voxel sizes as text where that is not possible, else ''.

    `qfac` is -1 or else 1 (nifti1.h, METHOD 2); sizes are positive; axes beyond the image's own count as 1 mm.
    """
    pixdim = header["pixdim"]
    pixdim[0] = -1.0 if pixdim[0] < 0 else 1.0
    if all(0 < size < math.inf for size in pixdim[1:4].tolist()):
        return ""
    if (pixdim[1:4] < 0).any():
        notes.append(Note("W_PIXDIM", f"pixdim in the header has negative voxel sizes {pixdim[1:4].tolist()} (x, y, z); their "
                          "absolute values are taken"))
        pixdim[1:4] = np.abs(pixdim[1:4])
    usable = np.isfinite(pixdim[1:4]) & (pixdim[1:4] > 0)
    own = np.arange(3) < int(header["dim"][0])
    pixdim[1:4][~usable & ~own] = 1.0
    return "" if (usable | ~own).all() else str(tuple(pixdim[1:4].tolist()))


def _require_agreement(path: Path, sform: NDArray, qform: NDArray, shape: Shape, header: nib.Nifti1Header) -> None:
    distance = _corner_distance(qform, sform, shape)
    if not (distance <= AFFINE_TOLERANCE_VOXELS or distance <= AFFINE_TOLERANCE_VOXELS + _rounding_voxels(header, shape)):
        raise GeometryError(f"{path}: sform and qform put a corner {distance:.3g} voxels apart, so programs disagree on "
                            f"where the image lies; sform {_rows(sform)}, qform {_rows(qform)} (x, y, z to right, "
                            "anterior, superior, mm). Find out which is right, and set the code of the wrong one to 0 "
                            "(nibabel: image.set_qform(None, 0) or image.set_sform(None, 0))", code="E_AFFINE_CONFLICT")


def _rounding_voxels(header: nib.Nifti1Header, shape: Shape) -> float:
    """By how many voxels a qform may miss at a corner because its quaternion (a, b, c, d) is rounded.

    b, c and d are 32-bit floats and a = sqrt(1 - b^2 - c^2 - d^2), so that for turns near 180 degrees, as of every image in
    DICOM's axes, a rounding of 1e-7 is an error of 3e-4 in a: 0.7 voxels at the corner of 512 x 512 x 200 (measured).
    """
    squares = float((np.array([header[f"quatern_{name}"] for name in "bcd"], np.float64) ** 2).sum())
    slack = 3 * float(np.finfo(np.float32).eps)  # nibabel's own tolerance, `quaternion_threshold`
    cosine = math.sqrt(max(0.0, 1.0 - squares))
    error = max(math.sqrt(cosine**2 + slack) - cosine, cosine - math.sqrt(max(0.0, cosine**2 - slack)))
    zooms = header["pixdim"][3:0:-1].astype(np.float64)
    return 2.0 * error * float(np.linalg.norm(zooms * shape) / zooms.min())


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
