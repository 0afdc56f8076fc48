"""What people are told of a classification: what is wrong with all units together, facts of its targets, notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from autoseg.core.case import Unit
from autoseg.core.errors import DatasetError
from autoseg.core.report import Failure
from autoseg.core.spec import DatasetSpec
from autoseg.tasks.classification.kinds import Kind, Meaning, cells_of, is_missing, label_counts, meanings_in, read_cell
from autoseg.tasks.classification.spec import TargetOptions, classification_options
from autoseg.tasks.classification.target import answer_of

# Positive units below which an AUC has an interval so wide that it says little (rule R2 of the planner).
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
    return tuple(found)


def _examine_target(target: TargetOptions, meaning: Meaning, units: Sequence[Unit]) -> list[Failure]:
    name, cells = f"target {target.label}", cells_of(target, units)
    known = sum(count for cell, count in cells.items() if not is_missing(cell, target))
    if not known:
        return [Failure(name, "E_TARGET_EMPTY", f"all {len(units)} cells of column {target.column!r} are missing "
                        f"({', '.join(map(repr, sorted(cells)[:3]))}); remove the target, or correct 'missing'")]
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
    once = [cls for cls in present if counts[cls] == 1]
    failures += [Failure(name, "W_CLASS_ONCE", f"one case only has the class {cls!r}; where it is trained on it cannot be "
                         "validated, and the other way round. Join it with another class under 'classes', or leave it out")
                 for cls in once]
    patients = class_patients(target, meaning, units)
    failures += [Failure(name, "W_CLASS_ONCE", f"all {counts[cls]} cases of the class {cls!r} are of one patient, "
                         f"{min(patients[cls])}: the fold that validates them was not trained on the class, and the others "
                         "cannot be validated on it. Join it with another class under 'classes', or leave it out")
                 for cls in present if counts[cls] > 1 and len(patients[cls]) == 1]
    few = [f"{cls} ({counts[cls]})" for cls in present if 1 < counts[cls] < FEW]
    if few:
        failures.append(Failure(name, "W_CLASS_FEW", f"fewer than {FEW} cases have the class {', '.join(few)}; read its scores "
                                "with their intervals"))
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


def class_patients(target: TargetOptions, meaning: Meaning, units: Sequence[Unit]) -> dict[str, set[str]]:
    """The patients of each class."""
    found: dict[str, set[str]] = {cls: set() for cls in meaning.classes}
    named = {cell: _classes_in(cell, target, meaning) for cell in cells_of(target, units)}
    for unit in units:
        for cls in named[unit.cases[0].values.get(target.column, "").strip()]:
            found[cls].add(unit.group)
    return found


def _classes_in(cell: str, target: TargetOptions, meaning: Meaning) -> list[str]:
    """The classes that a cell names; none where it is missing or no class."""
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
        found[f"target {target.label}"] = f"{meaning.kind} ({meaning.because}): {classes}" + (
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
    return ("AUC: how often a unit that has the class gets a higher probability than one that has not; of several classes the "
            "mean over all, of grades and values how often two units are put in the right order.",
            "The log score is the logarithm of the probability of the truth, 0 at best; a coin toss between two classes has "
            "-0.693. Units are ranked by it, the worst first.",
            "Sensitivity, specificity and the other rates are those at the threshold of the prediction, 0.5 unless another one "
            "was chosen on out-of-fold predictions.",
            "ECE, the calibration error, is the mean distance between probability and frequency.")
