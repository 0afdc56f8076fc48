"""Bundles and archives as an attacker would write them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path


def files_of(folder: Path) -> dict[str, bytes]:
    """Name -> content of every regular file that is no lock."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.name.startswith(".lock")}


def rewrite(bundle: Path, name: str, content: bytes) -> None:
    """Replaces a file of a bundle and its digest, as whoever makes a hostile bundle does."""
    (bundle / name).write_bytes(content)
    index = json.loads((bundle / "bundle.json").read_text())
    index["digests"][name] = sha256(content).hexdigest()
    for member in index["members"]:
        if member["weights"] == name:
            member["sha256"] = sha256(content).hexdigest()
    (bundle / "bundle.json").write_text(json.dumps(index))


def zipped(path: Path, entries: Iterable[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
    """An archive of these entries, in this order; names may repeat."""
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in entries:
            archive.writestr(entry, content)
    return path
