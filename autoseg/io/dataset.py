"""From a folder to cases: which files belong together, and every problem on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
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
from autoseg.io.cases import Match, assemble, incomplete, split_channels, twins
from autoseg.io.grouping import GroupTable, read_groups
from autoseg.io.images import (
    LOSSY_ENDINGS,
    Note,
    accepted_of,
    companion_file,
    format_advice,
    image_ending,
    picture_ending,
    read_image,
    read_label_map,
)
from autoseg.io.layouts import (
    Files,
    collect,
    flat,
    is_safe_id,
    layout_values,
    list_files,
    nnunet_layout,
    single_files,
)
from autoseg.io.npz import ARCHIVE_ENDING
from autoseg.io.problems import Problem, require_no_problems, unlisted_values_text
from autoseg.io.rows import is_table
from autoseg.io.unread import unread_images

__all__ = ["Facts", "Problem", "Scan", "check_case", "examine_case", "is_safe_id", "list_inputs", "require_no_problems", "scan",
           "scan_all", "spec_of_folder"]


# The target that is a label map where a specification has labels and targets of several roles.
LABELS = "label"


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


def scan(spec: DatasetSpec, folder: Path) -> Scan:
    """The cases in a dataset folder: names are looked at, no file is opened but tables and the headers of archives.

    Of the specification's layouts the one with most files in complete cases is taken; of equal ones the most specific.

    Raises:
        DatasetError: there is no such folder, no layout finds a single file of a case, or a table or archive cannot be used.
    """
    files = _require_folder(folder)
    match = _best_match([_try_layout(layout, files) for layout in spec.layouts])
    if match is None or not match.found.cases:
        raise DatasetError(_nothing_found(spec, folder, files), code="E_NO_CASES", hint=f"autoseg check -d {spec.name} -i FOLDER")
    groups = read_groups(spec, folder, match.layout, match.found.cases)
    wanted = sorted(set(match.found.cases) - set(spec.exclude))
    assembled = assemble(match, wanted, groups)
    problems = [problem for problem in (*groups.problems, *match.found.problems, *twins(wanted), *assembled.problems)
                if problem.case not in spec.exclude]
    excluded = [f"case {case_id}: excluded by the specification" for case_id in spec.exclude if case_id in match.found.cases]
    excluded += [f"{count} case{'s' if count > 1 else ''}: {reason}" for reason, count in assembled.left_out.items()]
    beside = _spacing_files(assembled.cases)
    unused = [f"{printable(name)}: matches no pattern of layout {match.layout.name}" for name in match.found.unused
              if not _is_companion(spec, name) and folder / name not in beside]
    left_out = [f"{name}: {reason}" for name, reason in match.found.left_out if not _is_companion(spec, name)]
    return Scan(assembled.cases, tuple(problems), match.layout.name, (*excluded, *files.skipped, *left_out, *unused),
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
    all channels, or an archive of cases. What the tables leave out for training counts here. Images of formats that are not
    read are problems.

    Raises:
        DatasetError: nothing fits; what was looked for and what lies there is listed.
    """
    is_archive = folder.is_file() and folder.suffix.lower() == ARCHIVE_ENDING
    if folder.is_file() and not is_archive:
        return Scan((_single_file_case(spec, folder),), (), "file")
    files = Files(folder.parent, (folder.name,), ()) if is_archive else _require_folder(folder)
    layouts = [_without_targets(layout) for layout in spec.layouts]
    for attempt in (layouts, [flat(layout) for layout in layouts], nnunet_layout(spec, files)):
        match = _best_match([_try_layout(layout, files) for layout in attempt])
        if match is not None and match.found.cases:
            return _with_unread(_input_cases(spec, match), files)
    found = single_files(spec, files)
    if found is not None:
        return _with_unread(_input_cases(spec, Match(LayoutSpec("files", {}), found)), files)
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
            image = read_image(case.inputs[entry.role], channels=len(entry.channels), accepted=accepted_of(entry), notes=notes)
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
    for role, path in case.targets.items():
        is_other = bool(spec.labels) and role != LABELS  # landmarks drawn as voxels, say: their task reads them
        if is_other or (image_ending(path) is None and not path.is_dir()):
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


def _try_layout(layout: LayoutSpec, files: Files) -> Match:
    match = Match(layout, collect(layout, files))
    complete = tuple(case_id for case_id in match.found.cases if not incomplete(case_id, match))
    return dataclasses.replace(match, complete=complete)


def _best_match(matches: Iterable[Match]) -> Match | None:
    """Most files in complete cases, then most files, then the longest literal text in the patterns.

    Files, not cases: a pattern of 4-D files takes each channel of `<case>_0000`, `<case>_0001` for a case of its own.
    """
    def rank(match: Match) -> tuple[int, int, int]:
        cases = match.found.cases
        literal = sum(len(pattern) for patterns in match.layout.inputs.values() for pattern in patterns)
        return (sum(len(cases[case_id]) for case_id in match.complete), sum(map(len, cases.values())), literal if cases else 0)

    return max(matches, key=rank, default=None)


def _without_targets(layout: LayoutSpec) -> LayoutSpec:
    return dataclasses.replace(layout, targets={}, arrays={})


def _input_cases(spec: DatasetSpec, match: Match) -> Scan:
    # Patients matter for folds only; new ids need not name one.
    assembled = assemble(match, list(match.found.cases), GroupTable(GroupingSpec(), None))
    problems = [*match.found.problems, *twins(match.found.cases), *assembled.problems, *split_channels(spec, assembled.cases)]
    refused = {problem.case for problem in problems}
    return Scan(tuple(case for case in assembled.cases if case.id not in refused), tuple(problems), match.layout.name)


def _with_unread(found: Scan, files: Files) -> Scan:
    return dataclasses.replace(found, problems=(*found.problems, *unread_images(files, found.cases)))


def _single_file_case(spec: DatasetSpec, path: Path) -> Case:
    ending = picture_ending(path) if spec.inputs[0].lossy else image_ending(path)
    if ending is None:
        raise DatasetError(f"{path} is not an image file that can be read; {format_advice(path.suffix)}", code="E_FORMAT")
    case_id = path.name[:-len(ending)].removesuffix("_0000")
    if not is_safe_id(case_id):
        raise DatasetError(f"{path}: {case_id!r} cannot be a case id: letters, digits, '.', '_' and '-' only", code="E_CASE_ID")
    return Case(case_id, case_id, {spec.inputs[0].role: (path,)})


def _is_companion(spec: DatasetSpec, name: str) -> bool:
    return is_table(name, spec.grouping) or Path(name).name == "dataset.json"


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
