"""A bundle as one file: a zip in which every entry is stored as it is, so that the same bundle gives the same bytes.

Nothing in an archive from elsewhere is believed. Entries that are compressed are refused, so that nothing can grow while it is
unpacked (a bomb), and so that no decompressor meets hostile bytes; weights do not become smaller anyway. Files are unpacked
beside the target, each compared with its digest, and only a complete and verified bundle gets its name.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import secrets
import shutil
import stat
import struct
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from autoseg.core.bundle import Bundle
from autoseg.core.errors import UnsafeError, UsageError
from autoseg.io.atomic import explaining, replacing
from autoseg.io.bundles import INDEX, LARGEST_INDEX, Index, parse_index, read_bundle, refuse_names, refuse_pickle
from autoseg.io.policy import Policy, check_signature
from autoseg.io.signatures import LARGEST_BYTES, SIGNATURE, Signature, parse_signature
from autoseg.io.tensors import stored_tensors

ENDING = ".autoseg"
# A bundle has a dozen files: some documents, and one file of weights for each fold.
MOST_ENTRIES = 256
# Read at once; also the largest list of entries that is read, 4 kB for each of them.
PIECE_BYTES = 2**20
# The first time that a zip can say; the time of an entry is no part of a bundle.
_NO_TIME = (1980, 1, 1, 0, 0, 0)
_REGULAR = stat.S_IFREG | 0o644
_ENCRYPTED = 0x1
# What zipfile raises on bytes that are no sound archive.
_BROKEN = (zipfile.BadZipFile, NotImplementedError, RuntimeError, struct.error, EOFError, ValueError, OverflowError, KeyError,
           IndexError)


def write_archive(folder: Path, bundle_files: Sequence[str], path: Path, signature: bytes | None) -> None:
    """Writes the files of a bundle into one file, the index first; the same files give the same bytes.

    Args:
        bundle_files: names relative to `folder`.
        signature: content of `signature.json`, or None.
    """
    with replacing(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for name in [INDEX, *sorted(set(bundle_files) - {INDEX})]:
            with (folder / name).open("rb") as source, archive.open(_entry(name, source), "w") as target:
                shutil.copyfileobj(source, target, PIECE_BYTES)
        if signature is not None:
            archive.writestr(_entry(SIGNATURE, io.BytesIO(signature)), signature)


def _entry(name: str, source: BinaryIO) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _NO_TIME)
    entry.create_system = 3  # Unix, on every system
    entry.external_attr = _REGULAR << 16
    entry.file_size = source.seek(0, os.SEEK_END)
    source.seek(0)
    return entry


def read_archive(path: Path, target: Path, policies: Sequence[Policy]) -> Bundle:
    """The bundle in a file that `write_archive` wrote, unpacked to `target`; on an error nothing is there.

    Raises:
        UsageError: the file or the target does not make sense.
        UnsafeError: the file is no sound bundle, or a policy does not allow it.
        IncompatibleError: the bundle comes from a newer autoseg.
        ResourceError: disk full, read-only or forbidden.
    """
    with opened(path) as archive:
        entries = checked_entries(archive, path)
        content = _content(archive, entries, INDEX, LARGEST_INDEX, path)
        index = parse_index(content, f"{path}: {INDEX}")
        _require_listed(index, entries, path)
        check_signature(content, _signature(archive, entries, path), policies, str(path))
        with _unpacked(target) as part:
            for name, entry in entries.items():
                _unpack(archive, entry, part / name, index.digests.get(name), path)
            bundle = read_bundle(part, policies)
            for member in bundle.members:
                stored_tensors(part / member.weights)
    return bundle


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive, of which only the list of entries has been read.

    Raises:
        UsageError: there is no such file.
        UnsafeError: it is no archive, damaged, or a file that is opened by running what it says.
    """
    if not path.is_file():
        raise UsageError(f"{path} is no file; give one that autoseg export wrote")
    refuse_pickle(path)
    with path.open("rb") as file:
        with _reading(path):
            archive = zipfile.ZipFile(_Careful(file))  # type: ignore[call-overload]
        with archive:
            yield archive


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Inside the block, whatever is wrong with the bytes of an archive is an UnsafeError."""
    try:
        yield
    except _BROKEN as error:
        raise _unsafe(path, f"it is damaged, or no archive ({error or type(error).__name__})") from error
    except OSError as error:
        if error.errno not in (errno.EINVAL, None):  # a place before the beginning: the archive lies about its parts
            raise
        raise _unsafe(path, f"it is damaged ({error})") from error


class _Careful:
    """A file of which no more than a piece is read at once: the list of entries may say that it takes gigabytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._file.tell())
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > PIECE_BYTES:
            raise zipfile.BadZipFile(f"its list of entries takes {wanted} bytes")
        return self._file.read(wanted)

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()


def checked_entries(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """The entries of an archive by name, of which none is anything but a stored file of a bundle.

    Raises:
        UnsafeError: too many, unsafe or equal names, links, folders, compressed or encrypted entries, more bytes than the file.
    """
    entries = archive.infolist()
    if len(entries) > MOST_ENTRIES:
        raise _unsafe(path, f"it has {len(entries)} entries, and a bundle at most {MOST_ENTRIES}")
    refuse_names([entry.orig_filename for entry in entries], str(path))
    for entry in entries:
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG) or entry.filename != entry.orig_filename:
            raise _unsafe(path, f"entry {entry.filename!r} is a link or no regular file", "E_PATH_ESCAPE")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise _unsafe(path, f"entry {entry.filename!r} is compressed ({entry.compress_size} bytes that say they become "
                                f"{entry.file_size}); autoseg export stores entries as they are", "E_BOMB")
        if entry.flag_bits & _ENCRYPTED:
            raise _unsafe(path, f"entry {entry.filename!r} is encrypted")
    total = sum(entry.file_size for entry in entries)
    if total > path.stat().st_size:
        raise _unsafe(path, f"its entries say that they take {total} bytes, and the file has {path.stat().st_size}", "E_BOMB")
    return {entry.filename: entry for entry in entries}


def _content(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], name: str, limit: int, path: Path) -> bytes:
    """The content of a small entry."""
    if name not in entries:
        raise _unsafe(path, f"it has no {name}, so it is no bundle")
    if entries[name].file_size > limit:
        raise _unsafe(path, f"{name} takes {entries[name].file_size} bytes, at most {limit} are expected")
    with _reading(path):
        return archive.read(entries[name])


def _signature(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], path: Path) -> Signature | None:
    if SIGNATURE not in entries:
        return None
    return parse_signature(_content(archive, entries, SIGNATURE, LARGEST_BYTES, path), f"{path}: {SIGNATURE}")


def _require_listed(index: Index, entries: dict[str, zipfile.ZipInfo], path: Path) -> None:
    unlisted = sorted(set(entries) - {*index.digests, INDEX, SIGNATURE})
    if unlisted:
        raise _unsafe(path, f"{unlisted[0]!r} is not listed in {INDEX}")
    missing = sorted(set(index.digests) - set(entries))
    if missing:
        raise _unsafe(path, f"{missing[0]!r} is listed in {INDEX} and not there", "E_DIGEST")


@contextmanager
def _unpacked(target: Path) -> Iterator[Path]:
    """A new folder beside `target` that gets its name when the block ends without an error, and is removed with one.

    So are folders above it that were made for it, and folders that a killed import of the same target has left.
    """
    made = [parent for parent in target.parents if not parent.exists()]
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    with explaining(target), ExitStack() as held:
        try:
            (part / "members").mkdir(parents=True)
            held.enter_context(_held(part))
            _remove_left(target)
            yield part
            _flush_folder(part / "members")
            _flush_folder(part)
            _rename(part, target)
            _flush_folder(target.parent)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            for parent in made:
                if parent.is_dir() and not any(parent.iterdir()):
                    parent.rmdir()
            raise


def _rename(part: Path, target: Path) -> None:
    try:
        os.rename(part, target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        raise UsageError(f"{target} exists and is not overwritten", hint="name another folder with -o") from error


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Marks a folder as in use by a live process: the kernel frees it when the process dies, however it dies.

    Raises:
        BlockingIOError: a live process uses it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove_left(target: Path) -> None:
    """Removes what killed imports of the same target have left; the folder of a live one stays."""
    for left in target.parent.glob(f".{target.name}.*.part"):
        with suppress(BlockingIOError), _held(left):
            shutil.rmtree(left)


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, digest: str | None, source: Path) -> None:
    """Writes an entry to a new file; `digest` is what its content must have, None for index and signature."""
    found, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for piece in _pieces(archive, entry, source):
            size += len(piece)
            found.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    if size != entry.file_size or (digest is not None and found.hexdigest() != digest):
        raise _unsafe(source, f"{entry.filename!r} differs from what was written (its digest does not match {INDEX})", "E_DIGEST")


def _pieces(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> Iterator[bytes]:
    with _reading(path), archive.open(entry) as content:
        while piece := content.read(PIECE_BYTES):
            yield piece


def index_and_signature(path: Path) -> tuple[bytes, bytes | None]:
    """Content of the index of an archive and of its signature, None where it has none."""
    with opened(path) as archive:
        entries = checked_entries(archive, path)
        signature = _content(archive, entries, SIGNATURE, LARGEST_BYTES, path) if SIGNATURE in entries else None
        return _content(archive, entries, INDEX, LARGEST_INDEX, path), signature


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unsafe(path: Path, what: str, code: str = "E_ARCHIVE") -> UnsafeError:
    return UnsafeError(f"{path} is refused: {what}; nothing was written", code=code,
                       hint="take the file again from where it was made, and compare its digest by another way")
