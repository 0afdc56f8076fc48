"""The voxels of NRRD and MHA files: all of them, in the file itself, with the checksum that compressed data end with.

References: NRRD format definition (teem.sourceforge.net/nrrd/format.html), sections 2 and 5; MetaIO documentation
(itk.org/Wiki/ITK/MetaIO). SimpleITK 2.5.7 returns a compressed MHA whose inflating failed, and a compressed NRRD whose
checksum is wrong, as if they were whole (measured). So compressed data are inflated here, once, and not by SimpleITK.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from autoseg.core.errors import ReadError
from autoseg.io.images.stored import PADDING_BYTES, require_ends

# A header is some hundred bytes of text; key-value pairs of NRRD (gradients, notes) make some thousand.
_HEADER_BYTES = 2**20
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
        ReadError: in another file, or in an encoding that is neither raw nor gzip.
    """
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
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


def _nrrd(path: Path, header: bytes) -> Attached:
    end = re.search(rb"\r?\n\r?\n", header)
    text = header[:end.start() if end else None].decode("latin-1")
    written = re.findall(r"^([^:#\r\n]+): ?(.*?)\r?$", text, re.MULTILINE)
    fields = {key.strip().lower(): value.strip() for key, value in written}
    named = fields.get("data file", fields.get("datafile"))
    if named is not None or end is None:
        raise _detached(path, named)
    encoding = fields.get("encoding", "raw").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise _unknown_encoding(path, encoding)
    kinds = fields.get("kinds", "domain").lower().split()
    return Attached(end.end(), None if encoding == "raw" else _GZIP_ONLY, fields.get("endian", "").lower() == "big",
                    kinds[:1] not in ([], ["domain"], ["space"], ["time"]))


def _mha(path: Path, header: bytes) -> Attached:
    """`ElementDataFile` is the last field of a header."""
    end = re.search(rb"^[ \t]*ElementDataFile[ \t]*[=:][ \t]*([^\r\n]*?)[ \t]*\r?\n", header, re.MULTILINE)
    named = None if end is None else end[1].decode("latin-1")
    if end is None or named is None or named.upper() != "LOCAL":
        raise _detached(path, named)
    text = header[:end.start()].decode("latin-1")
    fields = dict(re.findall(r"^[ \t]*(\w+)[ \t]*[=:][ \t]*(.*?)[ \t]*\r?$", text, re.MULTILINE))
    if fields.get("BinaryData", "True").upper() != "TRUE":
        raise _unknown_encoding(path, "text")
    order = fields.get("BinaryDataByteOrderMSB") or fields.get("ElementByteOrderMSB") or "False"
    return Attached(end.end(), _ZLIB_OR_GZIP if fields.get("CompressedData", "False").upper() == "TRUE" else None,
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


def _detached(path: Path, named: str | None) -> ReadError:
    where = "does not say where its voxels are" if named is None else f"says that its voxels are in another file, {named[:80]!r}"
    return ReadError(f"{path} {where}; save the image as one file", code="E_DETACHED")


def _unknown_encoding(path: Path, encoding: str) -> ReadError:
    return ReadError(f"{path} holds its voxels as {encoding[:20]!r}; raw and gzip are understood. Save it again as one of these",
                     code="E_COMPRESSION")
