"""TIFF of one or many pages, grey or in colour, through tifffile; compressions that it lacks through Pillow.

References: TIFF revision 6.0, Adobe 1992; BigTIFF; ImageJ's TIFF metadata (ij.io.TiffDecoder); OME-TIFF 6.
"""

from __future__ import annotations

import io
import logging
import math
import mmap
import struct
import zlib
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL.TiffImagePlugin import TiffImageFile

from autoseg.core.errors import GeometryError, ReadError
from autoseg.core.geometry import Geometry, Shape, Spacing
from autoseg.io.images.labels import require_up_to
from autoseg.io.images.spacings import stated_spacing
from autoseg.io.images.stored import (
    LARGEST_RATIO,
    UNKNOWN_SPACING_MM,
    Note,
    StoredImage,
    is_plain,
    plain_geometry,
    require_bounded,
)

# What it says of a damaged file, a line for every tag, is said here in one sentence.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

_NO_SPACING = Note("W_NO_SPACING", "the file does not say a spacing along all axes; 1 mm is taken. Write "
                   '{"spacing": [z, y, x]} in mm into a file of that name with .json')
# Axes of tifffile that are slices: z, pages without a name, and unknown ones.
_SLICES = "ZIQ"
_CHANNELS = "CS"
_LOSSY = {6, 7, 33003, 33004, 33005, 33007, 34712, 34892, 34933, 50001, 50002}  # JPEG, JPEG 2000, JPEG XR, WebP, JPEG XL
_INVERTED, _GREY, _RGB, _PALETTE = 0, 1, 2, 3  # PhotometricInterpretation, TIFF 6.0 page 37
_ASSOCIATED, _ALPHA = 1, (1, 2)  # ExtraSamples, TIFF 6.0 page 31
# How much less a compression can take, where that is bounded: none; LZW, whose table of 4096 entries stands for 7.4 MB by
# 5.5 kB (TIFF 6.0, section 13); Deflate; PackBits, 128 bytes by two.
_LARGEST_RATIOS = {1: 1, 5: 1400, 8: LARGEST_RATIO, 32946: LARGEST_RATIO, 32773: 64}
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WHOLE_BITS = (1, 8, 16, 32)  # samples that Pillow gives as they are; it stretches those of 2 and 4 bits
_LARGEST = 65535
_DAMAGE = (tifffile.TiffFileError, OSError, ValueError, TypeError, KeyError, IndexError, EOFError, RuntimeError, ArithmeticError,
           AttributeError, struct.error, zlib.error)


def decode(path: Path, content: bytes) -> StoredImage:
    """The image in a file's content.

    Raises:
        ReadError: truncated, damaged, lossy, several images or points in time, or of a kind that is not understood.
    """
    _require_whole(path, content)
    try:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            series = _only_series(path, file)
            require_bounded(path, math.prod(series.shape))
            _require_segments(path, series, len(content))
            samples = _ordered(path, series, _values(path, content, series))
            spacing = stated_spacing(path, file, samples.shape[1])
            return _stored(series.keyframe, samples, spacing)
    except _DAMAGE as error:
        raise ReadError(f"{path} cannot be read completely: {error}; copy or download it again", code="E_DAMAGED") from error


def decode_geometry(path: Path) -> Geometry:
    """The stored grid, from the header only."""
    shape, spacing = _header(path)
    return plain_geometry(shape, spacing or UNKNOWN_SPACING_MM)


def states_spacing(path: Path) -> bool:
    """Whether the file, or the one beside it, says how large a pixel is."""
    return _header(path)[1] is not None


def _header(path: Path) -> tuple[Shape, Spacing | None]:
    try:
        with path.open("rb") as raw, mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _require_whole(path, content)
        with tifffile.TiffFile(path) as file:
            series = _only_series(path, file)
            sizes = dict(zip(series.axes, series.shape, strict=True))
            depth = math.prod(size for axis, size in sizes.items() if axis in _SLICES)
            require_bounded(path, math.prod(series.shape))
            return (depth, sizes["Y"], sizes["X"]), stated_spacing(path, file, depth)
    except _DAMAGE as error:
        raise ReadError(f"{path} has a header that cannot be read: {error}", code="E_HEADER") from error


def write(path: Path, voxels: NDArray, geometry: Geometry, target: Path) -> None:
    """Write voxels (C, Z, Y, X) to `path` with ImageJ's metadata: label maps as 8 or 16 bits, else float32.

    Args:
        target: names the file in messages.
    Raises:
        GeometryError: the grid has a place in a patient, which a TIFF cannot say.
        ReadError: a label value is negative or beyond 16 bits.
    """
    if not is_plain(geometry):
        raise GeometryError(f"{target}: a TIFF does not say where an image lies in a patient; write .nii.gz", code="E_GRID")
    if voxels.dtype.kind != "f":
        require_up_to(_LARGEST, voxels, target, "a TIFF")
        voxels = voxels.astype(np.uint8 if voxels.max() <= 255 else np.uint16, copy=False)
    metadata: dict[str, object] = {"axes": "ZCYX"}
    resolution = None
    if geometry.spacing_mm != UNKNOWN_SPACING_MM:
        metadata |= {"unit": "mm", "spacing": geometry.spacing_mm[0]}
        resolution = (1.0 / geometry.spacing_mm[2], 1.0 / geometry.spacing_mm[1])
    tifffile.imwrite(path, np.ascontiguousarray(voxels.swapaxes(0, 1)), imagej=True, photometric="minisblack",
                     resolution=resolution, metadata=metadata)


def _require_whole(path: Path, content: bytes | mmap.mmap) -> None:
    """All pages and tags are there: tifffile leaves out those beyond the end of a file that was cut."""
    order = {b"II": "<", b"MM": ">"}.get(content[:2], "")
    version = struct.unpack(f"{order}H", content[2:4])[0] if order and len(content) >= 8 else None
    if version not in (42, 43):
        raise ReadError(f"{path} is not a TIFF: it begins with {content[:4]!r}; copy or download it again, or correct the "
                        "ending", code="E_FORMAT")
    word, count, entry = ("I", "H", "HHI4s") if version == 42 else ("Q", "Q", "HHQ8s")
    size, start = struct.calcsize("<" + entry), struct.calcsize("<" + count)
    seen: set[int] = set()
    try:
        place = struct.unpack_from(order + word, content, 4 if version == 42 else 8)[0]
        while place:
            if place in seen:  # tifffile would follow the circle for ever
                raise ReadError(f"{path} is damaged: its page {len(seen)} points back to an earlier one; copy or download it "
                                "again", code="E_DAMAGED")
            seen.add(place)
            last = place + start + size * struct.unpack_from(order + count, content, place)[0]
            for tag in range(place + start, last, size):
                _, kind, values, inside = struct.unpack_from(order + entry, content, tag)
                needed = _TYPE_BYTES.get(kind, 0) * values
                if needed > len(inside) and struct.unpack(order + word, inside)[0] + needed > len(content):
                    raise struct.error
            place = struct.unpack_from(order + word, content, last)[0]
    except (struct.error, OverflowError):
        raise ReadError(f"{path} is truncated: page {len(seen)} or what it points to lies beyond its {len(content)} bytes; "
                        "copy or download it again", code="E_TRUNCATED") from None


def _only_series(path: Path, file: tifffile.TiffFile) -> tifffile.TiffPageSeries:
    """The one image in a file, its kind checked."""
    found = [series for series in file.series if series.size]
    if len(found) != 1:
        shapes = ", ".join(f"{series.axes} {series.shape}" for series in found[:5])
        raise ReadError(f"{path} holds {len(found)} images of different shape or kind ({shapes}); save each as a file of its "
                        "own", code="E_DIMENSIONS")
    page = found[0].keyframe
    if int(page.compression) in _LOSSY:
        raise ReadError(f"{path} is compressed with loss ({_name(page.compression)}), which changes the values; use the original "
                        "images", code="E_LOSSY")
    if int(page.photometric) == _INVERTED:
        raise ReadError(f"{path} stores white as 0 (MINISWHITE, as tifffile does for bool arrays), which some programs invert; "
                        "save it as 8-bit grey with black as 0", code="E_COLOUR")
    if int(page.photometric) not in (_GREY, _RGB, _PALETTE):
        raise ReadError(f"{path} stores its values as {_name(page.photometric)}; grey, red-green-blue and palettes are "
                        "understood. Convert it", code="E_COLOUR")
    if page.dtype is None or page.dtype.kind not in "biuf":
        raise ReadError(f"{path} holds {page.dtype} values; integers or floats are expected", code="E_DTYPE")
    return found[0]


def _require_segments(path: Path, series: tifffile.TiffPageSeries, size: int) -> None:
    """Every strip and tile lies inside the file and can hold its part; tifffile would fill missing ones with zeros."""
    ratio = _LARGEST_RATIOS.get(int(series.keyframe.compression))
    needed_bytes = math.prod(series.shape) * series.keyframe.bitspersample // 8
    if ratio is not None and needed_bytes > ratio * size:  # told before the image takes memory
        raise ReadError(f"{path} is truncated or has a damaged header: {size} bytes cannot hold its image of {series.shape} "
                        f"({series.axes}); copy or download it again", code="E_TRUNCATED")
    for page in series.pages:
        if page is None:
            raise ReadError(f"{path} lacks a page of its image; copy or download it again", code="E_TRUNCATED")
        ends = [start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if not ends or min(page.databytecounts) == 0 or max(ends) > size:
            raise ReadError(f"{path} is truncated: page {page.index + 1} needs bytes beyond the {size} of the file, or has "
                            "none; copy or download it again", code="E_TRUNCATED")


def _values(path: Path, content: bytes, series: tifffile.TiffPageSeries) -> NDArray:
    try:
        return np.asarray(series.asarray())
    except ImportError:  # a module of a newer Python that knows the compression
        pass
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
    pages = [_through_pillow(path, content, series.keyframe, page.index) for page in series.pages if page is not None]
    return np.stack(pages).reshape(series.shape)


def _through_pillow(path: Path, content: bytes, page: tifffile.TiffPage, index: int) -> NDArray:
    """The values of a page like `page` whose compression tifffile alone does not know (LZW, fax); libtiff in Pillow does."""
    picture = TiffImageFile(io.BytesIO(content))
    picture.seek(index)
    values = np.asarray(picture)
    is_exact = values.shape == page.shape and values.dtype == page.dtype and page.bitspersample in _WHOLE_BITS
    if not is_exact or _ASSOCIATED in page.extrasamples:
        raise ReadError(f"{path} is compressed as {_name(page.compression)} with {page.bitspersample} bits of {page.dtype}, "
                        "which is not understood; save it without compression or with Deflate", code="E_COMPRESSION")
    return values


def _ordered(path: Path, series: tifffile.TiffPageSeries, values: NDArray) -> NDArray:
    """Samples (C, Z, Y, X) from axes in any order."""
    axes = series.axes
    moments = [axis for axis, size in zip(axes, values.shape, strict=True) if axis not in _SLICES + _CHANNELS + "YX" and size > 1]
    if moments or "Y" not in axes or "X" not in axes:
        raise ReadError(f"{path} has axes {axes} of {values.shape}; slices (Z), channels (C), rows (Y) and columns (X) are "
                        "understood. Save each point in time as a file of its own, or name the axis Z when it is slices",
                        code="E_DIMENSIONS")
    wanted = [axis for axis in axes if axis not in _SLICES + "YX"] + [axis for axis in axes if axis in _SLICES] + ["Y", "X"]
    turned = values.transpose([axes.index(axis) for axis in wanted])
    depth = math.prod(size for axis, size in zip(axes, values.shape, strict=True) if axis in _SLICES)
    samples = turned.reshape(-1, depth, *turned.shape[-2:])
    return samples.astype(np.uint8) if samples.dtype == bool else samples


def _stored(page: tifffile.TiffPage, samples: NDArray, spacing: Spacing | None) -> StoredImage:
    shape = (samples.shape[1], samples.shape[2], samples.shape[3])
    geometry, is_stated = plain_geometry(shape, spacing or UNKNOWN_SPACING_MM), spacing is not None
    notes = () if is_stated or shape[0] == 1 else (_NO_SPACING,)
    if int(page.photometric) == _PALETTE and len(samples) == 1 and page.colormap is not None:
        colours = np.asarray(page.colormap).T
        palette = (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)  # some writers use 8 of the 16 bits
        return StoredImage(samples, geometry, None, palette, is_grid_stated=is_stated, notes=notes)
    has_alpha = bool(page.extrasamples) and page.extrasamples[-1] in _ALPHA and len(samples) == page.samplesperpixel > 1
    colours = samples[:-1] if has_alpha else samples
    is_colour = int(page.photometric) == _RGB and len(colours) == 3
    return StoredImage(colours, geometry, samples[-1] if has_alpha else None, is_colour=is_colour, is_grid_stated=is_stated,
                       notes=notes)


def _name(value: object) -> str:
    """Name of a code of tifffile's enumerations, or the number of an unknown one."""
    return str(getattr(value, "name", value))
