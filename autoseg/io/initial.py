"""A first specification of an unknown folder: what its files say, and marks at what they do not say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from autoseg.core.errors import AutosegError, DatasetError, UsageError
from autoseg.core.spec import ChannelSpec, DatasetSpec, GroupingSpec, InputSpec, LabelSpec, LayoutSpec, NormalizationName
from autoseg.io.classes import propose_classes
from autoseg.io.dataset import Scan, scan
from autoseg.io.foreign import DATASET_JSON, dataset_name, read_dataset_json
from autoseg.io.grouping import likely_grouping
from autoseg.io.images.endings import LOSSY_ENDINGS, format_advice, image_ending
from autoseg.io.layouts import Files, is_safe_id, list_files
from autoseg.io.naming import VISIT_ID, Arrangement, Naming, arrange, channel_words, channels_of, find_namings, unlabelled
from autoseg.io.sampling import (
    MOST_LABELS,
    SAMPLED_IMAGES,
    SAMPLED_LABELS,
    content_of,
    label_values,
    looks_like_labels,
    same_grid,
    spread,
)
from autoseg.io.specs import written_form

_MOST_CANDIDATES = 12
_TEXTS = {"description": "patients, imaging, labels", "source": "where the data can be had",
          "licence": "as the source states it"}


@dataclass(frozen=True)
class Proposal:
    """A first specification.

    Attributes:
        notes: (top-level key, beginning of the line below it) -> what is not sure there.
        found: what was seen, one fact a line.
    """

    spec: DatasetSpec
    notes: dict[tuple[str, str], str]
    found: tuple[str, ...]


def propose_spec(folder: Path, *, name: str | None = None) -> Proposal:
    """A first specification of the dataset in a folder: from its `dataset.json`, else from names and content of its files.

    Args:
        name: of the dataset; None: the folder's.
    Raises:
        DatasetError: there is no such folder, or no image in it.
        UsageError: the name cannot be that of a folder.
    """
    if name is not None and not is_safe_id(name):
        raise UsageError(f"a dataset cannot be called {name!r}: letters, digits, '.', '_' and '-' only")
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder; give the folder of the images", code="E_NO_FOLDER")
    files = list_files(folder)
    names = [file for file in files.names if image_ending(Path(file)) is not None]
    name_or_own = dataset_name(folder, {}) if name is None else name
    if not names:
        classes = _classified(files, name_or_own)
        if classes is not None:
            return classes
        lossy = next((ending for file in files.names if (ending := Path(file).suffix.lower()) in LOSSY_ENDINGS), "")
        raise DatasetError(f"{folder} holds no image file among {len(files.names)} files; {format_advice(lossy)}",
                           code="E_NO_CASES")
    described = _described(folder, name) if (folder / DATASET_JSON).is_file() else None
    return described or _guessed(files, names, name_or_own)


def proposal_text(proposal: Proposal, folder: Path) -> str:
    """The YAML file of a proposal; `# ?` marks what is not sure."""
    form = written_form(proposal.spec)
    head = {key: form.pop(key) for key in ("format", "name", "task")}
    texts = {key: form.pop(key, "") for key in _TEXTS}
    if "grouping" in form:
        is_needed = proposal.spec.grouping.table is not None
        form["grouping"] = {key: value for key, value in form["grouping"].items() if is_needed or key != "case_column"}
    document = yaml.safe_dump({**head, **texts, **form}, sort_keys=False, allow_unicode=True, width=10**6)
    notes = {(key, f"{key}:"): text for key, text in _TEXTS.items() if not texts[key]} | proposal.notes
    lines = [f"# First specification of {folder.resolve().name}, made by `autoseg init`. Check the lines with `# ?`: the files",
             "# do not say what stands there. Every key is explained in dataset_specs/README.md.", *_annotated(document, notes)]
    if "grouping" not in form and "group" not in proposal.spec.layouts[0].parts:
        lines += ["# ? Has a patient several cases? Then say how the case id names the patient; folds do not divide patients.",
                  "# grouping:", "#   pattern: \"^([^_]+)_\""]
    return "\n".join(lines) + "\n"


def _described(folder: Path, name: str | None) -> Proposal | None:
    """From a `dataset.json` of nnU-Net or the Decathlon; None where it describes something else."""
    try:
        spec = read_dataset_json(folder, name=name)
        cases = [case.id for case in scan(spec, folder).cases]
    except AutosegError:
        return None
    if not cases:
        return None
    spec = replace(spec, grouping=likely_grouping(cases))
    found = (f"layout      {spec.layouts[0].name}, from {DATASET_JSON}", _cases_line(cases),
             f"channels    {', '.join(channel.name for channel in spec.inputs[0].channels)}",
             f"labels      {', '.join(f'{label.value} {label.name}' for label in spec.labels)}")
    return Proposal(spec, _grouping_note(spec.grouping, cases), found)


def _guessed(files: Files, names: Sequence[str], name: str) -> Proposal:
    namings = find_namings(names)
    labelled = arrange(namings) or _by_content(files.folder, namings)
    classes = None if labelled is not None else _classified(files, name)
    if classes is not None:
        return classes
    arranged = labelled or unlabelled(namings)
    arranged, dropped = _without_annotations(files.folder, arranged)
    channels, notes = _channels(files.folder, arranged)
    labels, label_notes, lines = _labels(files.folder, arranged)
    layout = LayoutSpec("as found", {"image": tuple(naming.pattern for naming in arranged.channels)},
                        {} if arranged.label is None else {"label": arranged.label.pattern},
                        case_id=VISIT_ID if arranged.channels[0].is_by_visit else "{case}")
    spec = DatasetSpec(name, "segmentation", (layout,), (InputSpec("image", "image", channels),), labels,
                       options={}, grouping=GroupingSpec())
    spec = _widened(spec, files.folder)
    scanned = scan(spec, files.folder)
    cases = [case.id for case in scanned.cases]
    if not arranged.channels[0].is_by_visit:  # the patient is a folder then
        spec = replace(spec, grouping=likely_grouping(cases))
    others = [naming.pattern for naming in (*arranged.others, *dropped)]
    return Proposal(spec, notes | label_notes | _grouping_note(spec.grouping, cases), (
        f"images      {', '.join(spec.layouts[0].inputs['image'])}",
        f"label maps  {spec.layouts[0].targets.get('label', 'none found')}", _cases_line(cases),
        f"channels    {', '.join(channel.name for channel in channels)}", *lines,
        *(f"not used    {pattern} (annotations too)" for pattern in others), *_problem_lines(scanned)))


def _classified(files: Files, name: str) -> Proposal | None:
    """From folders of classes, a table or an archive; None where the folder has nothing of these."""
    classes = propose_classes(files, name)
    if classes is None:
        return None
    scanned = scan(classes.spec, files.folder)
    cases = [case.id for case in scanned.cases]
    spec, notes = classes.spec, dict(classes.notes)
    if spec.grouping.table is None and not any(".npz/" in pattern for pattern in spec.layouts[0].patterns):
        spec = replace(spec, grouping=likely_grouping(cases))
        notes |= _grouping_note(spec.grouping, cases)
    return Proposal(spec, notes, (*classes.found, _cases_line(cases), *_problem_lines(scanned)))


def _by_content(folder: Path, namings: Sequence[Naming]) -> Arrangement | None:
    """The label maps told by what is in the files; None where no file looks like one beside an image of its case."""
    widest = sorted(namings, key=lambda naming: (-len(naming.files), naming.pattern.count("*"),
                                                 -sum(map(len, naming.files))))[:_MOST_CANDIDATES]
    for naming in widest:
        images = [image for image in widest if image.files.keys() & naming.files.keys()
                  and not set(image.files.values()) & set(naming.files.values())]
        if images and looks_like_labels(spread(_paths(folder, naming), SAMPLED_IMAGES)):
            channels = channels_of(naming, images)
            if not looks_like_labels(spread(_paths(folder, channels[0]), SAMPLED_IMAGES)):
                return Arrangement(channels, naming)
    return None


def _without_annotations(folder: Path, arranged: Arrangement) -> tuple[Arrangement, tuple[Naming, ...]]:
    """The arrangement without channels that are label maps or lie on another grid, and those."""
    if arranged.label is None or len(arranged.channels) == 1:
        return arranged, ()
    first = arranged.cases[0] if arranged.cases else None
    reference = None if first is None else folder / arranged.label.files[first]
    keep: list[Naming] = []
    dropped: list[Naming] = []
    for naming in arranged.channels:
        fits = reference is None or same_grid(folder / naming.files[first or ""], reference)
        is_image = fits and not looks_like_labels(spread(_paths(folder, naming), SAMPLED_IMAGES))
        (keep if is_image else dropped).append(naming)
    return (replace(arranged, channels=tuple(keep)), tuple(dropped)) if keep else (arranged, ())


def _channels(folder: Path, arranged: Arrangement) -> tuple[tuple[ChannelSpec, ...], dict[tuple[str, str], str]]:
    words = channel_words([naming.pattern for naming in arranged.channels])
    contents = [content_of(spread(_paths(folder, naming), SAMPLED_IMAGES)) for naming in arranged.channels]
    channels: list[ChannelSpec] = []
    notes: dict[tuple[str, str], str] = {}
    for place, (word, content) in enumerate(zip(words, contents, strict=True)):
        count = 1 if content.is_grey_in_colour else content.channels
        named, note = _channel_names(word, place if len(words) > 1 else None, count), "name: from the files"
        if content.is_ct:
            named, note = ["CT"] if len(words) == 1 else named, "values look like Hounsfield units"
        elif content.is_grey_in_colour:
            note = "red, green and blue are equal in the sampled files, so one channel is read"
        elif content.is_colour:
            named, note = ["red", "green", "blue"], "colours"
        elif not word or word.isdigit() or word.lower() in ("image", "images", "img", "volume"):
            note = "name: CT, T1, FLAIR, ...; the name CT also chooses how intensities are normalised"
        scheme: NormalizationName = "ct" if content.is_ct and named != ["CT"] else "auto"
        channels += [ChannelSpec(text, scheme) for text in named]
        notes |= {("inputs", f"- {'name: ' if scheme == 'ct' else ''}{text}"): note for text in named}
    return tuple(channels), notes


def _channel_names(word: str, place: int | None, count: int) -> list[str]:
    is_number = not word or word.isdigit()
    base = (f"channel_{place}" if place is not None else "image") if is_number else word
    return [base] if count == 1 else [f"{base}_{index}" for index in range(count)]


def _labels(folder: Path, arranged: Arrangement) -> tuple[tuple[LabelSpec, ...], dict[tuple[str, str], str], list[str]]:
    if arranged.label is None:
        return (), {}, ["labels      no label maps were found: without them nothing can be trained"]
    counts, read = label_values(spread(_paths(folder, arranged.label), SAMPLED_LABELS))
    if len(counts) > MOST_LABELS:
        return (), {}, [f"labels      the label maps hold {len(counts)} values and more, as numbers of instances do; list those "
                        "that are labels"]
    is_mask = set(counts) == {255}
    values = [1] if is_mask else sorted(counts)
    labels = tuple(LabelSpec(f"label_{value}", value) for value in values)
    seen = {value: counts[255 if is_mask else value] for value in values}
    notes = {("labels", f"label_{value}:"): f"name; in {count} of {read} sampled label maps"
             + ("; 255 in the files, which is read as 1" if is_mask else "") for value, count in seen.items()}
    return labels, notes, [f"labels      values {', '.join(map(str, values))}, in a sample of {read} label maps"]


def _widened(spec: DatasetSpec, folder: Path) -> DatasetSpec:
    """The specification with `*` for a folder (train, val) that only divides the cases, where that finds more of them."""
    best, most = spec, len(scan(spec, folder).cases)
    layout = spec.layouts[0]
    for depth in range(min(pattern.count("/") for pattern in (*layout.inputs["image"], *layout.targets.values()))):
        inputs = tuple(_starred(pattern, depth) for pattern in layout.inputs["image"])
        targets = {role: _starred(pattern, depth) for role, pattern in layout.targets.items()}
        if len({*inputs, *targets.values()}) < len(inputs) + len(targets):
            continue
        wider = replace(spec, layouts=(replace(layout, inputs={"image": inputs}, targets=targets),))
        found = scan(wider, folder)
        if len(found.cases) > most and not found.problems:
            best, most = wider, len(found.cases)
    return best


def _starred(pattern: str, depth: int) -> str:
    parts = pattern.split("/")
    return pattern if "{" in parts[depth] else "/".join([*parts[:depth], "*", *parts[depth + 1:]])


def _grouping_note(grouping: GroupingSpec, cases: Sequence[str]) -> dict[tuple[str, str], str]:
    if grouping.pattern is None:
        return {}
    patients = {match[1] for case in cases if (match := re.search(grouping.pattern, case))}
    return {("grouping", "pattern:"): f"{len(patients)} patients, if {min(patients)!r} is one; folds do not divide patients"}


def _paths(folder: Path, naming: Naming) -> list[Path]:
    return [folder / naming.files[case] for case in sorted(naming.files)]


def _cases_line(cases: Sequence[str]) -> str:
    return f"cases       {len(cases)}" + (f", for example {', '.join(cases[:3])}" if cases else "")


def _problem_lines(scanned: Scan) -> list[str]:
    count = len({problem.case for problem in scanned.problems})
    first = next(iter(scanned.problems), None)
    return [] if first is None else [f"incomplete  {count} case(s), for example {first.case}: {first.message}"]


def _annotated(document: str, notes: dict[tuple[str, str], str]) -> list[str]:
    lines, top, waiting = [], "", dict(notes)
    for line in document.splitlines():
        if line[:1].isalpha():
            top = line.partition(":")[0]
        key = next((key for key in waiting if key[0] == top and line.strip().startswith(key[1])), None)
        lines.append(line if key is None else f"{line}  # ? {waiting.pop(key)}")
    return lines
