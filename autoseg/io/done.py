"""`done.json`: the last file a stage writes. It names the hash of all inputs and the digests of all outputs."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from autoseg.core.errors import ReadError
from autoseg.io.atomic import sha256_file, write_json
from autoseg.io.values import read_json

log = logging.getLogger(__name__)

DONE = "done.json"


def is_done(folder: Path, inputs: str) -> bool:
    """True when the stage that writes into `folder` finished with these inputs and its outputs are what it wrote.

    An output that was damaged or changed since is named in a warning, and the stage counts as unfinished.

    Args:
        inputs: hash of everything the stage depends on.
    """
    record = read_done(folder)
    if record is None or record["inputs"] != inputs:
        return False
    damaged = [name for name, output in record["outputs"].items() if not _is_intact(folder / name, output)]
    if damaged:
        log.warning("%s: %s is missing or differs from what was written there (size or SHA-256); it is made anew", folder,
                    ", ".join(damaged))
    return not damaged


def mark_done(folder: Path, inputs: str, outputs: Iterable[Path]) -> None:
    """Write `done.json` for the finished stage in `folder`.

    Args:
        inputs: hash of everything the stage depends on.
        outputs: files inside `folder`, each of which must exist.
    Raises:
        ValueError: an output lies outside the folder, which could then not be moved.
    """
    entries = {path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
               for path in sorted(outputs)}
    write_json(folder / DONE, {"inputs": inputs, "outputs": entries})


def read_done(folder: Path) -> dict[str, Any] | None:
    """The content of `done.json`: `inputs`, and `outputs` with `bytes` and `sha256` by name; None without a sound one."""
    if not (folder / DONE).is_file():
        return None
    try:
        record = read_json(folder / DONE)
    except ReadError:
        return None
    outputs = record.get("outputs") if isinstance(record, dict) else None
    sound = isinstance(outputs, dict) and isinstance(record.get("inputs"), str) and all(
        isinstance(output, dict) and {"bytes", "sha256"} <= set(output) for output in outputs.values())
    return record if sound else None


def is_as_written(path: Path) -> bool | None:
    """Whether a file is what the finished stage in its folder wrote; None where no stage says that it wrote it."""
    output = (read_done(path.parent) or {"outputs": {}})["outputs"].get(path.name)
    return None if output is None else _is_intact(path, output)


def _is_intact(path: Path, output: dict[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == output["bytes"] and sha256_file(path) == output["sha256"]
