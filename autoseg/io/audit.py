"""`log.jsonl`: one line per command, appended, each with the digest of the line before, so that a change shows.

A chain of digests tells that a line was changed, removed or put between others. It cannot tell that lines were cut off at the
end, or that the whole file was written anew: whoever needs that keeps the digest of the last line (`autoseg verify` prints it)
in another place and compares.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

from autoseg.io.atomic import explaining

LOG = "log.jsonl"
# What the first line names as the digest of the line before.
BEGINNING = "0" * 64
# Lines are some 500 bytes; a command waits at most so long for another one that appends at the same moment.
_PATIENCE_SECONDS = 10.0
_TAIL_BYTES = 4096


@dataclass(frozen=True)
class Chain:
    """What a log says of itself.

    Attributes:
        lines: number of lines.
        head: digest of the last line; `BEGINNING` for an empty log.
        problems: a sentence for every line that does not follow from the one before or cannot be read.
    """

    lines: int
    head: str
    problems: tuple[str, ...]


def append_entry(folder: Path, entry: Mapping[str, Any]) -> None:
    """Adds a line to the log of `folder`; it is on disk when this returns. Commands that end together take turns.

    Raises:
        ResourceError: disk full, read-only or forbidden.
        OSError, filelock.Timeout: the log cannot be read, or another process holds it for too long.
    """
    path = folder / LOG
    with explaining(path), FileLock(folder / f".{LOG}.lock", timeout=_PATIENCE_SECONDS), path.open("a+b") as file:
        last = _last_line(file)
        is_torn = bool(last) and not last.endswith(b"\n")  # a power cut while it was written; it stays and is chained
        line = json.dumps({"previous": digest(last), **entry}, allow_nan=False)
        file.write((b"\n" if is_torn else b"") + line.encode("ascii") + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_chain(path: Path) -> Chain:
    """Follows the digests of a log from its first line to its last."""
    previous, problems, count = BEGINNING, [], 0
    with path.open("rb") as file:
        for count, line in enumerate(file, 1):
            try:
                entry = json.loads(line)
                follows = entry["previous"] == previous
            except (ValueError, KeyError, TypeError, RecursionError):
                problems.append(f"line {count} is no entry of a log (cut off while it was written, or changed)")
            else:
                if not follows:
                    problems.append(f"line {count} does not follow line {count - 1}: a line was changed, removed or added")
            previous = digest(line)
    return Chain(count, previous, tuple(problems))


def digest(line: bytes) -> str:
    """SHA-256 of a line without its end; `BEGINNING` for none."""
    return hashlib.sha256(line.rstrip(b"\n")).hexdigest() if line else BEGINNING


def _last_line(file: BinaryIO) -> bytes:
    """The last line with its end, where it has one; empty for an empty file."""
    size = file.seek(0, os.SEEK_END)
    tail = b""
    while size and b"\n" not in tail[:-1]:
        step = min(size, _TAIL_BYTES)
        size -= step
        file.seek(size)
        tail = file.read(step) + tail
    return tail[tail[:-1].rfind(b"\n") + 1:]
