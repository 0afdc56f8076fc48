"""One live run per folder: a kernel lock, which dies with its process, and a note that names the holder."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

from autoseg.core.errors import LockedError
from autoseg.io.atomic import explaining, remove_abandoned, remove_leftovers, write_json

log = logging.getLogger(__name__)

# Folders that this process has held.
_held: set[Path] = set()

_USE = ".use"


@contextmanager
def locked(folder: Path, verb: str, *, wait: bool = False) -> Iterator[None]:
    """Holds the folder for the length of the block; temporary files that killed processes left in it are removed.

    The kernel frees the lock when its process dies, however it dies, so no stale lock can block a folder; the note
    beside it then tells whose work is taken over. No clock decides anything.

    Args:
        wait: wait for the end of another live process that holds it, which a warning names, instead of refusing. For work
            that may be done over the other's result. Not on a file system without kernel locks, where the file of a process
            that died on another host would be waited for without end.
    Raises:
        LockedError: another live process holds it; named with host, process number and start.
        ResourceError: the folder cannot be written to.
    """
    note = folder / ".lock.json"
    lock = FileLock(folder / ".lock")
    with explaining(folder / ".lock"):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            holder = _read_note(note)
            if not wait or isinstance(lock, SoftFileLock):
                raise LockedError(f"{folder} is in use by {holder}; two runs would overwrite each other",
                                  hint="wait until it ends, or stop that process") from error
            log.warning("%s is in use by %s; waiting for its end", folder, holder)
            lock.acquire()
    try:
        unclean = note.exists()
        if unclean:
            log.warning("taking over %s from %s, which did not end cleanly", folder, _read_note(note))
        remove_leftovers(folder, recursive=unclean)
        write_json(note, _own_note(verb))
        _held.add(folder.resolve())
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def was_held(folder: Path) -> bool:
    """Whether this process has held a folder, and so may have written to it."""
    return folder.resolve() in _held


@contextmanager
def reading(folder: Path, verb: str) -> Iterator[None]:
    """Inside the block nobody may rewrite the folder's files; any number of processes may read it. No folder, no lock.

    Raises:
        LockedError: a live process rewrites it.
        ResourceError: the folder cannot be written to.
    """
    if not folder.is_dir():
        yield
        return
    with _using(folder, verb, fcntl.LOCK_SH, "its files would change while they are read"):
        yield


@contextmanager
def rewriting(folder: Path, verb: str) -> Iterator[None]:
    """Inside the block nobody may read the folder's files.

    Raises:
        LockedError: live processes read it; all of them are named.
        ResourceError: the folder cannot be written to.
    """
    with _using(folder, verb, fcntl.LOCK_EX, "its files would change under them"):
        yield


@contextmanager
def _using(folder: Path, verb: str, kind: int, why: str) -> Iterator[None]:
    with explaining(folder / _USE):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / _USE, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not _taken(descriptor, kind):
            holders = ", ".join(_read_note(note) for note in _notes_of_the_living(folder)) or "another autoseg process"
            raise LockedError(f"{folder} is in use by {holders}; {why}", hint="wait until it ends, or stop that process")
        _notes_of_the_living(folder)
        with _noted(folder / f"{_USE}.{secrets.token_hex(4)}.json", verb):
            yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int, kind: int) -> bool:
    """True when the kernel grants the lock, and on a file system that has none."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        log.warning("this file system has no locks (%s): make sure that no other run uses the same folder", error.strerror)
    return True


@contextmanager
def _noted(note: Path, verb: str) -> Iterator[None]:
    """A note of one's own beside those of others; a kernel lock on it tells that its writer lives."""
    with explaining(note):
        held = os.open(note, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        _taken(held, fcntl.LOCK_EX)
        with explaining(note):
            os.write(held, json.dumps(_own_note(verb)).encode())
        yield
    finally:
        os.close(held)
        note.unlink(missing_ok=True)


def _notes_of_the_living(folder: Path) -> list[Path]:
    """Notes of processes that use the folder now; those of dead ones are removed."""
    return [note for note in sorted(folder.glob(f"{_USE}.*.json")) if not remove_abandoned(note)]


def _own_note(verb: str) -> dict[str, str | int]:
    return {"verb": verb, "host": socket.gethostname(), "process": os.getpid()}


def _read_note(path: Path) -> str:
    """Who holds the lock; the start is the note's own time, for the reader only."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        started = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
        return f"'autoseg {holder['verb']}' on host {holder['host']}, process {holder['process']}, started {started}"
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return "another autoseg process"
