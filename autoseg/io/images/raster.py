"""PNG, BMP and, where it is accepted, JPEG through Pillow; PNG of 16-bit colour through SimpleITK, because Pillow cuts it to
8 bits.

References: Portable Network Graphics (PNG) Specification, third edition, W3C 2025; JPEG, ITU-T T.81 (1992); bitmaps (BMP) and
their run-length encoding, Microsoft [MS-WMF] 2.2.2.3, 2.2.2.9 and 3.1.6.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from autoseg.core.errors import GeometryError, ReadError
from autoseg.core.geometry import Geometry
from autoseg.io.images.endings import JPEG_ENDINGS, picture_ending
from autoseg.io.images.labels import require_up_to
from autoseg.io.images.stored import LARGEST_RATIO, STRICTLY, Accepted, Note, StoredImage, is_plain, plain_geometry

# 4 GiB per channel as float32. A file of some megabytes can claim more ("decompression bomb"); a scan of a slide that
# really has more is cut into tiles to be trained on.
MAX_PIXELS = 2**30
# Pillow counts the bits of a row, 32 a pixel at most, in a C int (its decode.c); a longer one ends as if memory were out.
MAX_COLUMNS = (2**31 - 1) // 32 - 7
_PNG = b"\x89PNG\r\n\x1a\n"
_BMP = b"BM"
_JPEG = b"\xff\xd8\xff"
# Start of the pixels, size of the second header, bits of a pixel, colours of the palette ([MS-WMF] 2.2.2.3).
_BMP_HEADERS = struct.Struct("<10xII10xH16xI")
_READERS: dict[bytes, Callable[[IO[bytes]], PillowImage.Image]] = {_PNG: PngImageFile, _BMP: BmpImageFile, _JPEG: JpegImageFile}
_JPEG_END = b"\xff\xd9"
# A block of 8 x 8 pixels takes one bit at least, the shortest Huffman code of its first coefficient (T.81, F.1.2.1).
_LARGEST_JPEG_RATIO = 512
# Run lengths of a BMP may skip any number of pixels, which Pillow fills in one by one: 10 million a second (one core of an
# EPYC, 2026-11-23). More are worth another format.
MAX_RUN_LENGTH_PIXELS = 2**24
_BMP_ROWS_OF = 4  # bytes to which a row is filled up ([MS-WMF] 2.2.2.9); some writers leave that of the last row out
_EXIF_ORIENTATION = 0x0112  # Exif 2.32, 4.6.4: 5 to 8 exchange rows and columns
_TURNED = (5, 6, 7, 8)
# PNG colour types: 2 is red, green, blue; 4 adds alpha to grey; 6 has both.
_COLOUR_OR_ALPHA = (2, 4, 6)
_LARGEST = {".png": 65535, ".bmp": 255}
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, struct.error, zlib.error)


@dataclass(frozen=True)
class _Header:
    """The IHDR chunk of a PNG file."""

    width: int
    height: int
    bits: int
    colour_type: int


def decode(path: Path, content: bytes, accepted: Accepted = STRICTLY) -> StoredImage:
    """The picture in a file's content, as an image of one slice.

    A JPEG is turned as its Exif orientation says. Where JPEG is accepted, the content counts and not the ending: files of
    one dataset are often renamed from one to the other.

    Raises:
        ReadError: truncated, damaged, animated, of more than `MAX_PIXELS`, not of the format that its name says, or JPEG
            where that is not accepted; JPEG in the colours of print (CMYK).
    """
    notes = _require_format(path, content, accepted)
    if content.startswith(_JPEG):
        return _decode_jpeg(path, content, notes)
    header = _png_header(path, content) if content.startswith(_PNG) else None
    if header is not None and header.bits == 16 and header.colour_type in _COLOUR_OR_ALPHA:
        return _decode_deep_colour(path, header)
    picture = _open(path, io.BytesIO(_with_whole_palette(content) if content.startswith(_BMP) else content))
    try:
        picture.load()
        return _stored(picture, header, notes)
    except _DAMAGE as error:
        raise ReadError(f"{path} cannot be read completely: {error}; copy or download it again", code="E_DAMAGED") from error


def decode_geometry(path: Path) -> Geometry:
    """The grid of a picture, from its header only; also of a JPEG, whose size its compression did not change."""
    try:
        with path.open("rb") as file:
            _require_format(path, file.read(16), Accepted(lossy=True))
            file.seek(0)
            picture = _open(path, file)
            rows, columns = picture.height, picture.width
            is_turned = isinstance(picture, JpegImageFile) and _orientation(path, picture) in _TURNED
            return plain_geometry((1, columns, rows) if is_turned else (1, rows, columns))
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror}") from error


def encode_label(path: Path, label: NDArray, geometry: Geometry, ending: str) -> bytes:
    """File content of a label map (Z, Y, X) of one slice, in 8 or 16 bits of grey.

    Raises:
        GeometryError: more than one slice, or a grid with a place in a patient.
        ReadError: a value is negative or beyond what the format holds.
    """
    if label.shape[0] != 1 or not is_plain(geometry):
        raise GeometryError(f"{path}: {ending} holds one slice and no place in a patient, the image has {label.shape[0]} "
                            "slices on a grid of its own; write .nii.gz", code="E_GRID")
    require_up_to(_LARGEST[ending], label, path, ending)
    kind = np.uint8 if label.max() <= 255 else np.uint16
    stream = io.BytesIO()
    PillowImage.fromarray(np.ascontiguousarray(label[0].astype(kind))).save(stream, format=ending[1:].upper())
    return stream.getvalue()


def _require_format(path: Path, content: bytes, accepted: Accepted) -> tuple[Note, ...]:
    """What is odd about the format of a file that can be read."""
    ending = picture_ending(path)
    wanted = _BMP if ending == ".bmp" else _JPEG if ending in JPEG_ENDINGS else _PNG
    found = next((kind for kind in _READERS if content.startswith(kind)), None)
    if found == wanted and (wanted != _JPEG or accepted.lossy):
        return ()
    if found is not None and accepted.lossy:
        name = {_PNG: "PNG", _BMP: "BMP", _JPEG: "JPEG"}[found]
        return (Note("W_ENDING", f"the file ends in {ending} and holds {name}, as which it is read"),)
    if found == _JPEG:
        raise ReadError(f"{path} is named like a lossless format and holds JPEG, whose compression changes the values; use "
                        "the original images", code="E_LOSSY")
    raise ReadError(f"{path} does not hold what its name says: it begins with {content[:8]!r}, {wanted!r} is expected; copy "
                    "or download it again, or correct the ending", code="E_FORMAT")


def _png_header(path: Path, content: bytes) -> _Header:
    """The header after all chunks were walked over and their checksums compared."""
    fields: tuple[Any, ...] = ()
    place, frames, kind, compressed_bytes = len(_PNG), 1, b"", 0
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", content[place:place + 8]) if place + 8 <= len(content) else (0, b"")
        end = place + 12 + length
        if not kind or end > len(content):
            raise ReadError(f"{path} is truncated: it ends after {len(content)} bytes, within its chunks; copy or download "
                            "it again", code="E_TRUNCATED")
        if zlib.crc32(content[place + 4:end - 4]) != struct.unpack(">I", content[end - 4:end])[0]:
            raise ReadError(f"{path} is damaged: the checksum of its chunk {kind!r} does not match; copy or download it "
                            "again", code="E_DAMAGED")
        if (kind == b"IHDR") != (place == len(_PNG)):  # readers differ in which of two they believe
            raise ReadError(f"{path} has a damaged header: its first chunk, and no other, is to be IHDR; copy or download it "
                            "again", code="E_HEADER")
        if kind == b"IHDR" and length == 13:
            fields = struct.unpack(">IIBBBBB", content[place + 8:end - 4])
        compressed_bytes += length if kind == b"IDAT" else 0
        if kind == b"acTL" and length == 8:
            frames = struct.unpack(">I", content[place + 8:place + 12])[0]
        place = end
    if not fields:
        raise ReadError(f"{path} has no PNG header (IHDR); copy or download it again", code="E_HEADER")
    header = _Header(fields[0], fields[1], fields[2], fields[3])
    _require_size(path, header.width, header.height)
    needed_bytes = header.width * header.height * header.bits // 8
    if needed_bytes > LARGEST_RATIO * compressed_bytes:  # told before the picture takes memory
        raise ReadError(f"{path} is truncated or has a damaged header: {compressed_bytes} compressed bytes cannot hold its "
                        f"{header.width} x {header.height} pixels (x, y); copy or download it again", code="E_TRUNCATED")
    if frames > 1:
        raise ReadError(f"{path} is an animation of {frames} pictures; save each as a case of its own, or all as a "
                        "multi-page TIFF when they are slices of one volume", code="E_ANIMATED")
    return header


def _require_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS or width > MAX_COLUMNS:
        raise ReadError(f"{path} has {width} x {height} pixels (x, y), more than {MAX_PIXELS}, or than {MAX_COLUMNS} in a row; "
                        "cut it into tiles", code="E_TOO_LARGE")


def _open(path: Path, stream: IO[bytes]) -> PillowImage.Image:
    """The picture, header read. Not `Image.open`, whose own limit on size is one for web servers."""
    first = stream.read(len(_PNG))
    size_bytes = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    reader = next(reader for kind, reader in _READERS.items() if first.startswith(kind))
    try:
        picture = reader(stream)
    except _DAMAGE as error:
        raise ReadError(f"{path} has a header that cannot be read: {error}; copy or download it again",
                        code="E_HEADER") from error
    _require_size(path, picture.width, picture.height)
    _require_bytes(path, picture, size_bytes)
    return picture


def _require_bytes(path: Path, picture: PillowImage.Image, size_bytes: int) -> None:
    """Raises a ReadError where a file is too small for its pixels, or may hold any number of them, before they are decoded."""
    size = f"{picture.width} x {picture.height} pixels (x, y)"
    is_run_lengths = isinstance(picture, BmpImageFile) and picture.tile[0].codec_name == "bmp_rle"
    if is_run_lengths and picture.width * picture.height > MAX_RUN_LENGTH_PIXELS:
        raise ReadError(f"{path} has {size} in run lengths, more than {MAX_RUN_LENGTH_PIXELS}; save it without compression, or "
                        "as PNG", code="E_TOO_LARGE")
    missing_bytes = _least_bytes(picture) - size_bytes
    if missing_bytes > 0:
        raise ReadError(f"{path} is truncated or has a damaged header: of its {size} at least {missing_bytes} bytes are missing; "
                        "copy or download it again", code="E_TRUNCATED")


def _least_bytes(picture: PillowImage.Image) -> int:
    """What a file takes that holds the pixels its header promises; a PNG is asked for its compressed bytes elsewhere."""
    if isinstance(picture, JpegImageFile):
        return picture.width * picture.height // _LARGEST_JPEG_RATIO
    if not isinstance(picture, BmpImageFile) or picture.tile[0].codec_name != "raw":
        return 0
    _, row_bytes, _ = cast("tuple[str, int, int]", picture.tile[0].args)
    return picture.tile[0].offset + row_bytes * picture.height - (_BMP_ROWS_OF - 1)


def _with_whole_palette(content: bytes) -> bytes:
    """A BMP whose palette has as many colours as its bits can tell; of black and white alone Pillow takes bits for pixels."""
    if len(content) < _BMP_HEADERS.size:
        return content
    start, header_size, bits, used = _BMP_HEADERS.unpack_from(content)
    if bits not in (4, 8) or header_size < 40 or not 0 < used <= 2:
        return content
    end = 14 + header_size + 4 * used
    missing = 4 * (2**bits - used)
    whole = bytearray(content[:end] + bytes(missing) + content[end:])
    struct.pack_into("<I", whole, 10, max(start, end) + missing)  # some files say that pixels start at the palette, or at 0
    struct.pack_into("<I", whole, 46, 2**bits)
    return bytes(whole)


def _orientation(path: Path, picture: PillowImage.Image) -> int | None:
    try:
        return picture.getexif().get(_EXIF_ORIENTATION)
    except _DAMAGE as error:
        raise ReadError(f"{path} has damaged Exif data: {error}; save it again without", code="E_DAMAGED") from error


def _decode_jpeg(path: Path, content: bytes, notes: tuple[Note, ...]) -> StoredImage:
    picture = _open(path, io.BytesIO(content))
    if picture.mode not in ("L", "RGB"):
        raise ReadError(f"{path} is a JPEG in the colours of print ({picture.mode}), which programs read differently; save it as "
                        "grey, or as red, green and blue", code="E_COLOUR")
    if _JPEG_END not in content:
        raise ReadError(f"{path} is truncated: it ends after {len(content)} bytes, before its end is marked; copy or download it "
                        "again", code="E_TRUNCATED")
    try:
        picture.load()
        upright = ImageOps.exif_transpose(picture)
    except _DAMAGE as error:
        raise ReadError(f"{path} cannot be read completely: {error}; copy or download it again", code="E_DAMAGED") from error
    return _stored(upright, None, notes)


def _stored(picture: PillowImage.Image, header: _Header | None, notes: tuple[Note, ...] = ()) -> StoredImage:
    geometry = plain_geometry((1, picture.height, picture.width))
    if picture.mode == "P":
        palette = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
        return StoredImage(_channels(np.asarray(picture)), geometry, _transparency(picture), palette, is_grid_stated=False,
                           notes=notes)
    if picture.mode in ("LA", "RGBA"):
        pixels = _channels(np.asarray(picture))
        return StoredImage(pixels[:-1], geometry, pixels[-1], is_colour=len(pixels) == 4, is_grid_stated=False, notes=notes)
    pixels = _channels(np.asarray(picture))
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    step = 255 // (2**header.bits - 1) if header is not None and picture.mode == "L" and header.bits in (2, 4) else 1
    return StoredImage(pixels // pixels.dtype.type(step), geometry, _transparency(picture), None, len(pixels) == 3, step, False,
                       notes)


def _transparency(picture: PillowImage.Image) -> NDArray | None:
    """Opacity (1, Y, X) of a picture in which one colour, or colours of the palette, are transparent."""
    if "transparency" not in picture.info or picture.mode not in ("P", "L", "RGB"):
        return None
    return np.asarray(picture.convert("RGBA"))[None, :, :, 3]


def _decode_deep_colour(path: Path, header: _Header) -> StoredImage:
    from autoseg.io.images import itk

    if header.colour_type == 4:
        raise ReadError(f"{path} is grey with alpha in 16 bits, which is not understood; save it without alpha", code="E_ALPHA")
    samples = itk.decode_picture(path)[:, None]
    has_alpha = len(samples) == 4  # its own, or that of one colour which is transparent
    colours = samples[:-1] if has_alpha else samples
    return StoredImage(colours, plain_geometry((1, header.height, header.width)), samples[-1] if has_alpha else None,
                       is_colour=len(colours) == 3, is_grid_stated=False)


def _channels(pixels: NDArray) -> NDArray:
    """(Y, X) or (Y, X, C) as (C, 1, Y, X)."""
    return pixels[None, None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)[:, None]
