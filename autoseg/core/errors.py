"""Errors that a user can act on; each class carries the exit code of the command line."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


class AutosegError(Exception):
    """Something the user can mend: the message names the thing, what was found, what was expected and what to do.

    Args:
        message: the whole sentence for the user.
        code: stable identifier of this kind of error (`E_...`), used in `--json` results.
        hint: the next command to type; the command line prints it on a line of its own.
    """

    exit_code = 1
    default_code = "E_AUTOSEG"

    def __init__(self, message: str, *, code: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code or self.default_code
        self.hint = hint

    def __reduce__(self):  # keeps code and hint when the error crosses a process border
        return (_rebuild, (type(self), str(self), self.code, self.hint))


def _rebuild(kind: type[AutosegError], message: str, code: str, hint: str | None) -> AutosegError:
    return kind(message, code=code, hint=hint)


class UsageError(AutosegError):
    """The command line or an option does not make sense."""

    exit_code = 2
    default_code = "E_USAGE"


class DatasetError(AutosegError):
    """The images, labels or the specification of a dataset cannot be used as they are; nothing was changed."""

    exit_code = 3
    default_code = "E_DATASET"


class GeometryError(DatasetError):
    """Grids that must agree do not."""

    default_code = "E_GEOMETRY"


class ReadError(DatasetError):
    """A file cannot be read completely and exactly."""

    default_code = "E_READ"


class PartialError(AutosegError):
    """Some cases failed or were refused; the results of all others are valid."""

    exit_code = 4
    default_code = "E_PARTIAL"


class IncompatibleError(AutosegError):
    """Plan, bundle, dataset or software version do not fit each other."""

    exit_code = 5
    default_code = "E_INCOMPATIBLE"


class ResourceError(AutosegError):
    """Disk, memory or permission ran out; the command can be repeated and resumes."""

    exit_code = 6
    default_code = "E_RESOURCE"


class LockedError(AutosegError):
    """Another live run works in this folder."""

    exit_code = 7
    default_code = "E_LOCKED"


class UnsafeError(AutosegError):
    """Refused for safety: checksum mismatch, path escape, unsafe file."""

    exit_code = 8
    default_code = "E_UNSAFE"


def choose(choices: Mapping[str, T], name: str, what: str) -> T:
    """The entry of `choices` called `name`.

    Raises:
        UsageError: no such name; the message lists the choices, the nearest one first.
    """
    if name in choices:
        return choices[name]
    raise UsageError(unknown_name(name, list(choices), what))


def unknown_name(name: str, known: list[str], what: str) -> str:
    """Sentence for a name that is not among `known`, with the nearest spelling when there is one."""
    near = difflib.get_close_matches(name, known, n=1)
    did_you_mean = f" Did you mean {near[0]!r}?" if near else ""
    return f"{what} {name!r} is not known; known are {', '.join(sorted(known)) or 'none'}.{did_you_mean}"
