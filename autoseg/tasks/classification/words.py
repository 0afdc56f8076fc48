"""What people are told of a classification: what is wrong with all units together, facts of its targets, notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from autoseg.core.case import Unit
from autoseg.core.errors import DatasetError
from autoseg.core.report import Failure
from autoseg.core.spec import DatasetSpec
from autoseg.tasks.classification.kinds import (
    Kind,
    Meaning,
    cells_of,
    is_missing,
    label_counts,
    meanings_in,
    read_cell,
    understand,
)
from autoseg.tasks.classification.objectives import require_loss
from autoseg.tasks.classification.spec import TargetOptions, classification_options
from autoseg.tasks.classification.target import answer_of, drawn_boxes

# Patients below which an AUC has an interval so wide that it says little (rule R2 of the planner).
FEW = 10


def examine(units: Sequence[Unit], spec: DatasetSpec) -> tuple[Failure, ...]:
    """What cannot be learned: targets without cells, with one class only, cells that are no class; and rare classes."""
    options = classification_options(spec)
    meanings = {meaning.name: meaning for unit in units[:1] for meaning in meanings_in(unit.cases[0].values)}
    found: list[Failure] = []
    for target in options.targets:
        meaning = meanings.get(target.label)
        if meaning is None:
            found.append(Failure(f"target {target.label}", "E_TARGET_COLUMN", f"no case has a column or named part of its path "
                                 f"called {target.column!r}; name the table under 'grouping', and the column as it is written"))
            continue
        found += _examine_target(target, meaning, units)
    if not any(failure.code.startswith("E_") for failure in found):
        found += _unreadable(units, spec, list(meanings.values()))
        found += _boxes_of_nothing(units, spec, list(meanings.values()))
    return tuple(found)


def _boxes_of_nothing(units: Sequence[Unit], spec: DatasetSpec, meanings: Sequence[Meaning]) -> list[Failure]:
    """A table of boxes that cannot be read, or findings in it that no target knows."""
    options = classification_options(spec).boxes
    try:
        labels = Counter(box.label for unit in units for box in drawn_boxes(unit, options))
    except DatasetError as error:
        return [Failure("boxes", error.code, str(error))]
    known = {cls for meaning in meanings for cls in meaning.classes}
    strange = [f"{label} ({count})" for label, count in sorted(labels.items()) if label not in known]
    if not strange:
        return []
    return [Failure("boxes", "W_BOX_LABEL", f"the table of boxes has findings that no target has: {', '.join(strange)}; their "
                    "boxes are not scored. Where they are called otherwise, say so under 'boxes: names'")]


def _examine_target(target: TargetOptions, meaning: Meaning, units: Sequence[Unit]) -> list[Failure]:
    name, cells = f"target {target.label}", cells_of(target, units)
    known = sum(count for cell, count in cells.items() if not is_missing(cell, target))
    if not known:
        return [Failure(name, "E_TARGET_EMPTY", f"all {len(units)} cells of column {target.column!r} are missing "
                        f"({', '.join(map(repr, sorted(cells)[:3]))}); remove the target, or correct 'missing'")]
    try:
        require_loss(target, meaning)
    except DatasetError as error:
        return [Failure(name, error.code, str(error))]
    if meaning.kind == Kind.CONTINUOUS:
        return []
    counts = class_counts(target, meaning, units)
    present = [cls for cls in meaning.classes if counts[cls]]
    if len(present) < (1 if meaning.kind == Kind.MULTILABEL else 2):
        return [Failure(name, "E_TARGET_CONSTANT", f"column {target.column!r} holds nothing but "
                                                   f"{', '.join(present) or 'no label'} "
                        f"in {known} cases, so there is nothing to learn; add cases of another class, or remove the target")]
    absent = [cls for cls in meaning.classes if not counts[cls]]
    failures = [Failure(name, "W_CLASS_ABSENT", f"no case has the class {cls!r}; it is learned to be "
                                                "impossible") for cls in absent]
    patients = class_patients(target, meaning, units)
    failures += [Failure(name, "W_CLASS_ONCE", f"one patient only has the class {cls!r}; where it is trained on it cannot be "
                         "validated, and the other way round. Join it with another class under 'classes', or leave it out")
                 for cls in present if patients[cls] == 1]
    few = [f"{cls} ({patients[cls]})" for cls in present if 1 < patients[cls] < FEW]
    if few:
        failures.append(Failure(name, "W_CLASS_FEW", f"fewer than {FEW} patients have the class {', '.join(few)}; read its "
                                "scores with their intervals"))
    if meaning.kind == Kind.MULTILABEL and not target.classes:
        rare = [f"{label} ({count})" for label, count in sorted(label_counts(target, cells).items())
                if label not in meaning.classes]
        if rare:
            failures.append(Failure(name, "W_CLASS_FEW", f"labels of fewer than {target.fewest} cases are not learned: "
                                    f"{', '.join(rare)}; list them under 'classes', or lower 'fewest', to learn them all the "
                                    "same"))
    return failures


def class_counts(target: TargetOptions, meaning: Meaning, units: Sequence[Unit]) -> Counter[str]:
    """How many units have each class; cells that are no class are left out."""
    counts: Counter[str] = Counter()
    for cell, count in cells_of(target, units).items():
        counts.update(dict.fromkeys(_classes_in(cell, target, meaning), count))
    return counts


def class_patients(target: TargetOptions, meaning: Meaning, units: Sequence[Unit]) -> dict[str, int]:
    """How many patients have each class in some unit."""
    by_cell: dict[str, set[str]] = {}
    for unit in units:
        by_cell.setdefault(unit.cases[0].values.get(target.column, "").strip(), set()).add(unit.group)
    having: dict[str, set[str]] = {cls: set() for cls in meaning.classes}
    for cell, patients in by_cell.items():
        for cls in _classes_in(cell, target, meaning):
            having[cls] |= patients
    return {cls: len(patients) for cls, patients in having.items()}


def _classes_in(cell: str, target: TargetOptions, meaning: Meaning) -> list[str]:
    """The classes that a cell says are there; none of a cell that is no class."""
    try:
        read = read_cell(cell, target, meaning)
    except DatasetError:
        return []
    return [] if read is None else [cls for cls, value in zip(meaning.classes, read, strict=True) if value]


def _unreadable(units: Sequence[Unit], spec: DatasetSpec, meanings: Sequence[Meaning]) -> list[Failure]:
    """Cells that are no class, and exams that contradict themselves, case by case."""
    failures = []
    for unit in units:
        try:
            answer_of(unit, spec, meanings)
        except DatasetError as error:
            failures.append(Failure(unit.id, error.code, str(error)))
    return failures


def facts(spec: DatasetSpec, units: Sequence[Unit]) -> dict[str, str]:
    """Every target: its kind, why, and how many units have each class."""
    options = classification_options(spec)
    meanings = {meaning.name: meaning for unit in units[:1] for meaning in meanings_in(unit.cases[0].values)}
    found = {}
    for target in options.targets:
        meaning = meanings.get(target.label)
        if meaning is None:
            found[f"target {target.label}"] = f"column {target.column!r}, which no case has"
            continue
        cells = cells_of(target, units)
        missing = sum(count for cell, count in cells.items() if is_missing(cell, target))
        classes = _classes_text(target, meaning, units)
        found[f"target {target.label}"] = f"{meaning.kind} ({understand(target, cells).because}): {classes}" + (
            f"; missing in {missing}" if missing else "")
    images = sum(len(unit.cases) for unit in units)
    if options.exam is not None:
        found["exams"] = f"{len(units)} of {images} images"
    if options.official_split is not None:
        found["official split"] = f"cases with {', '.join(options.official_split.test)} in column " \
                                  f"{options.official_split.column!r} are kept for 'evaluate'"
    return found


def _classes_text(target: TargetOptions, meaning: Meaning, units: Sequence[Unit]) -> str:
    if meaning.kind == Kind.CONTINUOUS:
        return f"mean {meaning.mean:.4g}, standard deviation {meaning.std:.4g}"
    counts = class_counts(target, meaning, units)
    return ", ".join(f"{cls} {counts[cls]}" for cls in meaning.classes)


def notes(spec: DatasetSpec) -> tuple[str, ...]:
    """How AUC, log score and decisions are to be read."""
    boxes = ("located_T: share of the units with a drawn box in which more than T percent of a found box lie in one (IoBB > T; "
             "Wang et al. 2017), whether the finding was decided to be there or not; false_boxes_T: mean number of found boxes "
             "that do not; box_iou: of the best found box.",)
    return (*(boxes if classification_options(spec).localise else ()),
            "AUC: how often a unit that has the class gets a higher probability than one that has not; of several classes the "
            "mean over all, of grades and values how often two units are put in the right order.",
            "The interval of one AUC (two classes, or one class against the rest) is DeLong's, on the logit scale, where every "
            "patient counts once. That of a mean over classes or labels, and that of grades and values, is of a bootstrap, as is "
            "every AUC of cases where patients have several. ECE, Brier score and average precision have none.",
            "The log score is the logarithm of the probability of the truth, 0 at best; a coin toss between two classes has "
            "-0.693. Units are ranked by it, the worst first.",
            "Sensitivity, specificity and the other rates are those at the threshold of the prediction, 0.5 unless another one "
            "was chosen on out-of-fold predictions.",
            "ECE, the calibration error, is the mean distance between probability and frequency.")
