"""Text files that people and other programs write: read within limits, and only what JSON can hold."""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path
from typing import Any

from autoseg.core.errors import ReadError
from autoseg.core.text import has_control_characters, printable

# Documents of people nest five levels deep, those of autoseg seven; pydantic and json recurse some 300 levels.
MAX_DEPTH = 50
# Integers that every JSON reader keeps exact are those of 64 bits at most (RFC 8259, section 6).
_INTEGERS = range(-2**63, 2**63)
_ORDINARY_CONTROL = "\n\t\r"


def read_document(path: Path, most_bytes: int) -> str:
    """The UTF-8 text of a regular file, without byte order mark.

    Raises:
        ReadError: see `read_content`; or it is not UTF-8.
    """
    content = read_content(path, most_bytes)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ReadError(f"{path} is not UTF-8 text: line {line} holds the byte {content[error.start]:#04x}; save it as UTF-8",
                        code="E_READ") from error


def read_content(path: Path, most_bytes: int) -> bytes:
    """The bytes of a regular file.

    Raises:
        ReadError: the file does not exist (E_MISSING), is a pipe, device or folder (E_NOT_A_FILE; it is never waited for), or
            has more than `most_bytes` (E_TOO_LARGE).
    """
    try:
        _require_regular(path, path.stat())
        # Not blocking: a pipe may have taken the place of the file meanwhile. Windows has neither.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            _require_regular(path, os.fstat(descriptor))
            content = file.read(most_bytes + 1)
    except FileNotFoundError as error:
        raise ReadError(f"{path} does not exist", code="E_MISSING") from error
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > most_bytes:
        raise ReadError(f"{path} has {path.stat().st_size} bytes; at most {most_bytes} are read. Is it the right file?",
                        code="E_TOO_LARGE")
    return content


def require_plain(document: Any, source: str) -> None:
    """Nothing in a document that JSON could not hold, or that breaks a screen, a file name or a page.

    Raises:
        ReadError: nested deeper than `MAX_DEPTH`; a number that is not finite or beyond 64 bits; a date, set or other
            type; text with control characters or half of a surrogate pair.
    """
    waiting: list[tuple[Any, str, int]] = [(document, "", 0)]
    while waiting:
        value, place, depth = waiting.pop()
        where = f"{source}: {printable(place[1:81])}: " if place else f"{source}: "
        if depth > MAX_DEPTH:
            raise ReadError(f"{where[:200]}nested deeper than {MAX_DEPTH} levels", code="E_DOCUMENT")
        if isinstance(value, dict):
            for key, child in value.items():
                _require_text(key, where)
                waiting.append((child, f"{place}.{key}", depth + 1))
        elif isinstance(value, list):
            waiting += [(child, place, depth + 1) for child in value]
        elif isinstance(value, str):
            _require_text(value, where)
        elif isinstance(value, int) and not isinstance(value, bool) and value not in _INTEGERS:
            raise ReadError(f"{where}a whole number of {len(str(abs(value)))} digits does not fit into 64 bits",
                            code="E_DOCUMENT")
        elif isinstance(value, float) and not math.isfinite(value):
            raise ReadError(f"{where}{value} is not a number that can be used", code="E_DOCUMENT")
        elif not isinstance(value, (bool, int, float)) and value is not None:
            raise ReadError(f"{where}{str(value)[:40]!r} is read as {type(value).__name__}; put it in quotes",
                            code="E_DOCUMENT")


def _require_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ReadError(f"{path} is not a regular file", code="E_NOT_A_FILE")


def _require_text(value: Any, where: str) -> None:
    if not isinstance(value, str):
        return
    if has_control_characters(value, allowed=_ORDINARY_CONTROL):
        raise ReadError(f"{where}the text {printable(value[:60])} holds control characters; remove them", code="E_DOCUMENT")
