"""Writing files so that a reader sees the old file or the new one, never half of one; and digests of content."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from autoseg.core.errors import ReadError, ResourceError
from autoseg.io.npz import entry_digest, entry_of
from autoseg.io.plain import to_plain

_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space and repeat the command",
    errno.EDQUOT: "the disk quota is used up; free some space and repeat the command",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "permission denied; choose a folder that you may write to",
    errno.EPERM: "permission denied; choose a folder that you may write to",
    errno.EFBIG: "the file is larger than this file system or `ulimit -f` allows",
    errno.ENAMETOOLONG: "the name is too long for this file system; choose a shorter one",
    errno.EIO: "the disk or the network drive reports an error; look at the system's log, or choose a folder on another disk",
}
# What else can be in the way of a folder.
_NO_FOLDER = {
    errno.EEXIST: "a file stands where a folder is needed; choose another folder",
    errno.ENOTDIR: "a file stands where a folder is needed; choose another folder",
    errno.ENOENT: "no folder can be made there; choose another folder",
}
# Errors that another place would not have.
_OF_THE_PLACE = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG}
ELSEWHERE = "name another folder: --root for what autoseg keeps, -o for what it makes"
# Some 5,000 lines when indented.
_READABLE_CHARACTERS = 100_000
_PART = re.compile(r"\..+\.[0-9a-f]{8}\.part")


@contextmanager
def replacing(path: Path, durable: bool = True, *, needed_bytes: int | None = None) -> Iterator[Path]:
    """A temporary sibling of `path` to write to; it takes the place of `path` when the block ends without an error.

    Missing parent folders are made. On an error the temporary file is removed and `path` stays as it was. What a killed
    process leaves is found by `remove_leftovers`.

    Args:
        path: the file to replace.
        durable: flush file and folder to the disk first, so that the new file survives a power cut.
        needed_bytes: what will be written, at most; for the message where the disk is full.
    Raises:
        ResourceError: disk full, quota used up, read-only, forbidden, or file too large.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    with explaining(path, needed_bytes):
        _make_folder(path.parent)
        with _claimed(part):
            try:
                yield part
                if durable:
                    _flush(part, os.O_RDWR)
                os.replace(part, path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        if durable:
            _flush(path.parent, os.O_RDONLY)


def remove_leftovers(folder: Path, *, recursive: bool = False) -> list[Path]:
    """Temporary files that killed processes left in `folder`, which are removed; those of living writers stay.

    Args:
        recursive: in its subfolders too.
    """
    removed = []
    for place, _, names in os.walk(folder):
        for part in (Path(place, name) for name in names if _PART.fullmatch(name)):
            if remove_abandoned(part):
                removed.append(part)
        if not recursive:
            break
    return removed


def remove_abandoned(path: Path) -> bool:
    """Removes a file that no living process holds by a kernel lock, as `replacing` does; False where one does or nobody knows.

    It is removed under that lock, so that one who has made the file and waits for the lock then sees that it is gone.
    """
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:  # it is gone, or it belongs to somebody else
        return False
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
    return True


def require_writable(folder: Path, largest_bytes: int = 0, *, make: bool = True) -> None:
    """Raises before work begins whose results could not be kept; leaves nothing in the folder.

    Args:
        make: the folder, where it is missing; else its nearest parent that exists is tried.
        largest_bytes: of the largest file that will be written; takes no space, but is refused where it is not allowed.
    Raises:
        ResourceError: the folder is read-only or forbidden, the disk full, or such a file too large.
    """
    with explaining(folder, largest_bytes or None):
        if make:
            _make_folder(folder)
        probe = (folder if make else _nearest_folder(folder)) / f".probe.{secrets.token_hex(4)}.part"
        descriptor = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            os.write(descriptor, b"a word")
            os.ftruncate(descriptor, max(largest_bytes, 1))
        finally:
            os.close(descriptor)
            probe.unlink(missing_ok=True)


def _nearest_folder(folder: Path) -> Path:
    """The folder or its nearest parent that exists."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    _make_folder(place)  # says that it is a file, where it is
    return place


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in _NO_FOLDER:
            raise
        raise ResourceError(f"{folder} cannot be made: {_NO_FOLDER[error.errno]}", hint=ELSEWHERE) from error


@contextmanager
def explaining(path: Path, needed_bytes: int | None = None) -> Iterator[None]:
    """Inside the block, a disk that is full, read-only or forbidden is a ResourceError that names `path`.

    Args:
        needed_bytes: what is written, at most; for the message.
    """
    try:
        yield
    except OSError as error:
        # Writers in C++ say in words only that they failed, as does numpy; a lock that is held is no failure of the disk.
        if isinstance(error, TimeoutError) or error.errno is not None and error.errno not in _ADVICE:
            raise
        advice = _ADVICE.get(error.errno or 0, f"{error}; the disk may be full, or the file too large for it")
        raise ResourceError(f"{path} cannot be written{_room(path, needed_bytes)}: {advice}",
                            hint=ELSEWHERE if error.errno in _OF_THE_PLACE else None) from error


def write_bytes(path: Path, content: bytes, durable: bool = True) -> None:
    """Replace `path` by `content`, atomically."""
    with replacing(path, durable, needed_bytes=len(content)) as part:
        part.write_bytes(content)


def write_text(path: Path, text: str, durable: bool = True) -> None:
    """Replace `path` by UTF-8 text, atomically."""
    write_bytes(path, text.encode("utf-8"), durable)


def write_json(path: Path, value: Any, durable: bool = True) -> None:
    """Replace `path` by a JSON document of `value`, atomically; keys keep their order, nan becomes null.

    Documents that people can still read are indented; larger ones are one line, which is written ten times faster.
    """
    plain = to_plain(value)
    text = json.dumps(plain, ensure_ascii=False, allow_nan=False)
    if len(text) <= _READABLE_CHARACTERS:
        text = json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n", durable)


def sha256_path(path: Path) -> str:
    """SHA-256 of a file's content, of an entry in an archive, or of the names and contents of the files in a folder."""
    if entry_of(path) is not None:
        return entry_digest(path)
    if not path.is_dir():
        return sha256_file(path)
    return hash_values([[file.name, sha256_file(file)] for file in sorted(path.iterdir()) if file.is_file()])


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal characters; a ReadError where it vanished or may not be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror}") from error


def sha256_bytes(content: bytes) -> str:
    """SHA-256 of `content`, as 64 hexadecimal characters."""
    return hashlib.sha256(content).hexdigest()


def hash_values(*values: Any) -> str:
    """SHA-256 of the values' canonical JSON: sorted keys, no spaces. Slice it for use in folder names."""
    canonical = json.dumps(to_plain(list(values)), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256_bytes(canonical.encode("utf-8"))


def _room(path: Path, needed_bytes: int | None) -> str:
    """What a file needs and what is free there, in words."""
    if needed_bytes is None:
        return ""
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    return f" ({needed_bytes:,} bytes are needed, {shutil.disk_usage(existing).free:,} are free there)"


@contextmanager
def _claimed(part: Path) -> Iterator[None]:
    """Makes `part` and holds it by a kernel lock, which ends with the process however it ends."""
    descriptor = _held(part)
    while not part.exists():  # `remove_abandoned` came before the lock
        os.close(descriptor)
        descriptor = _held(part)
    try:
        yield
    finally:
        os.close(descriptor)


def _held(part: Path) -> int:
    """Descriptor of a new file, with a kernel lock on it."""
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    with suppress(OSError):  # a file system without locks: there nobody removes leftovers either
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
