"""A first specification of images whose targets are no images: in folders of classes, beside a table, or in an archive."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from autoseg.core.errors import AutosegError
from autoseg.core.spec import ChannelSpec, DatasetSpec, GroupingSpec, InputSpec, LayoutSpec
from autoseg.io.images.endings import JPEG_ENDINGS, picture_ending
from autoseg.io.layouts import Files
from autoseg.io.npz import ARCHIVE_ENDING, ArrayHeader, entry_names, read_headers
from autoseg.io.sampling import SAMPLED_IMAGES, Content, content_of, spread
from autoseg.io.tables import Table, read_table

# Folders of more kinds than ImageNet-like collections of medicine have (ISIC 2019: 8, Fitzpatrick17k: 114) are patients.
_MOST_CLASSES = 128
# A class has more than one case; folders of one file each are something else.
_FEWEST_FILES = 2
_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing", "dev"}
# Names of folders that say what files are, not what is seen on them.
_NO_CLASS = re.compile(r"(images?|imgs?|pictures?|scans?|volumes?|data|dicom|nifti|masks?|labels?)(tr|ts|va|_.*)?", re.IGNORECASE)
# A table belongs to the images where it names so many of them.
_NAMED_SHARE = 0.5
_PATIENT = re.compile(r"patient|subject|person|lesion", re.IGNORECASE)
_TARGET = re.compile(r"diagnos|label|class|finding|target|^dx$|grade|stage|severity|outcome|disease|malignan", re.IGNORECASE)
_NO_TARGET = re.compile(r"sex|gender|view|licen|url|doi|split|fold|site|hospital|date|path|file", re.IGNORECASE)
# A column with more kinds of cells holds values or texts.
_MOST_KINDS = 20
_LISTED = 8


@dataclass(frozen=True)
class Classes:
    """What such a folder seems to be.

    Attributes:
        notes: (top-level key, beginning of the line below it) -> what is not sure there.
        found: what was seen, one fact a line.
    """

    spec: DatasetSpec
    notes: dict[tuple[str, str], str] = field(default_factory=dict)
    found: tuple[str, ...] = ()


def propose_classes(files: Files, name: str) -> Classes | None:
    """A first specification with targets from folders, a table or an archive; None where the folder has nothing of these.

    Args:
        name: of the dataset.
    Raises:
        AutosegError: the images cannot be read.
    """
    pictures = [file for file in files.names if picture_ending(Path(file)) is not None]
    if not pictures:
        return _of_archive(files, name)
    return _of_folders(files.folder, pictures, name) or _of_table(files, pictures, name)


def _of_archive(files: Files, name: str) -> Classes | None:
    """From the first archive in which an array of images has an array of values beside it."""
    for archive in [file for file in files.names if file.lower().endswith(ARCHIVE_ENDING)]:
        try:
            headers = read_headers(files.folder / archive)
        except AutosegError:
            continue
        pairs = _pairs(headers)
        if not pairs:
            continue
        images, values = _template([image for image, _ in pairs]), _template([value for _, value in pairs])
        is_split = "{split}" in images
        layout = LayoutSpec("as found", {"image": (f"{archive}/{images}/{{index}}",)}, arrays={"label": values},
                            case_id="{split}_{index}" if is_split else "{index}")
        first = pairs[0][0]
        paths = [files.folder / archive / entry for entry in entry_names(first, headers[first])]
        columns = headers[pairs[0][1]].shape[1:]
        count = columns[0] if columns and columns[0] > 1 else 1
        targets = [{"column": "label" if count == 1 else f"label.{place}"} for place in range(count)]
        before, _, after = images.partition("{split}")
        splits = sorted(image.removeprefix(before).removesuffix(after) for image, _ in pairs) if is_split else []
        return _classes(name, layout, paths, GroupingSpec(), targets, {
            ("options", f"- column: {targets[0]['column']}"): "names of the classes: classes: {\"0\": ..., \"1\": ...}",
        }, (f"archive     {archive}: {', '.join(f'{image} {headers[image].shape}' for image, _ in pairs)}",
            *([f"splits      {', '.join(splits)}"] if splits else [])), splits)
    return None


def _pairs(headers: dict[str, ArrayHeader]) -> list[tuple[str, str]]:
    """Arrays of images, each with the array of values that has as many rows and the most similar name."""
    images = [name for name, header in headers.items() if len(header.shape) >= 3 and header.dtype.kind in "biuf"]
    values = [name for name, header in headers.items() if len(header.shape) in (1, 2) and not header.dtype.hasobject]
    pairs = []
    for image in images:
        fitting = [value for value in values if headers[value].shape[0] == headers[image].shape[0]]
        if fitting:
            pairs.append((image, max(fitting, key=lambda value: _likeness(value, image))))
    return pairs


def _likeness(name: str, other: str) -> int:
    """Characters that two names share at their beginning and end."""
    return len(os.path.commonprefix([name, other])) + len(os.path.commonprefix([name[::-1], other[::-1]]))


def _template(names: Sequence[str]) -> str:
    """One name for all, `{split}` where their words differ: `{split}_images`."""
    if len(names) == 1:
        return names[0]
    before = os.path.commonprefix(list(names))
    before = before[:before.rfind("_") + 1]
    after = os.path.commonprefix([name[len(before):][::-1] for name in names])[::-1]
    return f"{before}{{split}}{after[after.find('_'):] if '_' in after else ''}"


def _of_folders(folder: Path, pictures: Sequence[str], name: str) -> Classes | None:
    """From one sub-folder per class, perhaps below one per split."""
    parts = [PurePosixPath(file).parts for file in pictures]
    if min(map(len, parts)) < 2 or len({len(part) for part in parts}) > 1:
        return None
    counts = Counter(part[-2] for part in parts)
    repeated = sum(count for count in Counter(part[-1] for part in parts).values() if count > 1)
    are_numbered = all(any(letter.isdigit() for letter in word) for word in counts)  # p1/t1.png, p2/t1.png: patients
    are_kinds = any(_NO_CLASS.fullmatch(word) or word.lower() in _SPLITS for word in counts)
    if (not 2 <= len(counts) <= _MOST_CLASSES or min(counts.values()) < _FEWEST_FILES or are_kinds
            or are_numbered and repeated > len(parts) / 2):
        return None
    above = list(parts[0][:-2])
    for place, _ in enumerate(above):
        words = {part[place] for part in parts}
        if len(words) > 1:
            above[place] = "{split}" if {word.lower() for word in words} <= _SPLITS else "*"
    pattern = "/".join([*above, "{class}", f"{{case}}{_ending(pictures)}"])
    splits = sorted({part[above.index("{split}")] for part in parts}) if "{split}" in above else []
    case_id = "{case}" if not _is_twice(parts, 1) else "{class}_{case}" if not _is_twice(parts, 2) or "{split}" not in above \
        else "{split}_{class}_{case}"
    layout = LayoutSpec("as found", {"image": (pattern,)}, case_id=case_id)
    listed = ", ".join(f"{word} ({count})" for word, count in sorted(counts.items())[:_LISTED])
    return _classes(name, layout, [folder / file for file in pictures], GroupingSpec(), [{"column": "class"}], {
        ("options", "- column: class"): "the classes are the folders; to name and order them: classes: {FOLDER: name, ...}",
    }, (f"images      {pattern}", f"classes     {listed}{' ...' if len(counts) > _LISTED else ''}"), splits)


def _is_twice(parts: Sequence[tuple[str, ...]], last: int) -> bool:
    """True where the last parts of two paths, without the ending of the file, are the same."""
    ends = Counter((*part[-last:-1], Path(part[-1]).stem) for part in parts)
    return max(ends.values()) > 1


def _of_table(files: Files, pictures: Sequence[str], name: str) -> Classes | None:
    """From a folder of images and the table that names most of them."""
    best: tuple[int, Table, str] | None = None
    for file in [file for file in files.names if file.lower().endswith((".csv", ".tsv"))]:
        try:
            table = read_table(files.folder / file)
        except AutosegError:
            continue
        found = _naming_column(table, pictures)
        if found is not None and (best is None or found[0] > best[0]):
            best = (found[0], table, found[1])
    if best is None or best[0] < _NAMED_SHARE * len(pictures):
        return None
    _, table, case_column = best
    folders = {PurePosixPath(file).parent.as_posix() for file in pictures}
    pattern = f"{{case}}{_ending(pictures)}" if folders == {"."} else f"{folders.pop()}/{{case}}{_ending(pictures)}" \
        if len(folders) == 1 else f"**/{{case}}{_ending(pictures)}"
    cells = {column: Counter(row[place].strip() for _, row in table.rows) for place, column in enumerate(table.columns)}
    patient = next((column for column in table.columns if _PATIENT.search(column) and column != case_column), None)
    target = _target_column(cells, (case_column, patient))
    grouping = GroupingSpec(table=table.path.relative_to(files.folder).as_posix(), case_column=case_column, group_column=patient)
    notes = {("grouping", "case_column:"): "names the images"}
    if patient is not None:
        notes["grouping", "group_column:"] = f"{len(cells[patient])} patients; folds do not divide them"
    if target is not None:
        kinds = ", ".join(f"{cell or 'empty'} ({count})" for cell, count in cells[target].most_common(_LISTED))
        notes["options", f"- column: {target}"] = f"what is to be learned? Here: {kinds}"
    return _classes(name, LayoutSpec("as found", {"image": (pattern,)}), [files.folder / file for file in pictures], grouping,
                    [] if target is None else [{"column": target}], notes,
                    (f"images      {pattern}", f"table       {table.path.name}: {', '.join(table.columns)}"))


def _naming_column(table: Table, pictures: Sequence[str]) -> tuple[int, str] | None:
    """How many images the best column names, each in one row, and the column."""
    known = {key: file for file in pictures for key in _keys(file)}
    best: tuple[int, str] | None = None
    for place, column in enumerate(table.columns):
        cells = [row[place].strip().replace("\\", "/").rpartition("/")[2] for _, row in table.rows]
        named = [known[cell] for cell in cells if cell in known]
        if named and len(set(named)) == len(named) and (best is None or len(named) > best[0]):
            best = (len(named), column)
    return best


def _keys(file: str) -> tuple[str, str]:
    """What a table may call a file: its name, with and without its ending."""
    name = PurePosixPath(file).name
    return name, name[:-len(picture_ending(Path(file)) or "")]


def _target_column(cells: dict[str, Counter[str]], taken: Sequence[str | None]) -> str | None:
    """The column that is most likely what is to be learned, by its name and its cells."""
    few = [column for column, kinds in cells.items() if column not in taken and not _NO_TARGET.search(column)
           and 2 <= len(kinds) <= _MOST_KINDS and len(kinds) < sum(kinds.values())]
    named = [column for column in cells if column not in taken and _TARGET.search(column) and len(cells[column]) > 1]
    return next(iter([*(column for column in named if column in few), *named, *few]), None)


def _ending(pictures: Sequence[str]) -> str:
    """The ending that all files have, as it is written; a shape where they differ."""
    endings = {file[-len(picture_ending(Path(file)) or ""):] for file in pictures}
    if len(endings) == 1:
        return endings.pop()
    first = "".join(sorted({ending[1] for ending in endings}))
    return f".{{ending:[{first}]*}}"


def _classes(name: str, layout: LayoutSpec, paths: Sequence[Path], grouping: GroupingSpec, targets: list[dict[str, Any]],
             notes: dict[tuple[str, str], str], found: tuple[str, ...], splits: Sequence[str] = ()) -> Classes:
    """The specification, with channels from a sample of the images; a split that is called test is kept for testing."""
    content = content_of(spread(paths, SAMPLED_IMAGES), lossy=True)
    channels, note = _channels(content)
    lossy = any(picture_ending(path) in JPEG_ENDINGS for path in paths)
    entry = InputSpec("image", "image", tuple(ChannelSpec(channel) for channel in channels), lossy=lossy)
    notes = notes | {("inputs", f"- {channel}"): note for channel in channels}
    if lossy:
        notes["inputs", "lossy:"] = "JPEG, whose compression changed the intensities; better take the original images"
    if not targets:
        notes["options", "targets:"] = "no column looks like a target; name one: targets: [{column: ...}]"
    test = [split for split in splits if split.lower() in ("test", "testing")]
    options: dict[str, Any] = {"official_split": {"column": "split", "test": test}} if test else {}
    if test:
        notes["options", "official_split:"] = "this part is never trained on; `evaluate` scores it"
    spec = DatasetSpec(name, "classification", (layout,), (entry,), grouping=grouping, options={**options, "targets": targets})
    return Classes(spec, notes, (*found, f"channels    {', '.join(channels)}"))


def _channels(content: Content) -> tuple[list[str], str]:
    if content.is_grey_in_colour or content.channels == 1:
        if content.is_ct:
            return ["CT"], "values look like Hounsfield units"
        return ["image"], "name: X-ray, MRI, OCT, ...; the name CT also chooses how intensities are normalised"
    if content.is_colour:
        return ["red", "green", "blue"], "colours"
    return [f"channel_{place}" for place in range(content.channels)], "name: from the files"
