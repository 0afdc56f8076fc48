"""`done.json`: the last file a stage writes. It names the hash of all inputs and the digests of all outputs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from autoseg.core.errors import ReadError
from autoseg.io.atomic import sha256_file, write_json
from autoseg.io.values import read_json

DONE = "done.json"


def is_done(folder: Path, inputs: str, *, check_digests: bool = False) -> bool:
    """True when the stage that writes into `folder` finished with these inputs and its outputs are still there.

    Args:
        inputs: hash of everything the stage depends on.
        check_digests: compare the content of every output, not only its size.
    """
    record = read_done(folder)
    if record is None or record["inputs"] != inputs:
        return False
    return all(_is_intact(folder / name, output, check_digests) for name, output in record["outputs"].items())


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


def _is_intact(path: Path, output: dict[str, Any], check_digest: bool) -> bool:
    if not path.is_file() or path.stat().st_size != output["bytes"]:
        return False
    return not check_digest or sha256_file(path) == output["sha256"]
