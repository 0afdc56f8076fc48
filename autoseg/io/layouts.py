"""File names to cases: patterns with `{case}`, `{group}`, `*` and `**`, matched against the names in a folder."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from autoseg.core.spec import DatasetSpec, LayoutSpec
from autoseg.io.images.endings import ENDINGS, PICTURE_ENDINGS, VOLUME_ENDINGS, image_ending
from autoseg.io.problems import Problem

# Role, and the channel's index for an input or None for a target.
FileKey: TypeAlias = tuple[str, int | None]

# Case ids become file names on every system, so: no separators, no leading dot or dash, at most 128 characters.
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DEVICE_NAMES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_TOKENS = re.compile(r"\{(?P<name>[a-z_]+)(?::(?P<shape>[^{}/]+))?\}|\*\*/|\*\*|\*")
# Inside the braces after the colon: any text, one character, one character of a set.
_SHAPE_TOKENS = re.compile(r"\*|\?|\[!?[^\]]+\]")


@dataclass(frozen=True)
class Files:
    """Regular files below a folder.

    Attributes:
        names: relative, with forward slashes, sorted. Hidden files and macOS's `._*` companions are left out.
        skipped: other things that lie there, each with the reason.
    """

    folder: Path
    names: tuple[str, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """What one layout finds in a folder.

    Attributes:
        cases: case id -> its files.
        groups: case id -> text that `{group}` stood for.
        unused: names that match no pattern.
        left_out: names that the layout leaves out, and why.
    """

    cases: dict[str, dict[FileKey, Path]]
    groups: dict[str, str]
    problems: tuple[Problem, ...]
    unused: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...] = ()


def is_safe_id(case_id: str) -> bool:
    """True when a case id can be a file name on every system and never leads out of a folder."""
    return bool(_SAFE_ID.fullmatch(case_id)) and not case_id.endswith(".") and not _DEVICE_NAMES.fullmatch(case_id)


def list_files(folder: Path) -> Files:
    """All regular files below `folder`; links to files count, links to folders are not followed (they may go round)."""
    names, skipped = [], []
    for parent, folders, files in os.walk(folder):
        below = Path(parent).relative_to(folder)
        for name in [name for name in folders if (Path(parent) / name).is_symlink()]:
            skipped.append(f"{(below / name).as_posix()}: a link to a folder is not followed")
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        for name in files:
            if name.startswith("."):
                continue
            reason = _why_not_regular(Path(parent) / name)
            relative = (below / name).as_posix()
            if reason is None:
                names.append(relative)
            else:
                skipped.append(f"{relative}: {reason}")
    return Files(folder, tuple(sorted(names)), tuple(sorted(skipped)))


def collect(layout: LayoutSpec, files: Files) -> Found:
    """Every file that matches a pattern of `layout`, by case; a folder of masks counts as one file.

    Of several patterns the one with most literal text counts: `a_seg.png` is `{case}_seg.png` and not also `{case}.png`.
    """
    patterns: list[tuple[FileKey, str]] = [((role, index), pattern) for role, written in layout.inputs.items()
                                           for index, pattern in enumerate(written)]
    patterns += [((role, None), pattern) for role, pattern in layout.targets.items()]
    compiled = [(key, pattern_regex(pattern), pattern.endswith("/")) for key, pattern in patterns]
    literal = {key: len(_TOKENS.sub("", pattern)) for key, pattern in patterns}
    reasons = [(pattern_regex(pattern), reason) for pattern, reason in layout.leave_out.items()]
    found = Found({}, {}, (), ())
    problems, unused, left_out = [], [], []
    for name in files.names:
        reason = next((reason for regex, reason in reasons if regex.fullmatch(name)), None)
        if reason is not None:
            left_out.append((name, reason))
            continue
        path = files.folder / name
        matches = [(key, match, path.parent if is_folder else path) for key, regex, is_folder in compiled
                   if (match := regex.fullmatch(name)) and (image_ending(path) or not is_folder)]
        most = max((literal[key] for key, _, _ in matches), default=0)
        matches = [(key, match, place) for key, match, place in matches if literal[key] == most]
        if not matches:
            unused.append(name)
        for key, match, place in matches:
            problems += _add(found, key, layout.case_id, match, place)
    return replace(found, problems=tuple(problems), unused=tuple(unused), left_out=tuple(left_out))


@lru_cache(maxsize=256)
def pattern_regex(pattern: str) -> re.Pattern[str]:
    """The regular expression that a pattern stands for; matches the whole relative name.

    A pattern that ends in `/` matches every file in that folder.
    """
    if pattern.endswith("/"):
        pattern += "*"
    tokens = list(_TOKENS.finditer(pattern))
    shapes = {token["name"]: token["shape"] for token in reversed(tokens) if token["shape"]}
    seen: set[str] = set()
    parts, end = [], 0
    for token in tokens:
        parts += [re.escape(pattern[end:token.start()]), _token_regex(token, shapes, seen)]
        end = token.end()
    return re.compile("".join(parts) + re.escape(pattern[end:]))


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
    return LayoutSpec(layout.name, inputs if known else {})


def nnunet_layout(spec: DatasetSpec, files: Files) -> list[LayoutSpec]:
    """nnU-Net's names, `<case>_0000.<ending>` and so on, for each image ending that occurs in the folder."""
    roles = [entry for entry in spec.inputs if entry.kind == "image"]
    if len(roles) != 1:
        return []
    endings = {ending for name in files.names if (ending := image_ending(Path(name)))}
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
    written = {image_ending(Path(pattern)) for layout in spec.layouts for pattern in layout.inputs.get(role, ())}
    kinds = [kind for kind in (VOLUME_ENDINGS, PICTURE_ENDINGS) if written & set(kind)]
    return kinds[0] if len(kinds) == 1 else ENDINGS


def _has_whole_files(spec: DatasetSpec, role: str) -> bool:
    """True when a layout of the specification keeps all channels in one file (4-D, or colour)."""
    return any(len(layout.inputs.get(role, ())) == 1 for layout in spec.layouts)


def _token_regex(token: re.Match[str], shapes: dict[str, str], seen: set[str]) -> str:
    name = token["name"]
    if name is None:
        return {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*"}[token.group()]
    if name in seen:
        return f"(?P={name})"
    seen.add(name)
    return f"(?P<{name}>{_shape_regex(shapes[name]) if name in shapes else '[^/]+'})"


def _shape_regex(shape: str) -> str:
    parts, end = [], 0
    for token in _SHAPE_TOKENS.finditer(shape):
        wild = {"*": "[^/]*", "?": "[^/]"}.get(token.group()) or token.group().replace("[!", "[^")
        parts += [re.escape(shape[end:token.start()]), wild]
        end = token.end()
    return "".join(parts) + re.escape(shape[end:])


def _add(found: Found, key: FileKey, template: str, match: re.Match[str], path: Path) -> list[Problem]:
    named = match.groupdict()
    case_id = _TOKENS.sub(lambda token: named.get(token["name"]) or "", template) or path.name
    if not is_safe_id(case_id):
        return [Problem(case_id, "E_CASE_ID", f"{path}: {case_id!r} cannot be a case id; letters, digits, '.', '_' and '-' are "
                        "allowed, at most 128, the first a letter or a digit. Rename the file")]
    files = found.cases.setdefault(case_id, {})
    problems = []
    if files.setdefault(key, path) != path:
        problems.append(Problem(case_id, "E_DUPLICATE", f"two files for one channel: {files[key]} and {path}; remove one"))
    group = named.get("group")
    if group and found.groups.setdefault(case_id, group) != group:
        problems.append(Problem(case_id, "E_GROUP", f"files of one case lie under two patients, {found.groups[case_id]} and "
                                f"{group}"))
    return problems


def _why_not_regular(path: Path) -> str | None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if stat.S_ISREG(mode) else "not a regular file"
