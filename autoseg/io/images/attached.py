"""The voxels of NRRD and MHA files: all of them, in the file itself, with the checksum that compressed data end with.

References: NRRD format definition (teem.sourceforge.net/nrrd/format.html), sections 2 and 5; MetaIO documentation
(itk.org/Wiki/ITK/MetaIO). SimpleITK 2.5.7 returns a compressed MHA whose inflating failed, and a compressed NRRD whose
checksum is wrong, as if they were whole (measured). So compressed data are inflated here, once, and not by SimpleITK.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from autoseg.core.errors import ReadError
from autoseg.io.images.headers import Header, read_header
from autoseg.io.images.stored import PADDING_BYTES, require_ends

_CHUNK_BYTES, _INFLATED_BYTES = 2**16, 2**20  # read, and at most inflated, at once
_ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS  # as MetaIO inflates: the kind is told from the first bytes
_GZIP_ONLY = 16 + zlib.MAX_WBITS


@dataclass(frozen=True)
class Attached:
    """Where the voxels of a file lie in it.

    Attributes:
        start: their first byte.
        wbits: how zlib inflates them; None where they are raw.
        is_big_endian: their byte order.
        is_interleaved: the components of a voxel lie side by side.
    """

    start: int
    wbits: int | None
    is_big_endian: bool
    is_interleaved: bool


def find_voxels(path: Path) -> Attached:
    """Where the voxels of a .nrrd or .mha are.

    Raises:
        ReadError: in another file, or in an encoding that is neither raw nor gzip; or see `headers.read_header`.
    """
    header = read_header(path)
    return _nrrd(path, header) if path.name.lower().endswith(".nrrd") else _mha(path, header)


def inflated(path: Path, attached: Attached, promised_bytes: int) -> bytearray | None:
    """The bytes of compressed voxels, checksum verified; None where they are raw, and as many as promised.

    Raises:
        ReadError: there are fewer bytes than promised or many more, or they are damaged.
    """
    if attached.wbits is None:
        require_ends(path, path.stat().st_size, attached.start + promised_bytes)
        return None
    with path.open("rb") as file:
        file.seek(attached.start)
        found = _inflate(path, file, attached.wbits, promised_bytes)
    require_ends(path, len(found), promised_bytes)
    return found


def _nrrd(path: Path, header: Header) -> Attached:
    encoding = header.fields.get("encoding", "raw").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise _unknown_encoding(path, encoding)
    for skip in ("line skip", "byte skip"):  # before the voxels; raw ones are read by SimpleITK, which skips them
        if encoding != "raw" and header.fields.get(skip, header.fields.get(skip.replace(" ", ""), "0")) != "0":
            raise ReadError(f"{path} has {skip!r} in its header, which is not understood in compressed files; save it again",
                            code="E_HEADER")
    kinds = header.fields.get("kinds", "domain").lower().split()
    return Attached(header.start, None if encoding == "raw" else _GZIP_ONLY, header.fields.get("endian", "").lower() == "big",
                    kinds[:1] not in ([], ["domain"], ["space"], ["time"]))


def _mha(path: Path, header: Header) -> Attached:
    fields = header.fields
    if fields.get("binarydata", "True").upper() != "TRUE":
        raise _unknown_encoding(path, "text")
    order = fields.get("binarydatabyteordermsb") or fields.get("elementbyteordermsb") or "False"
    return Attached(header.start, _ZLIB_OR_GZIP if fields.get("compresseddata", "False").upper() == "TRUE" else None,
                    order.upper() == "TRUE", True)


def _inflate(path: Path, file: IO[bytes], wbits: int, promised_bytes: int) -> bytearray:
    """To the checksum at the end of the stream, but never much more than is promised."""
    stream, found = zlib.decompressobj(wbits), bytearray()
    try:
        while not stream.eof and len(found) <= promised_bytes + PADDING_BYTES:
            chunk = stream.unconsumed_tail or file.read(_CHUNK_BYTES)
            if not chunk:
                raise ReadError(f"{path} is truncated: the compressed data end too early; copy or download it again",
                                code="E_TRUNCATED")
            found += stream.decompress(chunk, _INFLATED_BYTES)
    except zlib.error as error:
        raise ReadError(f"{path} is damaged: {error}; copy or download it again", code="E_DAMAGED") from error
    return found


def _unknown_encoding(path: Path, encoding: str) -> ReadError:
    return ReadError(f"{path} holds its voxels as {encoding[:20]!r}; raw and gzip are understood. Save it again as one of these",
                     code="E_COMPRESSION")
