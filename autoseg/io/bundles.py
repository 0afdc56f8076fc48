"""A bundle on disk: `bundle.json`, `spec.yaml`, `plan.json`, `fingerprint.json`, `model_card.md`, `members/`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoseg.core.bundle import BUNDLE_FORMAT, Bundle, Decisions, Member
from autoseg.core.errors import IncompatibleError, UnsafeError, UsageError
from autoseg.core.fingerprint import Fingerprint
from autoseg.io.atomic import replacing, sha256_file, write_text
from autoseg.io.plans import read_plan
from autoseg.io.specs import read_spec, write_spec
from autoseg.io.values import read_value, write_value

INDEX = "bundle.json"


@dataclass(frozen=True)
class _Index:
    """What `bundle.json` holds; it is written last, so a folder with it is complete."""

    members: tuple[Member, ...]
    decisions: Decisions
    digests: dict[str, str]
    format: int = BUNDLE_FORMAT


def write_bundle(folder: Path, bundle: Bundle, weights: Mapping[str, Path]) -> None:
    """Writes a bundle; `weights` maps each member's relative path to the file to copy.

    The index goes first when an old bundle is replaced, so that a killed run leaves no index over mixed files.
    """
    (folder / INDEX).unlink(missing_ok=True)
    (folder / "members").mkdir(parents=True, exist_ok=True)
    for relative, source in weights.items():
        with replacing(folder / relative) as part:
            shutil.copyfile(source, part)
    for old in (folder / "members").iterdir():
        if f"members/{old.name}" not in weights:
            old.unlink()
    write_spec(folder / "spec.yaml", bundle.spec)
    write_value(folder / "plan.json", bundle.plan)
    write_value(folder / "fingerprint.json", bundle.fingerprint)
    write_text(folder / "model_card.md", bundle.card)
    names = ["spec.yaml", "plan.json", "fingerprint.json", "model_card.md", *weights]
    digests = {name: sha256_file(folder / name) for name in names}
    write_value(folder / INDEX, _Index(bundle.members, bundle.decisions, digests))


def read_bundle(folder: Path) -> Bundle:
    """The bundle in a folder, every file checked against its digest.

    Raises:
        UsageError: the folder holds no bundle.
        UnsafeError: a file is missing, was changed, or lies outside the folder.
        IncompatibleError: the bundle comes from a newer autoseg.
    """
    if not (folder / INDEX).is_file():
        raise UsageError(f"{folder} holds no bundle ({INDEX} is missing)", hint="autoseg fit or autoseg train makes one")
    index = read_value(folder / INDEX, _Index)
    if index.format > BUNDLE_FORMAT:
        raise IncompatibleError(f"{folder / INDEX}: bundle format {index.format} is newer than this autoseg understands "
                                f"({BUNDLE_FORMAT}); update autoseg")
    for name, digest in index.digests.items():
        _check_file(folder, name, digest)
    unlisted = [member.weights for member in index.members if index.digests.get(member.weights) != member.sha256]
    if unlisted:
        raise UnsafeError(f"{folder / INDEX}: the weights {unlisted} have no matching digest", code="E_DIGEST")
    return Bundle(read_spec(folder / "spec.yaml"), read_plan(folder / "plan.json"), index.members,
                  index.decisions, read_value(folder / "fingerprint.json", Fingerprint),
                  (folder / "model_card.md").read_text(encoding="utf-8"), index.format)


def _check_file(folder: Path, name: str, digest: str) -> None:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UnsafeError(f"{folder / INDEX} names {name!r}, which lies outside the bundle", code="E_PATH_ESCAPE")
    if not path.is_file():
        raise UnsafeError(f"{path} is missing; the bundle is incomplete", hint="copy the bundle again", code="E_DIGEST")
    if sha256_file(path) != digest:
        raise UnsafeError(f"{path} differs from what was written (its digest does not match {INDEX})",
                          hint="copy the bundle again from where it was made", code="E_DIGEST")
