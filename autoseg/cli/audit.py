"""Who ran what, when, and how it ended: the line that every command which writes something adds to the log."""

from __future__ import annotations

import getpass
import logging
import os
import re
import socket
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.cli.screen import Screen, versions

if TYPE_CHECKING:
    from autoseg.core.provenance import Origin

# Options whose values are written down. Every other value may be a path, and a path may hold a patient's name.
_TOLD = ("-c", "--configuration", "-d", "--dataset", "-f", "--fold", "--device", "--engine", "--jobs", "--memory", "--minutes",
         "--plan", "--precision", "--seed", "--target", "--tile-step", "--tta")
_typed: list[str] = []


def remember(arguments: Sequence[str]) -> None:
    """Keeps what was typed after `autoseg`."""
    _typed[:] = arguments


def origin() -> Origin:
    """The command that runs, and the versions, for the manifests of what it writes."""
    from autoseg.core.provenance import Origin

    return Origin(spoken(_typed), versions())


def spoken(arguments: Sequence[str]) -> str:
    """A command as it may be written down: verb, options and values that cannot be a path; `PATH` for all others."""
    words, told = ["autoseg", *arguments[:1]], False
    for argument in arguments[1:]:
        name, is_pair, value = argument.partition("=")
        if argument.startswith("--"):
            words.append(argument if not is_pair or (name in _TOLD and _is_plain(value)) else f"{name}=PATH")
        elif argument.startswith("-") and not told:
            words.append(argument[:2] + ("" if len(argument) == 2 else argument[2:] if argument[:2] in _TOLD and _is_plain(
                argument[2:]) else "PATH"))
        else:
            words.append(argument if told and _is_plain(argument) else "PATH")
        told = argument in _TOLD
    return " ".join(words)


def _is_plain(value: str) -> bool:
    """A name, number or list of them, and nothing that lies in the current folder."""
    return bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.,_:-]{0,63}", value)) and not os.path.lexists(value)


def log_command(screen: Screen | None, exit_code: int) -> None:
    """Adds the command's line to the log of the root folder, or of the output folder where there is no root folder.

    A log that cannot be written is told, and does not change how the command ended. A command that was refused as it was typed
    begins no log, and one that failed begins none in an output folder that it never took: that may be the folder of the images.
    """
    if screen is None:
        return
    folders = [folder for folder in (screen.root, screen.output) if folder is not None and os.path.isdir(folder)]
    if not folders:
        return
    import filelock

    from autoseg.core.errors import AutosegError, UsageError
    from autoseg.io.audit import LOG, append_entry
    from autoseg.io.lock import was_held

    folder = _writable(folders)
    is_ours = folder == screen.root or was_held(folder)
    if not (folder / LOG).exists() and (exit_code == UsageError.exit_code or (exit_code and not is_ours)):
        return
    try:
        append_entry(folder, _entry(screen, exit_code))
    except (AutosegError, OSError, filelock.Timeout) as error:
        logging.getLogger(__name__).warning("the command is missing in %s: %s", folder / LOG, error)


def _entry(screen: Screen, exit_code: int) -> dict[str, Any]:
    from autoseg.io.atomic import sha256_file

    seconds = screen.seconds()
    return {"when": (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="seconds"),
             "seconds": round(seconds, 3), "who": _user(), "host": socket.gethostname(), "process": os.getpid(),
             "autoseg": versions()["autoseg"], "command": spoken(_typed), "exit_code": exit_code, "error": screen.error,
             "made": {name: sha256_file(path) for name, path in screen.made.items() if path.is_file()}}


def _writable(folders: Sequence[Path]) -> Path:
    """The first folder that can be written to, or else the first."""
    return next((folder for folder in folders if os.access(folder, os.W_OK)), folders[0])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that no name belongs to
        return f"user {os.getuid()}"
