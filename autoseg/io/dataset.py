"""From a folder to cases: which files belong together, and every problem on the way."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.core.case import Case
from autoseg.core.errors import AutosegError, DatasetError
from autoseg.core.image import Image
from autoseg.core.modality import intensity_kind, name_warning
from autoseg.core.profiles import ChannelProfile, content_digest, measure_profile
from autoseg.core.spec import DatasetSpec, GroupingSpec, LayoutSpec
from autoseg.core.text import printable
from autoseg.io.agreement import require_agreement
from autoseg.io.grouping import GroupTable, read_groups
from autoseg.io.images import LOSSY_ENDINGS, Note, companion_file, format_advice, image_ending, read_image, read_label_map
from autoseg.io.layouts import (
    Files,
    Found,
    collect,
    flat,
    is_safe_id,
    layout_values,
    list_files,
    nnunet_layout,
    single_files,
)
from autoseg.io.problems import Problem, require_no_problems, unlisted_values_text
from autoseg.io.unread import unread_images

__all__ = ["Facts", "Problem", "Scan", "check_case", "examine_case", "is_safe_id", "list_inputs", "require_no_problems", "scan",
           "scan_all", "spec_of_folder"]


@dataclass(frozen=True)
class Scan:
    """What a dataset folder holds.

    Attributes:
        cases: complete ones, sorted by id.
        problems: why other files did not become cases.
        layout: name of the layout that the folder has.
        ignored: files that were not used, each with the reason.
        outside: links that lead out of the folder; they are read, since datasets are often made of links.
    """

    cases: tuple[Case, ...]
    problems: tuple[Problem, ...]
    layout: str
    ignored: tuple[str, ...] = ()
    outside: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What is in the files of one case.

    Attributes:
        problems: every one, warnings too.
        content: digest of the image (`content_digest`); empty where it cannot be read.
        profiles: per channel, what its intensities look like; empty where one cannot be read.
        labels: values in the label maps; None where there is none or one cannot be read.
    """

    problems: tuple[Problem, ...]
    content: str = ""
    profiles: tuple[ChannelProfile, ...] = ()
    labels: frozenset[int] | None = None


@dataclass(frozen=True)
class _Match:
    """One layout, tried on a folder."""

    layout: LayoutSpec
    found: Found
    complete: tuple[str, ...] = field(default=())


def scan(spec: DatasetSpec, folder: Path) -> Scan:
    """The cases in a dataset folder: names are looked at, no file is opened but the table of patients.

    Of the specification's layouts the one with most files in complete cases is taken; of equal ones the most specific.

    Raises:
        DatasetError: there is no such folder, or no layout finds a single file of a case.
    """
    files = _require_folder(folder)
    match = _best_match([_try_layout(layout, files) for layout in spec.layouts])
    if match is None or not match.found.cases:
        raise DatasetError(_nothing_found(spec, folder, files), code="E_NO_CASES", hint=f"autoseg check -d {spec.name} -i FOLDER")
    groups = read_groups(spec, folder)
    wanted = sorted(set(match.found.cases) - set(spec.exclude))
    problems = [problem for problem in (*match.found.problems, *_twins(wanted)) if problem.case not in spec.exclude]
    cases = []
    for case_id in wanted:
        mistakes = _incomplete(case_id, match)
        case = None if mistakes or not is_safe_id(case_id) else _case(case_id, match.found, groups, problems)
        problems += mistakes
        if case is not None:
            cases.append(case)
    excluded = [f"case {case_id}: excluded by the specification" for case_id in spec.exclude if case_id in match.found.cases]
    beside = _spacing_files(cases)
    unused = [f"{printable(name)}: matches no pattern of layout {match.layout.name}" for name in match.found.unused
              if not _is_companion(spec, name) and folder / name not in beside]
    left_out = [f"{name}: {reason}" for name, reason in match.found.left_out]
    return Scan(tuple(cases), tuple(problems), match.layout.name, (*excluded, *files.skipped, *left_out, *unused),
                tuple(folder / name for name in files.outside))


def scan_all(spec: DatasetSpec, folder: Path) -> Scan:
    """Like `scan`, but a table of patients that cannot be used is a problem beside the others; each case is its own patient."""
    try:
        return scan(spec, folder)
    except DatasetError as error:
        if error.code != "E_TABLE":
            raise
        found = scan(dataclasses.replace(spec, grouping=GroupingSpec()), folder)
        table = Problem("the table of patients", error.code, str(error))
        return dataclasses.replace(found, problems=(table, *found.problems))


def spec_of_folder(spec: DatasetSpec, folder: Path) -> DatasetSpec:
    """The specification with the label values of the layout that `folder` has.

    Unchanged where all layouts have the same values, and where there is no such folder or no case in it.

    Raises:
        DatasetError: the folder has a `dataset.json` that contradicts it.
    """
    if not folder.is_dir():
        return spec
    if any(layout.values for layout in spec.layouts):
        files = list_files(folder)
        match = _best_match([_try_layout(layout, files) for layout in spec.layouts])
        spec = layout_values(spec, match.layout) if match is not None and match.found.cases else spec
    require_agreement(spec, folder)
    return spec


def list_inputs(spec: DatasetSpec, folder: Path) -> Scan:
    """Cases to predict, sorted by id: images only, wherever labels may be; incomplete ones are problems.

    Tried in this order: the specification's layouts; their file names in a flat folder; nnU-Net's names
    (`<case>_0000.<ending>`); and for one channel every image file by itself. A single file is a case of one channel or of
    all channels. Images of formats that are not read are problems.

    Raises:
        DatasetError: nothing fits; what was looked for and what lies there is listed.
    """
    if folder.is_file():
        return Scan((_single_file_case(spec, folder),), (), "file")
    files = _require_folder(folder)
    layouts = [_without_targets(layout) for layout in spec.layouts]
    for attempt in (layouts, [flat(layout) for layout in layouts], nnunet_layout(spec, files)):
        match = _best_match([_try_layout(layout, files) for layout in attempt])
        if match is not None and match.found.cases:
            return _with_unread(_input_cases(spec, match), files)
    found = single_files(spec, files)
    if found is not None:
        return _with_unread(_input_cases(spec, _Match(LayoutSpec("files", {}), found)), files)
    unread = _with_unread(Scan((), (), "files"), files)
    if not unread.problems:
        raise DatasetError(_nothing_found(spec, folder, files), code="E_NO_CASES")
    return unread


def check_case(spec: DatasetSpec, case: Case) -> tuple[Problem, ...]:
    """Every problem inside the files of one case: unreadable, grids that differ, labels that are not in the specification."""
    return examine_case(spec, case).problems


def examine_case(spec: DatasetSpec, case: Case) -> Facts:
    """The problems inside the files of one case, and what is compared between cases."""
    problems: list[Problem] = []
    notes: list[Note] = []
    images: list[Image] = []
    roles = [entry for entry in spec.inputs if entry.kind == "image"]
    for entry in roles:
        try:
            image = read_image(case.inputs[entry.role], channels=len(entry.channels), notes=notes)
        except AutosegError as error:
            problems.append(Problem(case.id, error.code, str(error)))
        else:
            images.append(image)
            warnings = (name_warning(channel.name, intensity_kind(voxels))
                        for channel, voxels in zip(entry.channels, image.voxels, strict=True)
                        if channel.normalization == "auto")
            problems += [Problem(case.id, "W_MODALITY", text, "warning") for text in warnings if text]
    label: NDArray | None = None
    labels: frozenset[int] | None = frozenset()
    for path in case.targets.values():
        if image_ending(path) is None and not path.is_dir():
            continue
        try:
            found, label = _examine_target(spec, case.id, path, images[0] if images else None, notes)
            problems += found
            labels = None if labels is None or label is None else labels | _values_in(label)
        except AutosegError as error:
            problems.append(Problem(case.id, error.code, str(error)))
            labels = None
    problems += [Problem(case.id, note.code, note.text, "warning") for note in dict.fromkeys(notes)]
    if len(images) < len(roles):
        return Facts(tuple(problems), labels=labels if case.targets else None)
    profiles = [measure_profile(voxels, label if label is not None and label.shape == voxels.shape else None)
                for image in images for voxels in image.voxels]
    return Facts(tuple(problems), content_digest([image.voxels for image in images]), tuple(profiles),
                 labels if case.targets else None)


def _values_in(label: NDArray) -> frozenset[int]:
    return frozenset(int(value) for value in np.unique(label))


def _examine_target(spec: DatasetSpec, case_id: str, path: Path, image: Image | None,
                    notes: list[Note]) -> tuple[list[Problem], NDArray | None]:
    """Problems of a target, and its values (Z, Y, X) where it is a label map."""
    reference = None if image is None else image.geometry
    if not spec.labels:  # a target that is an image itself
        target = read_image([path], notes=notes)
        if reference is not None and not target.geometry.agrees_with(reference):
            return [Problem(case_id, "E_GRID", f"{path}: the target does not lie on the grid of its image; resample it")], None
        return [], None
    label = read_label_map(path, reference=reference, values=spec.listed_values, notes=notes).voxels[0]
    values = _values_in(label)
    if values - {0, *spec.listed_values}:
        return [Problem(case_id, "E_LABEL_VALUE", f"{path}: {unlisted_values_text(label, spec)}")], label
    if not values - {0, spec.ignore}:
        return [Problem(case_id, "W_LABEL_EMPTY", f"{path} holds background only", "warning")], label
    return [], label


def _require_folder(folder: Path) -> Files:
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder; give the folder of the images with -i", code="E_NO_FOLDER")
    return list_files(folder)


def _try_layout(layout: LayoutSpec, files: Files) -> _Match:
    match = _Match(layout, collect(layout, files))
    complete = tuple(case_id for case_id in match.found.cases if not _incomplete(case_id, match))
    return dataclasses.replace(match, complete=complete)


def _best_match(matches: Iterable[_Match]) -> _Match | None:
    """Most files in complete cases, then most files, then the longest literal text in the patterns.

    Files, not cases: a pattern of 4-D files takes each channel of `<case>_0000`, `<case>_0001` for a case of its own.
    """
    def rank(match: _Match) -> tuple[int, int, int]:
        cases = match.found.cases
        literal = sum(len(pattern) for patterns in match.layout.inputs.values() for pattern in patterns)
        return (sum(len(cases[case_id]) for case_id in match.complete), sum(map(len, cases.values())), literal if cases else 0)

    return max(matches, key=rank, default=None)


def _incomplete(case_id: str, match: _Match) -> list[Problem]:
    """What a case lacks in its layout."""
    files = match.found.cases[case_id]
    problems = []
    for role, patterns in match.layout.inputs.items():
        missing = [pattern for index, pattern in enumerate(patterns) if (role, index) not in files]
        if len(missing) == len(patterns):
            problems.append(Problem(case_id, "E_NO_IMAGE", f"no {role} file; expected {', '.join(patterns)}"))
        elif missing:
            problems.append(Problem(case_id, "E_CHANNEL_MISSING", f"no {role} file {', '.join(missing)}"))
    for role, pattern in match.layout.targets.items():
        if (role, None) not in files:
            problems.append(Problem(case_id, "E_NO_LABEL", f"no {role} file; expected {pattern}"))
    return problems


def _case(case_id: str, found: Found, groups: GroupTable, problems: list[Problem]) -> Case | None:
    files = found.cases[case_id]
    roles = sorted({role for role, index in files if index is not None})
    inputs = {role: tuple(files[key] for key in sorted(key for key in files if key[0] == role and key[1] is not None))
              for role in roles}
    targets = {role: path for (role, index), path in files.items() if index is None}
    row = groups.row(case_id, found.groups.get(case_id))
    if isinstance(row, Problem):
        problems.append(row)
        return None
    return Case(case_id, row.group, inputs, targets, row.site, row.date, row.stratum)


def _twins(case_ids: Iterable[str]) -> list[Problem]:
    """Ids that differ in letter case only: one file on many file systems."""
    by_folded = defaultdict(list)
    for case_id in sorted(case_ids):
        by_folded[case_id.casefold()].append(case_id)
    return [Problem(ids[0], "E_CASE_TWIN", f"the ids {', '.join(ids)} differ in letter case only and would overwrite each "
                    "other; rename one") for ids in by_folded.values() if len(ids) > 1]


def _split_channels(spec: DatasetSpec, cases: Iterable[Case]) -> list[Problem]:
    """Ids `a_0000`, `a_0001`, `b_0000`, `b_0001`: channels of nnU-Net that would each be taken for a case."""
    numbers = defaultdict(set)
    for case in cases:
        stem, _, number = case.id.rpartition("_")
        if not (stem and len(number) == 4 and number.isdigit()):
            return []
        numbers[stem].add(int(number))
    counts = set(map(len, numbers.values()))
    if len(numbers) < 2 or len(counts) > 1 or counts == {1} or any(max(found) + 1 > len(found) for found in numbers.values()):
        return []
    count, expected = counts.pop(), sum(len(entry.channels) for entry in spec.inputs)
    return [Problem(f"{stem}_{number:04d}", "E_CHANNEL_EXTRA", f"the files are named like {count} channels of case {stem}, "
                    f"and the model reads {expected}; give only the channels that it was trained on")
            for stem, found in sorted(numbers.items()) for number in sorted(found)]


def _without_targets(layout: LayoutSpec) -> LayoutSpec:
    return dataclasses.replace(layout, targets={})


def _input_cases(spec: DatasetSpec, match: _Match) -> Scan:
    problems = [*match.found.problems, *_twins(match.found.cases)]
    groups, cases = GroupTable(GroupingSpec(), None), []  # patients matter for folds only; new ids need not name one
    for case_id in sorted(match.found.cases):
        mistakes = _incomplete(case_id, match)
        problems += mistakes
        case = None if mistakes or not is_safe_id(case_id) else _case(case_id, match.found, groups, problems)
        if case is not None:
            cases.append(case)
    problems += _split_channels(spec, cases)
    refused = {problem.case for problem in problems}
    return Scan(tuple(case for case in cases if case.id not in refused), tuple(problems), match.layout.name)


def _with_unread(found: Scan, files: Files) -> Scan:
    return dataclasses.replace(found, problems=(*found.problems, *unread_images(files, found.cases)))


def _single_file_case(spec: DatasetSpec, path: Path) -> Case:
    ending = image_ending(path)
    if ending is None:
        raise DatasetError(f"{path} is not an image file that can be read; {format_advice(path.suffix)}", code="E_FORMAT")
    case_id = path.name[:-len(ending)].removesuffix("_0000")
    if not is_safe_id(case_id):
        raise DatasetError(f"{path}: {case_id!r} cannot be a case id: letters, digits, '.', '_' and '-' only", code="E_CASE_ID")
    return Case(case_id, case_id, {spec.inputs[0].role: (path,)})


def _is_companion(spec: DatasetSpec, name: str) -> bool:
    return name == spec.grouping.table or Path(name).name == "dataset.json"


def _spacing_files(cases: Iterable[Case]) -> set[Path]:
    """nnU-Net's files with the spacing of TIFFs; they belong to the cases."""
    paths = [path for case in cases for path in (*(p for group in case.inputs.values() for p in group), *case.targets.values())]
    return {beside for path in paths if (beside := companion_file(path)) is not None}


def _nothing_found(spec: DatasetSpec, folder: Path, files: Files) -> str:
    wanted = "; ".join(f"layout {layout.name}: {', '.join(p for patterns in layout.inputs.values() for p in patterns)}"
                       for layout in spec.layouts)
    there = ", ".join(map(printable, files.names[:5])) + (f" and {len(files.names) - 5} more" if len(files.names) > 5 else "")
    there += "".join(f". Not read: {reason}" for reason in files.skipped[:3])
    lossy = next((ending for name in files.names if (ending := Path(name).suffix.lower()) in LOSSY_ENDINGS), None)
    return (f"{folder} holds no case of dataset {spec.name}. Looked for {wanted}. There: {there or 'no file'}"
            + ("" if lossy is None else f". {format_advice(lossy)}"))
