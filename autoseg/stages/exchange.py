"""Bundles that leave and arrive: as one file, signed where a key is given, checked before anything is believed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.core.bundle import Bundle
from autoseg.core.errors import UnsafeError, UsageError
from autoseg.io.archive import ENDING, index_and_signature, read_archive, write_archive
from autoseg.io.atomic import sha256_bytes, write_bytes
from autoseg.io.bundles import INDEX, parse_index, read_bundle, read_index_bytes
from autoseg.io.plain import to_plain
from autoseg.io.policy import Policy, check_signature
from autoseg.io.signatures import SIGNATURE, parse_signature, sign
from autoseg.stages.limits import require_free


def run_export(folder: Path, path: Path, *, key: Path | None, passphrase: bytes | None = None) -> Bundle:
    """Writes the bundle in `folder` into one file; the same bundle and key give the same bytes.

    Args:
        key: a private key to sign with; None keeps the signature that the bundle has, if any.
    Raises:
        UsageError: there is no bundle, the file is called otherwise, or the key cannot be used.
        UnsafeError: a file of the bundle was changed.
    """
    if path.suffix != ENDING:
        raise UsageError(f"{path} does not end in {ENDING}; bundles as one file do", hint=f"autoseg export {path.stem}{ENDING}")
    bundle = read_bundle(folder)
    content = read_index_bytes(folder)
    if sha256_bytes(content) != bundle.digest:
        raise UnsafeError(f"{folder} was changed while it was exported", code="E_DIGEST", hint="repeat the command")
    own = folder / SIGNATURE
    signature = own.read_bytes() if own.exists() else None
    if key is not None:
        signature = (json.dumps(to_plain(sign(content, key, passphrase)), indent=1) + "\n").encode("ascii")
    names = [INDEX, *parse_index(content, str(folder / INDEX)).digests]
    require_free(path.parent, sum((folder / name).stat().st_size for name in names), "the exported bundle")
    write_archive(folder, names, path, signature)
    return bundle


@dataclass(frozen=True)
class Imported:
    """An imported bundle and where it lies; `was_there`: the same bundle lay there before."""

    bundle: Bundle
    folder: Path
    was_there: bool


def run_import(path: Path, target: Path, policies: Sequence[Policy]) -> Imported:
    """Unpacks the bundle in a file to `target`; nothing is written unless all of it is sound and allowed.

    The same bundle once more is no error; its signature is taken over, so that a bundle can be signed later.

    Raises:
        UsageError: no such file, or something else lies at `target`.
        UnsafeError: the file is no sound bundle, or a policy does not allow it.
        IncompatibleError: the bundle comes from a newer autoseg.
        ResourceError: too little space, read-only or forbidden.
    """
    if target.exists():
        return Imported(_again(path, target, policies), target, True)
    if path.is_file():
        require_free(target.parent, path.stat().st_size, "the bundle")
    return Imported(read_archive(path, target, policies), target, False)


def _again(path: Path, target: Path, policies: Sequence[Policy]) -> Bundle:
    content, signature = index_and_signature(path)
    index = target / INDEX
    if not index.is_file() or index.read_bytes() != content:
        raise UsageError(f"{target} exists and holds something else; it is not overwritten", code="E_EXISTS",
                         hint=f"autoseg import {path.name} -o ANOTHER_FOLDER, or delete that one")
    source = f"{path}: {SIGNATURE}"
    check_signature(content, parse_signature(signature, source) if signature is not None else None, policies, str(path))
    bundle = read_bundle(target)
    if signature is not None:
        write_bytes(target / SIGNATURE, signature)
    return read_bundle(target, policies) if signature is not None else bundle
