"""One live run per folder: a kernel lock, which dies with its process, and a note that names the holder."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from autoseg.core.errors import LockedError
from autoseg.io.atomic import write_json

log = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path, verb: str) -> Iterator[None]:
    """Holds the folder for the length of the block.

    The kernel frees the lock when its process dies, however it dies, so no stale lock can block a folder; the note
    beside it then tells whose work is taken over.

    Raises:
        LockedError: another live process holds it; named with host, process number and start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / ".lock.json"
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        holder = _read_note(note)
        raise LockedError(f"{folder} is in use by {holder}; two runs would overwrite each other",
                          hint="wait until it ends, or stop that process") from error
    try:
        if note.exists():
            log.warning("taking over %s from %s, which did not end cleanly", folder, _read_note(note))
        write_json(note, {"verb": verb, "host": socket.gethostname(), "process": os.getpid()})
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def _read_note(path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        started = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
        return f"'autoseg {holder['verb']}' on host {holder['host']}, process {holder['process']}, started {started}"
    except (OSError, ValueError, KeyError):
        return "another autoseg process"
