"""Entries of the arrays in a `.npz` file, as if each were a file: `set.npz/train_images/000123`.

An array that is compressed can be read from its beginning only. What holds one in memory as a whole would hold gigabytes, so
the decompressor's state is kept at some places of it, from which any entry is reached. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import math
import struct
import tokenize
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import ReadError
from autoseg.core.text import printable

ARCHIVE_ENDING = ".npz"
_ARRAY_ENDING = ".npy"
# Bytes of an array between two places where it can be taken up: decompressed in some 20 ms.
_STEP_BYTES = 8 * 2**20
# A state of zlib takes 50 kB, and so many 25 MB.
_MOST_STATES = 512
# Compressed bytes read at once: at most 1032 times as many come out (`io.images.stored`), 4 MB.
_BLOCK_BYTES = 2**12
# Decompressed pieces that one process keeps: of arrays up to 4 GB each has 12 MB at most.
_PIECES = 2
# Of arrays that are no images, one number or a few per case.
_MOST_VALUES_BYTES = 2**28
# The largest public array has 236,386 images; a damaged header can promise any number.
_MOST_ENTRIES = 10**7
# numpy's own limit against headers that take long to parse.
_MOST_HEADER_BYTES = 10_000
_ENCRYPTED = 0x1
_LOCAL_HEADER = struct.Struct("<26xHH")  # APPNOTE.TXT 6.3.10, 4.3.7: lengths of name and extra field end the 30 bytes

_DAMAGE = (zlib.error, EOFError, ValueError, TypeError, KeyError, SyntaxError, tokenize.TokenError, struct.error, RuntimeError,
           MemoryError)

Stamp: TypeAlias = tuple[str, int, int]


@dataclass(frozen=True)
class Entry:
    """One case in an archive: number `index` along the first axis of `array`."""

    archive: Path
    array: str
    index: int


@dataclass(frozen=True)
class ArrayHeader:
    """What the header of an array says.

    Attributes:
        shape: number of entries first.
        start: byte of its content where the numbers begin.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    is_fortran: bool
    start: int
    member: zipfile.ZipInfo

    @property
    def entry_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize


def entry_of(path: Path) -> Entry | None:
    """The entry that a path means; None for any other path. Looks at the name only."""
    name, parts = path.name, path.parts
    if len(parts) < 3 or not (name.isascii() and name.isdigit()) or not parts[-3].lower().endswith(ARCHIVE_ENDING):
        return None
    return Entry(path.parent.parent, path.parent.name, int(name))


def entry_names(array: str, header: ArrayHeader) -> list[str]:
    """Names of all entries below their archive, in order: `train_images/000123`, of equal length."""
    digits = max(6, len(str(header.shape[0] - 1)))
    return [f"{array}/{index:0{digits}d}" for index in range(header.shape[0])]


def stored_file(path: Path) -> Path:
    """The file on disk that holds what `path` means: the archive of an entry, else the path itself."""
    entry = entry_of(path)
    return path if entry is None else entry.archive


def stored_bytes(path: Path) -> int:
    """Bytes of a file, or of one entry of an archive.

    Raises:
        ReadError: the archive cannot be read.
        OSError: there is no such file.
    """
    entry = entry_of(path)
    return path.stat().st_size if entry is None else _header_of(entry).entry_bytes


def read_headers(archive: Path) -> dict[str, ArrayHeader]:
    """The arrays in an archive by name, in its order; their numbers are not read.

    Raises:
        ReadError: the file is missing, no archive, truncated or damaged, or holds something that is no array.
    """
    return dict(_headers(_stamp(archive)))


def entry_header(path: Path) -> ArrayHeader:
    """The header of the array that an entry is part of."""
    entry = entry_of(path)
    assert entry is not None, path
    return _header_of(entry)


def read_entry(path: Path) -> NDArray:
    """One entry, a copy; its axes are those of the array without the first.

    Before the first entry of an array is returned, all of it was compared with its checksum, once in each process.

    Raises:
        ReadError: see `read_headers`; no such array or entry; the array does not hold numbers; it is damaged.
    """
    entry = entry_of(path)
    assert entry is not None, path
    header = _header_of(entry)
    if entry.index >= header.shape[0]:
        raise ReadError(f"{entry.archive}: array {entry.array} has {header.shape[0]} entries, so there is none of number "
                        f"{entry.index}", code="E_ARRAY")
    start = header.start + entry.index * header.entry_bytes
    content = _content(_stamp(entry.archive), entry.array, start, start + header.entry_bytes)
    return np.frombuffer(content, header.dtype).reshape(header.shape[1:]).copy()


def entry_digest(path: Path) -> str:
    """SHA-256 of one entry: type, shape and numbers."""
    voxels = read_entry(path)
    digest = hashlib.sha256(f"{voxels.dtype.str} {voxels.shape} ".encode())
    digest.update(voxels.tobytes())
    return digest.hexdigest()


def read_values(archive: Path, array: str) -> NDArray:
    """A whole array of numbers or texts, one or a few per case.

    Raises:
        ReadError: see `read_entry`; larger than 256 MB, which is no list of values.
    """
    header = require_array(archive, array)
    if header.member.file_size > _MOST_VALUES_BYTES:
        raise ReadError(f"{archive}: array {array} has {header.member.file_size} bytes, too many for one value per case; name "
                        "the array of the labels", code="E_TOO_LARGE")
    content = _content(_stamp(archive), array, header.start, header.member.file_size)
    return np.frombuffer(content, header.dtype).reshape(header.shape)


def require_array(archive: Path, array: str) -> ArrayHeader:
    """The header of an array of numbers or texts that can be read entry by entry.

    Raises:
        ReadError: there is none of this name; it holds Python objects, is stored column by column, or has no axis.
    """
    headers = read_headers(archive)
    if array not in headers:
        raise ReadError(f"{archive} has no array {printable(array)!r}; it has {arrays_text(archive)}", code="E_ARRAY")
    header = headers[array]
    if header.dtype.hasobject:
        raise ReadError(f"{archive}: array {array} holds Python objects, which only unpickling would read, and that can run "
                        "code; save it as numbers or texts", code="E_PICKLE")
    if header.dtype.kind not in "biufUS":
        raise ReadError(f"{archive}: array {array} holds {header.dtype}; numbers are expected", code="E_DTYPE")
    if not header.shape or header.is_fortran and len(header.shape) > 1:
        raise ReadError(f"{archive}: array {array} has shape {header.shape}{', column by column' if header.is_fortran else ''}; "
                        "cases must lie along its first axis, row by row (numpy.ascontiguousarray)", code="E_ARRAY")
    return header


def arrays_text(archive: Path) -> str:
    """The arrays of an archive in words: names and shapes."""
    named = [f"{printable(name)} {header.shape}" for name, header in read_headers(archive).items()]
    return ", ".join(named) or "no array"


def _header_of(entry: Entry) -> ArrayHeader:
    return require_array(entry.archive, entry.array)


def _stamp(archive: Path) -> Stamp:
    """Name, size and time of the last change: what is known of a file holds as long as they stay."""
    try:
        status = archive.stat()
    except OSError as error:
        code = "E_MISSING" if isinstance(error, FileNotFoundError) else None
        raise ReadError(f"{archive} cannot be read: {error.strerror}", code=code) from error
    return str(archive), status.st_size, status.st_mtime_ns


@lru_cache(maxsize=16)
def _headers(stamp: Stamp) -> dict[str, ArrayHeader]:
    path, size, _ = stamp
    if size == 0:
        raise ReadError(f"{path} is empty; copy or download it again", code="E_EMPTY")
    with _reading(path), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = [member.filename for member in members]
        if len(set(names)) < len(names):
            raise ReadError(f"{path} holds two arrays of one name; save it again", code="E_DAMAGED")
        return {member.filename.removesuffix(_ARRAY_ENDING): _read_header(path, archive, member) for member in members}


def _read_header(path: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> ArrayHeader:
    name = printable(member.filename)
    if not member.filename.endswith(_ARRAY_ENDING):
        raise ReadError(f"{path} holds {name}, which is no array; give a file as numpy.savez writes it", code="E_FORMAT")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & _ENCRYPTED:
        raise ReadError(f"{path}: {name} is compressed or encrypted in a way that is not read; save it again with "
                        "numpy.savez_compressed", code="E_COMPRESSION")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ReadError(f"{path}: {name} is of version {version}, for records; numbers are expected", code="E_DTYPE")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(file, max_header_size=_MOST_HEADER_BYTES)
        start = file.tell()
    header = ArrayHeader(shape, dtype, is_fortran, start, member)
    if not dtype.hasobject:
        _require_size(path, name, header)
    return header


def _require_size(path: str, name: str, header: ArrayHeader) -> None:
    """Raises where an array's header and the archive promise different sizes, before any of it is read."""
    promised = header.start + math.prod(header.shape) * header.dtype.itemsize
    found = header.member.file_size
    if found != promised or min(header.shape, default=0) < 0:
        raise ReadError(f"{path}: {name} has {found} bytes and its header promises {promised}; copy or download it again",
                        code="E_TRUNCATED" if found < promised else "E_SIZE")
    if header.shape and header.shape[0] > _MOST_ENTRIES:
        raise ReadError(f"{path}: {name} has {header.shape[0]} entries, more than {_MOST_ENTRIES}; divide it", code="E_TOO_LARGE")


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Names the file in whatever the libraries raise about its content."""
    try:
        yield
    except zipfile.BadZipFile as error:
        raise ReadError(f"{path} is no complete archive: {error}; copy or download it again", code="E_TRUNCATED") from error
    except _DAMAGE as error:
        raise ReadError(f"{path} is damaged: {error}; copy or download it again", code="E_DAMAGED") from error
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror or error}") from error


@dataclass(frozen=True)
class _Places:
    """Where an array can be taken up.

    Attributes:
        outputs: bytes of its content that come before each place, the first 0; and all of them at the end.
        inputs: bytes of the archive that come before each place.
        states: of the decompressor there; None where nothing is compressed.
    """

    outputs: tuple[int, ...]
    inputs: tuple[int, ...]
    states: tuple[Any, ...]


def _content(stamp: Stamp, array: str, start: int, end: int) -> bytes:
    """Bytes `start` to `end` of the content of an array."""
    outputs = _places(stamp, array).outputs
    parts = []
    number = bisect_right(outputs, start) - 1
    while start < end:
        stop = min(end, outputs[number + 1])
        parts.append(_piece(stamp, array, number)[start - outputs[number]:stop - outputs[number]])
        start, number = stop, number + 1
    return b"".join(parts)


@lru_cache(maxsize=_PIECES)
def _piece(stamp: Stamp, array: str, number: int) -> bytes:
    """The content between two places."""
    member = _headers(stamp)[array].member
    places = _places(stamp, array)
    wanted = places.outputs[number + 1] - places.outputs[number]
    state = places.states[number]
    decompressor = None if state is None else state.copy()
    found = bytearray()
    with _reading(stamp[0]), open(stamp[0], "rb") as file:
        end = _first_byte(file, member) + member.compress_size
        file.seek(places.inputs[number])
        while len(found) < wanted:
            block = file.read(min(_BLOCK_BYTES if state is not None else wanted, end - file.tell()))
            if not block:
                raise ReadError(f"{stamp[0]}: array {array} ends too early; copy or download it again", code="E_TRUNCATED")
            found += block if decompressor is None else decompressor.decompress(block)
    return bytes(found[:wanted])


@lru_cache(maxsize=8)
def _places(stamp: Stamp, array: str) -> _Places:
    """Goes through an array once, compares it with its checksum, and notes where it can be taken up."""
    member = _headers(stamp)[array].member
    step = max(_STEP_BYTES, member.file_size // _MOST_STATES)
    is_compressed = member.compress_type == zipfile.ZIP_DEFLATED
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS) if is_compressed else None
    with _reading(stamp[0]), open(stamp[0], "rb") as file:
        first = _first_byte(file, member)
        file.seek(first)
        outputs, inputs, states = [0], [first], [None if decompressor is None else decompressor.copy()]
        count, checksum, left = 0, 0, member.compress_size
        while left and count <= member.file_size:
            block = file.read(min(_BLOCK_BYTES, left))
            if not block:
                break
            left -= len(block)
            content = block if decompressor is None else decompressor.decompress(block)
            count, checksum = count + len(content), zlib.crc32(content, checksum)
            if count - outputs[-1] >= step and left:
                outputs.append(count)
                inputs.append(file.tell())
                states.append(None if decompressor is None else decompressor.copy())
    if count != member.file_size:
        raise ReadError(f"{stamp[0]}: array {array} holds {count} bytes and {member.file_size} were promised; copy or download "
                        "it again", code="E_TRUNCATED" if count < member.file_size else "E_SIZE")
    if checksum != member.CRC:
        raise ReadError(f"{stamp[0]}: the checksum of array {array} does not match; copy or download it again", code="E_DAMAGED")
    return _Places((*outputs, count), tuple(inputs), tuple(states))


def _first_byte(file: IO[bytes], member: zipfile.ZipInfo) -> int:
    """Where a member's compressed bytes begin: behind a header of its own, which the archive's list does not measure."""
    file.seek(member.header_offset)
    name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    return member.header_offset + _LOCAL_HEADER.size + name + extra
