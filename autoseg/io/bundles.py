"""A bundle on disk: `bundle.json`, `spec.yaml`, `plan.json`, `fingerprint.json`, `model_card.md`, `manifest.json`, `members/`,
and `baseline.safetensors` where prediction needs the cheap model; where every unit holds the same case, `cases.json`, with its
images among the members.

`bundle.json` names every other file with its digest. A bundle may come from a stranger: nothing in it is run, no file is opened
that the index does not name, and none is believed before its digest was checked.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from numpy.typing import NDArray

from autoseg.core.bundle import BUNDLE_FORMAT, Bundle, Decisions, Member
from autoseg.core.case import Case
from autoseg.core.errors import AutosegError, DatasetError, IncompatibleError, UnsafeError, UsageError
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.provenance import Manifest
from autoseg.io.arrays import write_arrays
from autoseg.io.atomic import replacing, sha256_bytes, sha256_file, write_text
from autoseg.io.images import written_ending
from autoseg.io.manifests import MANIFEST
from autoseg.io.plans import read_plan
from autoseg.io.policy import Policy, check_signature
from autoseg.io.signatures import LARGEST_BYTES, SIGNATURE, parse_signature
from autoseg.io.specs import read_spec, write_spec
from autoseg.io.tensors import PICKLE_BEGINNINGS
from autoseg.io.values import from_plain, parse_json, read_value, write_value

INDEX = "bundle.json"
CARD = "model_card.md"
BASELINE = "baseline.safetensors"
CASES = "cases.json"
# Opened by `read_bundle`, so each of them needs a digest.
DOCUMENTS = ("spec.yaml", "plan.json", "fingerprint.json", CARD)
# An entry takes some 150 bytes; a bundle has a dozen.
LARGEST_INDEX = 2**20
# Some 1 kB per training case and channel: enough for 100,000 cases.
LARGEST_DOCUMENT = 2**28
# Names of files in a bundle: on every system a file of its own inside the bundle, neither hidden nor a device.
_SAFE_NAME = re.compile(r"(members/)?(?!(con|prn|aux|nul|com\d|lpt\d)(\.|$))[a-z0-9][a-z0-9._-]{0,127}(?<!\.)", re.IGNORECASE)
# Weights that are opened by running what they say.
PICKLE_ENDINGS = (".pth", ".pt", ".pkl", ".pickle", ".ckpt", ".bin", ".model", ".joblib", ".npy", ".npz")


@dataclass(frozen=True)
class Index:
    """What `bundle.json` holds; it is written last, so a folder with it is complete."""

    members: tuple[Member, ...]
    decisions: Decisions
    digests: dict[str, str]
    format: int = BUNDLE_FORMAT


def write_bundle(folder: Path, bundle: Bundle, weights: Mapping[str, Path], manifest: Manifest, *,
                 baseline: dict[str, NDArray] | None = None) -> None:
    """Writes a bundle; `weights` maps each member's relative path to the file to copy, `baseline` is the cheap model.

    The cases of the bundle are copied, too. The index goes first when an old bundle is replaced, so that a killed run leaves no
    index over mixed files; so does the
    signature, which was for the old bundle.
    """
    (folder / INDEX).unlink(missing_ok=True)
    (folder / SIGNATURE).unlink(missing_ok=True)
    (folder / "members").mkdir(parents=True, exist_ok=True)
    cases, images = _as_bundled(bundle.cases)
    files = {**weights, **images}
    for relative, source in files.items():
        with replacing(folder / relative) as part:
            shutil.copyfile(source, part)
    for old in (folder / "members").iterdir():
        if f"members/{old.name}" not in files:
            old.unlink()
    write_spec(folder / "spec.yaml", bundle.spec)
    write_value(folder / "plan.json", bundle.plan)
    write_value(folder / "fingerprint.json", bundle.fingerprint)
    write_text(folder / CARD, bundle.card)
    write_value(folder / MANIFEST, manifest)
    (folder / BASELINE).unlink(missing_ok=True)
    if baseline is not None:
        write_arrays(folder / BASELINE, baseline)
    (folder / CASES).unlink(missing_ok=True)
    if cases:
        write_value(folder / CASES, cases)
    more = (*(() if baseline is None else (BASELINE,)), *((CASES,) if cases else ()))
    digests = {name: sha256_file(folder / name) for name in (*DOCUMENTS, MANIFEST, *more, *files)}
    write_value(folder / INDEX, Index(bundle.members, bundle.decisions, digests))


def _as_bundled(cases: Sequence[Case]) -> tuple[tuple[Case, ...], dict[str, Path]]:
    """The cases with paths inside a bundle and without what else is known of them, and the file to copy to each path."""
    files: dict[str, Path] = {}

    def placed(name: str, source: Path) -> Path:
        if not source.is_file():
            raise DatasetError(f"{source} is no file of its own and cannot be put into a bundle, which needs this image of all "
                               "units; write it as NIfTI")
        relative = f"members/{name}{written_ending(source) or source.suffix}"
        files[relative] = source
        return Path(relative)

    bundled = []
    for place, case in enumerate(cases):
        inputs = {role: tuple(placed(f"case_{place}_{role}_{channel}", path) for channel, path in enumerate(paths))
                  for role, paths in case.inputs.items()}
        targets = {role: placed(f"case_{place}_target_{role}", path) for role, path in case.targets.items()}
        bundled.append(Case(case.id, case.group, inputs, targets))
    return tuple(bundled), files


def _read_cases(folder: Path, digests: Mapping[str, str]) -> tuple[Case, ...]:
    """The cases of a bundle, with paths in its folder.

    Raises:
        UnsafeError: a path names no file of the bundle.
    """
    if CASES not in digests:
        return ()

    def found(path: Path) -> Path:
        if path.as_posix() not in digests:
            raise UnsafeError(f"{folder / CASES} names {path.as_posix()[:200]!r}, which {INDEX} does not", code="E_PATH_ESCAPE")
        return folder / path

    return tuple(replace(case, inputs={role: tuple(map(found, paths)) for role, paths in case.inputs.items()},
                         targets={role: found(path) for role, path in case.targets.items()})
                 for case in read_value(folder / CASES, tuple[Case, ...]))


def read_bundle(folder: Path, policies: Sequence[Policy] = ()) -> Bundle:
    """The bundle in a folder, every file checked against its digest, and the index against its signature.

    Args:
        policies: who may have made it; each of them is obeyed.
    Raises:
        UsageError: the folder holds no bundle.
        UnsafeError: a file is missing, was changed, or lies outside the folder; a signature is wrong or missing.
        IncompatibleError: the bundle comes from a newer autoseg.
    """
    content = read_index_bytes(folder)
    signature = folder / SIGNATURE
    found = parse_signature(_small(signature, LARGEST_BYTES), str(signature)) if signature.exists() else None
    signed = check_signature(content, found, policies, str(folder))
    index = parse_index(content, str(folder / INDEX))
    for name, digest in index.digests.items():
        _check_file(folder, name, digest)
    try:
        return Bundle(read_spec(folder / "spec.yaml"), read_plan(folder / "plan.json"), index.members,
                      index.decisions, read_value(folder / "fingerprint.json", Fingerprint),
                      (folder / CARD).read_text(encoding="utf-8"), index.format, sha256_bytes(content), signed,
                      index.digests.get(BASELINE, ""), _read_cases(folder, index.digests))
    except (DatasetError, UnicodeDecodeError) as error:  # it is as it was written, so whoever wrote it was not autoseg
        raise UnsafeError(f"{folder} is no bundle that autoseg wrote: {error}", code="E_BUNDLE",
                          hint="take the bundle from where it was made") from error


def read_index_bytes(folder: Path) -> bytes:
    """The bytes of a bundle's `bundle.json`.

    Raises:
        UsageError: there is no bundle in the folder.
        UnsafeError: it is a file that is opened by running what it says.
    """
    if folder.is_file():
        refuse_pickle(folder)
        raise UsageError(f"{folder} is a file, and a bundle is a folder", hint=f"autoseg import {folder}")
    if not (folder / INDEX).is_file():
        raise UsageError(f"{folder} holds no bundle ({INDEX} is missing)", hint="autoseg fit or autoseg train makes one")
    return _small(folder / INDEX, LARGEST_INDEX)


def parse_index(content: bytes, source: str) -> Index:
    """The index in the bytes of a `bundle.json`, whose names are safe and which has a digest for all that is opened.

    Raises:
        UnsafeError: it is no index, or names files that no bundle has.
        IncompatibleError: it comes from a newer autoseg.
    """
    try:
        document = parse_json(content.decode("utf-8"), source=source)
    except (UnicodeDecodeError, AutosegError) as error:
        raise UnsafeError(f"{source} cannot be read: {error}", code="E_BUNDLE") from error
    written = document.get("format") if isinstance(document, dict) else None
    if isinstance(written, int) and written > BUNDLE_FORMAT:
        raise IncompatibleError(f"{source}: bundle format {written} is newer than this autoseg understands "
                                f"({BUNDLE_FORMAT}); update autoseg")
    index = from_plain(document, Index, source=source)
    refuse_names([*index.digests], source)
    unlisted = [name for name in DOCUMENTS if name not in index.digests]
    unlisted += [member.weights for member in index.members if index.digests.get(member.weights) != member.sha256]
    if unlisted or not index.members:
        what = f"{', '.join(unlisted)} has no matching digest" if unlisted else "no weights are listed"
        raise UnsafeError(f"{source}: {what}", code="E_DIGEST")
    pickles = [member.weights for member in index.members if not member.weights.endswith(".safetensors")]
    if pickles:
        raise UnsafeError(f"{source}: the weights {pickles[0]!r} are no safetensors file; nothing else is opened",
                          code="E_PICKLE")
    return index


def refuse_names(names: Iterable[str], source: str) -> None:
    """Refuses names of files that lead out of the bundle, that not every system can hold, or that some take for the same.

    Raises:
        UnsafeError: names the first of them.
    """
    seen: set[str] = set()
    for name in names:
        if not _SAFE_NAME.fullmatch(name):
            raise UnsafeError(f"{source} names {name[:200]!r}, which is no name for a file of a bundle (letters, digits, '.', "
                              "'_' and '-', in the bundle itself or in members/)", code="E_PATH_ESCAPE")
        if name.casefold() in seen:
            raise UnsafeError(f"{source} names {name!r} twice, or in two ways that some systems take for the same file",
                              code="E_TWINS")
        seen.add(name.casefold())


def refuse_pickle(path: Path) -> None:
    """Raises UnsafeError for a file that is opened by running what it says: by its ending, or by how it begins."""
    with path.open("rb") as file:
        start = file.read(4)
    is_torch_zip = start.startswith(PICKLE_BEGINNINGS) and path.suffix.lower() != ".autoseg"
    if path.suffix.lower() in PICKLE_ENDINGS or is_torch_zip:
        raise UnsafeError(f"{path} is a PyTorch checkpoint, pickle or archive; opening one can run code, so it is never opened",
                          code="E_PICKLE", hint="autoseg train makes a bundle, whose weights are safetensors")


def _small(path: Path, limit: int) -> bytes:
    """The content of a file that must be small."""
    if path.stat().st_size > limit:
        raise UnsafeError(f"{path} has {path.stat().st_size} bytes; at most {limit} are expected", code="E_BUNDLE")
    return path.read_bytes()


def _check_file(folder: Path, name: str, digest: str) -> None:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UnsafeError(f"{folder / INDEX} names {name!r}, which lies outside the bundle", code="E_PATH_ESCAPE")
    if not path.is_file():
        raise UnsafeError(f"{path} is missing; the bundle is incomplete", hint="copy the bundle again", code="E_DIGEST")
    if not name.startswith("members/") and path.stat().st_size > LARGEST_DOCUMENT:
        raise UnsafeError(f"{path} has {path.stat().st_size} bytes; at most {LARGEST_DOCUMENT} are expected", code="E_BUNDLE")
    if sha256_file(path) != digest:
        raise UnsafeError(f"{path} differs from what was written (its digest does not match {INDEX})",
                          hint="copy the bundle again from where it was made", code="E_DIGEST")
