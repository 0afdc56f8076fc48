"""Files that change while they are used: a copy that still runs, a scanner that still writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from autoseg.core.errors import AutosegError, ReadError
from autoseg.io.npz import stored_file


@contextmanager
def unchanged(paths: Sequence[Path]) -> Iterator[None]:
    """Raises after the block where one of the files is not what it was before it.

    Whatever the block made of such a file, its result and also its error, would be of no file that ever was. Size and
    time of the last change are compared, not the content, which costs some microseconds.

    Raises:
        ReadError: a file grew, shrank, was replaced or vanished.
    """
    before = [_stamp(path) for path in paths]
    try:
        yield
    except AutosegError as error:
        _require_equal(paths, before, error)
        raise
    _require_equal(paths, before, None)


def _require_equal(paths: Sequence[Path], before: Sequence[tuple[int, ...] | None], cause: AutosegError | None) -> None:
    for path, stamp in zip(paths, before, strict=True):
        now = _stamp(path)
        if now != stamp:
            what = "vanished" if now is None else f"changed (from {stamp[0]} to {now[0]} bytes)" if stamp else "appeared"
            raise ReadError(f"{path} {what} while it was read; wait until it is copied completely, then repeat the command",
                            code="E_CHANGED") from cause


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Size and time of the last change; None where there is no such file. A backup's hard link changes other times, and
    some network file systems the number of a file."""
    try:
        status = stored_file(path).stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
