"""File names to cases: patterns with `{case}`, `{group}`, `*` and `**`, matched against the names in a folder."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import regex

from autoseg.core.spec import DatasetSpec, LayoutSpec
from autoseg.core.text import has_control_characters, printable
from autoseg.io.entries import list_entries
from autoseg.io.images.endings import ENDINGS, JPEG_ENDINGS, PICTURE_ENDINGS, VOLUME_ENDINGS, image_ending, picture_ending
from autoseg.io.patterns import PLACES, filled, match_whole, pattern_regex
from autoseg.io.problems import Problem

# Role, and the channel's index for an input or None for a target.
FileKey: TypeAlias = tuple[str, int | None]

# Case ids become file names on every system, so: no separators, no leading dot or dash, at most 128 characters.
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DEVICE_NAMES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
# nnU-Net's number of a channel, at the end of a name.
_CHANNEL_NUMBER = re.compile(r"_\d{4}(?=\.)")


@dataclass(frozen=True)
class Files:
    """Regular files below a folder.

    Attributes:
        names: relative, with forward slashes, sorted. Hidden files and macOS's `._*` companions are left out.
        skipped: other things that lie there, each with the reason; they are never opened.
        irregular: names among these, with the reason: where such a name fits a layout, a file of a case is missing.
        outside: names that are links to files outside the folder.
    """

    folder: Path
    names: tuple[str, ...]
    skipped: tuple[str, ...]
    irregular: dict[str, str] = field(default_factory=dict)
    outside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """What one layout finds in a folder.

    Attributes:
        cases: case id -> its files.
        groups: case id -> text that `{group}` stood for.
        unused: names that match no pattern.
        left_out: names that the layout leaves out, and why.
        values: case id -> what the other named parts of its paths stood for, and its rows in arrays of its archive.
    """

    cases: dict[str, dict[FileKey, Path]]
    groups: dict[str, str]
    problems: tuple[Problem, ...]
    unused: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    values: dict[str, dict[str, str]] = field(default_factory=dict)


def is_safe_id(case_id: str) -> bool:
    """True when a case id can be a file name on every system and never leads out of a folder."""
    return bool(_SAFE_ID.fullmatch(case_id)) and not case_id.endswith(".") and not _DEVICE_NAMES.fullmatch(case_id)


def list_files(folder: Path) -> Files:
    """All regular files below `folder`; links to files count, links to folders are not followed (they may go round)."""
    names, skipped, irregular, outside = [], [], {}, []
    root = folder.resolve()
    for parent, folders, files in os.walk(folder):
        below = Path(parent).relative_to(folder)
        for name in [name for name in folders if (Path(parent) / name).is_symlink()]:
            skipped.append(f"{printable((below / name).as_posix())}: a link to a folder is not followed")
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        for name in files:
            if name.startswith("."):
                continue
            path, relative = Path(parent) / name, (below / name).as_posix()
            reason = _why_not_read(path, relative)
            if reason is not None:
                irregular[relative] = reason
                skipped.append(f"{printable(relative)}: {reason}")
                continue
            names.append(relative)
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                outside.append(relative)
    return Files(folder, tuple(sorted(names)), tuple(sorted(skipped)), irregular, tuple(sorted(outside)))


def collect(layout: LayoutSpec, files: Files) -> Found:
    """Every file, or entry of an archive, that matches a pattern of `layout`, by case; a folder of masks counts as one file.

    Of several patterns the one with most literal text counts: `a_seg.png` is `{case}_seg.png` and not also `{case}.png`.

    Raises:
        ReadError: an archive that the layout speaks of cannot be read; see `entries.list_entries`.
    """
    entries = list_entries(layout, files.folder, files.names)
    patterns = _patterns(layout)
    compiled_patterns = [(key, pattern_regex(pattern), pattern.endswith("/")) for key, pattern in patterns]
    literal = {key: len(PLACES.sub("", pattern)) for key, pattern in patterns}
    reasons = [(pattern_regex(pattern), reason) for pattern, reason in layout.leave_out.items()]
    found = Found({}, {}, (), ())
    problems, unused, left_out = [], list(entries.unused), []
    names = [name for name in (*files.names, *files.irregular) if name not in entries.archives]
    for name in [*sorted(names), *entries.values]:
        reason = next((reason for pattern, reason in reasons if match_whole(pattern, name)), None)
        if reason is not None:
            left_out.append((name, reason))
            continue
        path = files.folder / name
        matches = [(key, match, path.parent if is_folder else path) for key, pattern, is_folder in compiled_patterns
                   if (not is_folder or image_ending(path)) and (match := match_whole(pattern, name))]
        most = max((literal[key] for key, _, _ in matches), default=0)
        matches = [(key, match, place) for key, match, place in matches if literal[key] == most]
        if name in files.irregular:
            problems += [_not_read(path, files.irregular[name], match, layout.case_id) for _, match, _ in matches[:1]]
            continue
        if not matches:
            unused.append(name)
        for key, match, place in matches:
            problems += _add(found, key, layout.case_id, match, place, entries.values.get(name, {}))
    problems += [problem for name in unused for problem in _extra_channel(layout, found, files.folder, name)]
    return replace(found, problems=tuple(problems), unused=tuple(unused), left_out=tuple(left_out))


def _patterns(layout: LayoutSpec) -> list[tuple[FileKey, str]]:
    """Every pattern of a layout with what it finds."""
    patterns: list[tuple[FileKey, str]] = [((role, index), pattern) for role, written in layout.inputs.items()
                                           for index, pattern in enumerate(written)]
    return [*patterns, *(((role, None), pattern) for role, pattern in layout.targets.items())]


def _extra_channel(layout: LayoutSpec, found: Found, folder: Path, name: str) -> list[Problem]:
    """A file named like one more channel of a case: nnU-Net's `<case>_0002`, where the specification has two."""
    for role, written in layout.inputs.items():
        for pattern in dict.fromkeys(_CHANNEL_NUMBER.sub("_{channel_number:[0-9][0-9][0-9][0-9]}", entry) for entry in written):
            match = match_whole(pattern_regex(pattern), name) if "{channel_number:" in pattern else None
            case_id = None if match is None else filled(layout.case_id, match)
            if case_id in found.cases:
                return [Problem(case_id, "E_CHANNEL_EXTRA", f"{folder / name} is named like a channel of {role}, of which the "
                                f"specification has {len(written)}; remove the file. In a specification of your own you can also "
                                "list the channel, or state under leave_out of the layout why it does not count")]
    return []


def layout_values(spec: DatasetSpec, layout: LayoutSpec) -> DatasetSpec:
    """The specification with the label values that the files of `layout` have.

    Every layout of the result states its values in full, so that another layout can still be taken.
    """
    if not any(entry.values for entry in spec.layouts):
        return spec
    written = {label.name: label.value for label in spec.labels}
    values = written | layout.values
    return replace(spec, labels=tuple(replace(label, value=values[label.name]) for label in spec.labels),
                   layouts=tuple(replace(entry, values=written | entry.values) for entry in spec.layouts))


def flat(layout: LayoutSpec) -> LayoutSpec:
    """The same file names, all in one folder, without targets."""
    inputs = {role: tuple(pattern.rpartition("/")[2] for pattern in patterns) for role, patterns in layout.inputs.items()}
    known = all(re.search(r"\{case[:}]", pattern) for patterns in inputs.values() for pattern in patterns)
    left_out = {name: reason for pattern, reason in layout.leave_out.items()
                if _CHANNEL_NUMBER.search(name := pattern.rpartition("/")[2])}  # channels that do not count, in any folder
    return LayoutSpec(layout.name, inputs, leave_out=left_out) if known else LayoutSpec(layout.name, {})


def nnunet_layout(spec: DatasetSpec, files: Files) -> list[LayoutSpec]:
    """nnU-Net's names, `<case>_0000.<ending>` and so on, for each image ending that occurs in the folder."""
    roles = [entry for entry in spec.inputs if entry.kind == "image"]
    if len(roles) != 1:
        return []
    endings = {ending for name in files.names if (ending := picture_ending(Path(name)))}
    counts = {len(roles[0].channels), *([1] if _has_whole_files(spec, roles[0].role) else [])}
    return [LayoutSpec(f"nnunet {ending}", {roles[0].role: tuple(f"{{case}}_{index:04d}{ending}" for index in range(count))})
            for ending in _expected_endings(spec, roles[0].role) if ending in endings for count in sorted(counts, reverse=True)]


def single_files(spec: DatasetSpec, files: Files) -> Found | None:
    """Every image file in the folder as a case of its own; None where a case needs several files or there is none."""
    roles = [entry for entry in spec.inputs if entry.kind == "image"]
    if len(roles) != 1 or not (len(roles[0].channels) == 1 or _has_whole_files(spec, roles[0].role)):
        return None
    layouts = [LayoutSpec("files", {roles[0].role: (f"{{case}}{ending}",)})
               for ending in _expected_endings(spec, roles[0].role)]
    found = [collect(layout, files) for layout in layouts]
    cases: dict[str, dict[FileKey, Path]] = {}
    problems = [problem for entry in found for problem in entry.problems]
    for entry in found:
        for case_id, paths in entry.cases.items():
            if case_id in cases:
                problems.append(Problem(case_id, "E_DUPLICATE", "two files have this name and different endings; remove one"))
            cases.setdefault(case_id, paths)
    return Found(cases, {}, tuple(problems), ()) if cases else None


def _expected_endings(spec: DatasetSpec, role: str) -> tuple[str, ...]:
    """Volumes or pictures, as the specification's own layouts say: a preview beside a volume is not a case."""
    written = {picture_ending(Path(pattern)) for layout in spec.layouts for pattern in layout.inputs.get(role, ())}
    lossy = JPEG_ENDINGS if spec.input(role).lossy else ()
    kinds = [kind for kind in (VOLUME_ENDINGS, (*PICTURE_ENDINGS, *lossy)) if written & set(kind)]
    return kinds[0] if len(kinds) == 1 else (*ENDINGS, *lossy)


def _has_whole_files(spec: DatasetSpec, role: str) -> bool:
    """True when a layout of the specification keeps all channels in one file (4-D, or colour)."""
    return any(len(layout.inputs.get(role, ())) == 1 for layout in spec.layouts)


def _not_read(path: Path, reason: str, match: regex.Match[str], template: str) -> Problem:
    code = "E_FILE_NAME" if has_control_characters(str(path)) else "E_NOT_A_FILE"
    return Problem(printable(filled(template, match) or path.name), code, f"{printable(str(path))}: {reason}")


def _add(found: Found, key: FileKey, template: str, match: regex.Match[str], path: Path,
         rows: Mapping[str, str]) -> list[Problem]:
    named = {name: text for name, text in match.groupdict().items() if text is not None}
    case_id = filled(template, match) or path.name
    if not is_safe_id(case_id):
        return [Problem(case_id, "E_CASE_ID", f"{path}: {case_id!r} cannot be a case id; letters, digits, '.', '_' and '-' are "
                        "allowed, at most 128, the first a letter or a digit. Rename the file")]
    files = found.cases.setdefault(case_id, {})
    problems = []
    if files.setdefault(key, path) != path:
        problems.append(Problem(case_id, "E_DUPLICATE", f"two files for one channel: {files[key]} and {path}; remove one, or, if "
                                "they are different cases, say under case_id of the layout what tells them apart"))
    group = named.get("group")
    if group and found.groups.setdefault(case_id, group) != group:
        problems.append(Problem(case_id, "E_GROUP", f"files of one case lie under two patients, {found.groups[case_id]} and "
                                f"{group}"))
    values = found.values.setdefault(case_id, {})
    for name, text in {**named, **rows}.items():
        if name not in ("case", "group") and values.setdefault(name, text) != text:
            problems.append(Problem(case_id, "E_VALUE", f"{path}: {name} is {text!r} there, and {values[name]!r} by another file "
                                    "of the case; correct the names of the files"))
    return problems


def _why_not_read(path: Path, relative: str) -> str | None:
    """Why a file is not one that can be read; looks at it without opening it, since a pipe would block."""
    if has_control_characters(relative):
        return "its name holds control characters or is not UTF-8; rename it"
    try:
        mode = path.stat().st_mode
    except OSError as error:
        link = f"it is a link to {printable(os.readlink(path))}, which " if path.is_symlink() else ""
        return f"{link}cannot be read ({error.strerror})"
    return None if stat.S_ISREG(mode) else "not a regular file"
