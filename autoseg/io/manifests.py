"""`manifest.json`: how an output folder was made; and whether its files are still those that were written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from autoseg.core.errors import AutosegError, UnsafeError
from autoseg.core.provenance import Manifest, Origin
from autoseg.io.atomic import sha256_file
from autoseg.io.values import read_value, write_value

MANIFEST = "manifest.json"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest of `folder`; one that differs in nothing but the command and the versions stays.

    A command that finds its work done must not claim it.
    """
    path = folder / MANIFEST
    if path.exists():
        try:
            earlier = read_value(path, Manifest)
        except AutosegError:
            earlier = None
        if earlier is not None and replace(earlier, origin=Origin()) == replace(manifest, origin=Origin()):
            return
    write_value(path, manifest)


def digests_of(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of files in `folder`, by name."""
    return {name: sha256_file(folder / name) for name in names}


def changed_outputs(folder: Path) -> tuple[list[str], int]:
    """A sentence for every output that the manifest of `folder` names and that is missing or differs; and how many it names.

    That of a bundle names none: they are listed in `bundle.json`.

    Raises:
        UnsafeError: the manifest itself cannot be read, or names a file outside the folder.
    """
    path = folder / MANIFEST
    try:
        manifest = read_value(path, Manifest)
    except AutosegError as error:
        raise UnsafeError(f"{path} cannot be trusted: {error}", code="E_MANIFEST") from error
    problems = []
    for name, digest in manifest.outputs.items():
        file = folder / name
        if not file.resolve().is_relative_to(folder.resolve()):
            raise UnsafeError(f"{path} names {name!r}, which lies outside the folder", code="E_PATH_ESCAPE")
        if not file.is_file():
            problems.append(f"{name} is missing")
        elif sha256_file(file) != digest:
            problems.append(f"{name} differs from what was written")
    return problems, len(manifest.outputs)
