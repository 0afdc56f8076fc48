"""Preprocessed cases on disk: compressed arrays of which any box can be read, and a JSON record per case, written last."""

from __future__ import annotations

import io
import json
import logging
import math
import re
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

import blosc2
import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import DatasetError, ReadError, UnsafeError
from autoseg.core.geometry import Box, GridRecord, Shape
from autoseg.core.task import Arrays
from autoseg.io.atomic import explaining, hash_values, sha256_bytes, sha256_file, write_bytes
from autoseg.io.layouts import is_safe_id
from autoseg.io.plain import to_plain
from autoseg.io.values import read_value

_LOG = logging.getLogger(__name__)

SIDECAR = ".case.json"
# Below this an array is read whole and kept, so chunks gain nothing: writing and reading 36 x 50 x 35 float32 plainly takes
# half as long as through LZ4 (measured on two cores of an AMD EPYC), for 8 % more disk.
SMALL_BYTES = 2**20
# Blocks are what one decompression yields; 32 to 128 KiB read equally fast (measured there), and they fit level-2 caches.
BLOCK_BYTES = 64 * 1024
# A patch of 96 to 128 voxels a side, what a read usually wants, when the caller does not know better.
DEFAULT_CHUNK = (96, 96, 96)
# The codec that decompresses fastest: training reads far more often than preprocessing writes.
_COMPRESSION = {"codec": blosc2.Codec.LZ4, "clevel": 5, "nthreads": 1}
# An array of at most this share of the cache is kept whole: reading it costs about as much as reading one patch of it.
_WHOLE_SHARE = 64
_MEND = "autoseg plan_and_preprocess -d NAME, then repeat this command"
_ARRAY_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class ArrayEntry:
    """One array of a case: its file, and what is known without reading it."""

    name: str
    file: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class CaseEntry:
    """All arrays of a case, its way back, and the digest of what they were made from.

    Attributes:
        digest: of all other fields; empty in records of earlier versions.
    """

    case: str
    source_digest: str
    record: GridRecord
    arrays: tuple[ArrayEntry, ...]
    digest: str = ""

    def own_digest(self) -> str:
        return hash_values(replace(self, digest="").plain())

    def plain(self) -> dict[str, Any]:
        """As it is written. A store holds cases, whose records have no further ones: the field is left out, as it always was."""
        written = to_plain(self)
        assert written["record"].pop("further") == []  # records of units are put together from those of their cases
        return written


class Store:
    """Cases on the model grid in one folder; implements `core.task.CaseStore`.

    Several processes may write different cases of one folder. An object may be sent to another process; its cache of
    decompressed arrays stays behind. Each object compares a file with its SHA-256 when it first reads it.

    Args:
        folder: made when the first case is written.
        cache_bytes: decompressed arrays kept in memory; those not used for the longest time go first.
    """

    def __init__(self, folder: Path, *, cache_bytes: int = 512 * 2**20) -> None:
        self.folder = folder
        self.cache_bytes = cache_bytes
        self._entries: dict[str, CaseEntry] = {}
        self._verified: set[tuple[str, str]] = set()
        self._cache: OrderedDict[tuple[str, str], NDArray] = OrderedDict()
        self._cached_bytes = 0
        self._lock = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_open_store, (self.folder, self.cache_bytes))

    def write_case(self, case_id: str, arrays: Arrays, record: GridRecord, *, source_digest: str,
                   chunk_hint: Shape | None = None) -> None:
        """Store a case, replacing an older one; without its record, written last, the case does not exist.

        Args:
            arrays: by name; image-like ones are (..., Z, Y, X).
            record: the way from these arrays to the case grid.
            source_digest: hash of all that the arrays were made from.
            chunk_hint: patch size (z, y, x) that will be read most.
        Raises:
            UnsafeError: the id or the name of an array cannot be a file name.
            ResourceError: the disk is full, read-only or forbidden.
        """
        sidecar = self._sidecar(case_id)
        with explaining(sidecar):
            self.folder.mkdir(parents=True, exist_ok=True)
            sidecar.unlink(missing_ok=True)
        entries = tuple(self._write_array(case_id, name, array, chunk_hint or DEFAULT_CHUNK)
                        for name, array in arrays.items())
        entry = CaseEntry(case_id, source_digest, record, entries)
        entry = replace(entry, digest=entry.own_digest())
        # On one line: the encoder of the standard library is slow when it indents, and this runs once per case.
        write_bytes(sidecar, json.dumps(entry.plain()).encode(), durable=False)
        self._forget(case_id)
        self._entries[case_id] = entry

    def has_case(self, case_id: str, source_digest: str, *, check_digests: bool = False) -> bool:
        """True when the case was stored from this source and all its files have their recorded size.

        Args:
            check_digests: and their recorded content; damage is named in a warning.
        """
        if not self.is_recorded(case_id):
            return False
        try:
            entry = self._read_entry(case_id)
            if entry.source_digest != source_digest or not all(self._is_whole(array) for array in entry.arrays):
                return False
            for array in entry.arrays if check_digests else ():
                self._verify(case_id, array)
        except DatasetError as error:
            _LOG.warning("%s; the case is stored again", error)
            return False
        return True

    def is_recorded(self, case_id: str) -> bool:
        """True when the case was stored, in whatever state it is now."""
        return self._sidecar(case_id).is_file()

    def source_digest(self, case_id: str) -> str:
        """Digest of the files that a case was made from, as given to `write_case`."""
        return self._entry(case_id).source_digest

    def cases(self) -> tuple[str, ...]:
        """Ids of all stored cases, sorted."""
        return tuple(sorted(path.name.removesuffix(SIDECAR) for path in self.folder.glob(f"[!.]*{SIDECAR}")))

    def names(self, case_id: str) -> tuple[str, ...]:
        """Names of the arrays stored with a case."""
        return tuple(array.name for array in self._entry(case_id).arrays)

    def shape(self, case_id: str, name: str) -> tuple[int, ...]:
        """Shape of one array, without reading it."""
        return self._array_entry(case_id, name).shape

    def record(self, case_id: str) -> GridRecord:
        """The way back to the case grid."""
        return self._entry(case_id).record

    def array(self, case_id: str, name: str, box: Box | None = None) -> NDArray:
        """A copy of one array, or of the part inside a half-open box over its last three axes.

        Raises:
            ReadError: the file is damaged, or not what was stored.
        """
        entry = self._array_entry(case_id, name)
        self._verify(case_id, entry)
        region = _region(entry.shape, box)
        cached = self._cached(case_id, name)
        if cached is None and _byte_count(entry) * _WHOLE_SHARE <= self.cache_bytes:
            cached = _read_array(self.folder / entry.file, ...)
            self._keep(case_id, name, cached)
        if cached is not None:
            return cached[region].copy()
        return np.ascontiguousarray(_read_array(self.folder / entry.file, region))

    def _write_array(self, case_id: str, name: str, array: NDArray, chunk: Shape) -> ArrayEntry:
        if not _ARRAY_NAME.fullmatch(name):
            raise UnsafeError(f"array name {name!r} of case {case_id} must consist of letters, digits, '_' and '-'")
        content, ending = _encode(array, chunk)
        path = self.folder / f"{case_id}.{name}{ending}"
        # Neither renamed into place (without its record the case does not exist) nor flushed (which would cost more than
        # all else): a power cut leaves a shorter file, which `has_case` notices.
        with explaining(path, len(content)):
            path.unlink(missing_ok=True)
            path.write_bytes(content)
        return ArrayEntry(name, path.name, array.shape, array.dtype.str, len(content), sha256_bytes(content))

    def _is_whole(self, array: ArrayEntry) -> bool:
        path = self.folder / array.file
        return path.is_file() and path.stat().st_size == array.bytes

    def _sidecar(self, case_id: str) -> Path:
        if not is_safe_id(case_id):
            raise UnsafeError(f"case id {case_id!r} cannot be used as a file name")
        return self.folder / f"{case_id}{SIDECAR}"

    def _entry(self, case_id: str) -> CaseEntry:
        if case_id not in self._entries:
            if not self.is_recorded(case_id):
                raise DatasetError(f"case {case_id} is not in the store {self.folder}; preprocess the dataset again")
            self._entries[case_id] = self._read_entry(case_id)
        return self._entries[case_id]

    def _read_entry(self, case_id: str) -> CaseEntry:
        path = self._sidecar(case_id)
        entry = read_value(path, CaseEntry)
        if entry.digest and entry.digest != entry.own_digest():
            raise _damaged(path)
        return entry

    def _verify(self, case_id: str, array: ArrayEntry) -> None:
        """Once per object, at 0.5 ms for 0.3 MB and 15 ms for 19 MB (EPYC, 2026-11-22); training reads each case often."""
        if (case_id, array.name) in self._verified:
            return
        path = self.folder / array.file
        if not path.is_file() or sha256_file(path) != array.sha256:
            raise _damaged(path)
        with self._lock:
            self._verified.add((case_id, array.name))

    def _array_entry(self, case_id: str, name: str) -> ArrayEntry:
        found = next((array for array in self._entry(case_id).arrays if array.name == name), None)
        if found is None:
            raise DatasetError(f"case {case_id} has no array {name!r}, only {', '.join(self.names(case_id))}; "
                               "preprocess the dataset again")
        return found

    def _cached(self, case_id: str, name: str) -> NDArray | None:
        with self._lock:
            array = self._cache.get((case_id, name))
            if array is not None:
                self._cache.move_to_end((case_id, name))
            return array

    def _keep(self, case_id: str, name: str, array: NDArray) -> None:
        with self._lock:
            if (case_id, name) in self._cache:
                return
            self._cache[case_id, name] = array
            self._cached_bytes += array.nbytes
            while self._cached_bytes > self.cache_bytes:
                self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes

    def _forget(self, case_id: str) -> None:
        with self._lock:
            self._verified = {key for key in self._verified if key[0] != case_id}
            for key in [key for key in self._cache if key[0] == case_id]:
                self._cached_bytes -= self._cache.pop(key).nbytes


def _damaged(path: Path) -> ReadError:
    return ReadError(f"{path} is missing or differs from what was stored (its SHA-256 is not the recorded one): a disk, a copy "
                     "or another program has changed it; preprocess the dataset again, which stores damaged cases anew",
                     code="E_STORE_DAMAGED", hint=_MEND)


def _open_store(folder: Path, cache_bytes: int) -> Store:
    return Store(folder, cache_bytes=cache_bytes)


def _encode(array: NDArray, chunk: Shape) -> tuple[bytes, str]:
    """File content and ending of an array: chunked and compressed, or plain when it is small or has under three axes."""
    if array.nbytes < SMALL_BYTES or array.ndim < 3:
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        return buffer.getvalue(), ".npy"
    chunks = _chunk_shape(array.shape, chunk)
    blocks = _block_shape(chunks, array.dtype.itemsize)
    stored = blosc2.asarray(np.ascontiguousarray(array), chunks=chunks, blocks=blocks, cparams=_COMPRESSION)
    return stored.to_cframe(), ".b2nd"


def _chunk_shape(shape: tuple[int, ...], chunk: Shape) -> tuple[int, ...]:
    """One channel, one patch; whole axes that are hardly longer than the patch."""
    spatial = (size if size <= 1.5 * want else want for size, want in zip(shape[-3:], chunk, strict=True))
    return (1,) * (len(shape) - 3) + tuple(spatial)


def _block_shape(chunks: tuple[int, ...], item_bytes: int) -> tuple[int, ...]:
    blocks = list(chunks)
    while math.prod(blocks) * item_bytes > BLOCK_BYTES:
        longest = max(range(len(blocks)), key=lambda axis: blocks[axis])
        blocks[longest] = math.ceil(blocks[longest] / 2)
    return tuple(blocks)


def _read_array(path: Path, region: Any) -> NDArray:
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)[region]
        return blosc2.open(str(path), mode="r")[region]
    except (OSError, ValueError, RuntimeError, EOFError) as error:
        raise ReadError(f"{path} cannot be read ({error}); preprocess the dataset again", code="E_STORE_DAMAGED",
                        hint=_MEND) from error


def _region(shape: tuple[int, ...], box: Box | None) -> Any:
    if box is None:
        return ...
    if not all(0 <= start < stop <= size for (start, stop), size in zip(box, shape[-3:], strict=True)):
        raise ValueError(f"box {box} does not lie inside an array of {shape[-3:]} (z, y, x)")
    return (..., *(slice(start, stop) for start, stop in box))


def _byte_count(entry: ArrayEntry) -> int:
    return math.prod(entry.shape) * np.dtype(entry.dtype).itemsize
