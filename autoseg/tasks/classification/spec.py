"""Options of classification in a dataset's specification, and its units: every case is one, or every exam."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, model_validator
from pydantic.dataclasses import dataclass

from autoseg.core.case import Case, Unit
from autoseg.core.errors import DatasetError
from autoseg.core.spec import STRICT, DatasetSpec
from autoseg.io.patterns import search
from autoseg.tasks.classification.kinds import Kind, Meaning, cells_of, read_cell, understand, with_meanings

# A continuous target is spread over the folds by its fifths, as many as there are folds.
STRATA_OF_VALUES = 5


def _as_mapping(written: Any) -> Any:
    """A list of classes names its own cells; YAML's numbers are cells as text."""
    if isinstance(written, (list, tuple)):
        return {_text(entry): _text(entry) for entry in written}
    return {_text(cell): _text(name) for cell, name in written.items()} if isinstance(written, dict) else written


def _text(entry: Any) -> str:
    return str(entry).lower() if isinstance(entry, bool) else str(entry)


def _as_texts(written: Any) -> Any:
    return tuple(_text(entry) for entry in written) if isinstance(written, (list, tuple)) else written


Texts = Annotated[tuple[str, ...], BeforeValidator(_as_texts)]


@dataclass(frozen=True, config=STRICT)
class TargetOptions:
    """One thing that is to be said of an image: a column of the dataset's table, or a named part of the paths.

    Attributes:
        column: of the table, or the named part (`{class}`).
        name: in scores and files; empty: the column's.
        kind: `auto`: as the cells are (`kinds.understand`).
        classes: cell -> name of its class, in the order of the classes; cells may share a name. A list names cells that
            are names already. Empty: the cells that there are.
        separator: between several labels in one cell.
        missing: cells that say nothing, whatever their letter case.
        negative: cells that say that there is nothing: the first class of two, or none of several labels.
        order: names of an ordinal target's classes from the lowest to the highest, where it is not that of `classes`.
        fewest: labels of several in a cell that fewer cases have are left out, unless `classes` lists them.
        loss: that it is learned with; `auto`: by its kind (`objectives.LOSSES`).
    """

    column: str
    name: str = ""
    kind: Literal["auto", "binary", "multiclass", "ordinal", "continuous", "multilabel"] = "auto"
    classes: Annotated[dict[str, str], BeforeValidator(_as_mapping)] = Field(default_factory=dict)
    separator: str = "|"
    missing: Texts = ("", "nan", "na", "n/a", "null")
    negative: Texts = ()
    order: Texts = ()
    fewest: int = Field(default=10, ge=1)
    loss: Literal["auto", "binary_cross_entropy", "focal", "softmax_cross_entropy", "smoothed_cross_entropy", "hinge",
                  "squared_hinge", "cumulative_cross_entropy", "squared_error"] = "auto"

    @property
    def label(self) -> str:
        """The name in scores and files; dots separate the parts of a score's name."""
        return (self.name or self.column).replace(".", "_")


@dataclass(frozen=True, config=STRICT)
class ExamOptions:
    """Several images make one exam: those with the same cell in `column`, or for whose id `pattern` finds the same text.

    Attributes:
        pattern: regular expression; its first group is the exam.
    """

    column: str | None = None
    pattern: str | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> ExamOptions:
        if (self.column is None) == (self.pattern is None):
            raise ValueError("an exam is known by its column or by a pattern; give one of the two")
        return self


@dataclass(frozen=True, config=STRICT)
class SplitOptions:
    """A split that comes with the dataset: its test part is never trained on, and `evaluate` scores it alone.

    Attributes:
        test: cells of `column` that mean the test part.
    """

    column: str
    test: Texts


@dataclass(frozen=True, config=STRICT)
class CostOptions:
    """What wrong decisions cost, in any unit: a finding that is missed, and one that is said to be there and is not."""

    missed: float = Field(gt=0, allow_inf_nan=False)
    false_alarm: float = Field(gt=0, allow_inf_nan=False)


@dataclass(frozen=True, config=STRICT)
class BoxOptions:
    """A table of boxes around findings, in pixels of the image as stored; it lies in the dataset's folder.

    Attributes:
        table: CSV file relative to the dataset folder; one row per box.
        x_column, y_column: of the upper left corner; None: only the sizes of boxes are known, and none can be scored.
        z_column, depth_column: of volumes, the first slice and the number of slices.
        names: what the table calls a finding -> what the targets call it, where they differ.
    """

    table: str
    case_column: str = "case"
    label_column: str = "label"
    width_column: str = "width"
    height_column: str = "height"
    x_column: str | None = None
    y_column: str | None = None
    z_column: str | None = None
    depth_column: str | None = None
    names: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _corners_are_whole(self) -> BoxOptions:
        if (self.x_column is None) != (self.y_column is None) or (self.z_column is None) != (self.depth_column is None):
            raise ValueError("boxes have a place along both axes of a slice, and through slices a place and a depth: give "
                             "x_column with y_column, and z_column with depth_column")
        if self.z_column is not None and self.x_column is None:
            raise ValueError("boxes have a place along all axes: give x_column and y_column beside z_column")
        return self


@dataclass(frozen=True, config=STRICT)
class ClassificationOptions:
    """What a specification may say under `options`.

    Attributes:
        targets: what is to be said of an image.
        exam: None: every case is an exam.
        official_split: None: the dataset has none.
        utility: what thresholds are chosen by on out-of-fold predictions. Youden's index weighs both errors alike, F1 looks at
            the findings only; `cost` is the expected cost of wrong decisions at the prevalence of the dataset.
        costs: of wrong decisions; for that utility only.
        localise: heat maps are wanted, so the last map is kept large and pooled by log-sum-exp; predictions hold boxes.
        boxes: drawn around findings: the size of the input follows from them, and the boxes of predictions are scored;
            None: not known.
    """

    targets: tuple[TargetOptions, ...] = ()
    exam: ExamOptions | None = None
    official_split: SplitOptions | None = None
    utility: Literal["youden", "f1", "cost"] = "youden"
    costs: CostOptions | None = None
    localise: bool = False
    boxes: BoxOptions | None = None

    @model_validator(mode="after")
    def _names_are_unique(self) -> ClassificationOptions:
        names = [target.label for target in self.targets]
        if len(set(names)) < len(names):
            raise ValueError(f"names of targets must be unique, found {names}")
        return self

    @model_validator(mode="after")
    def _costs_belong_to_their_utility(self) -> ClassificationOptions:
        if (self.utility == "cost") != (self.costs is not None):
            raise ValueError("the utility 'cost' needs costs, and no other one has them; write for example utility: cost and "
                             "costs: {missed: 5, false_alarm: 1}")
        return self


def classification_options(spec: DatasetSpec) -> ClassificationOptions:
    """The options of a specification, checked.

    Raises:
        DatasetError: there is no target.
    """
    options = ClassificationOptions(**spec.options)
    if not options.targets:
        raise DatasetError(f"the specification {spec.name!r} says no target; list the columns to learn under options, for "
                           "example 'targets: [{column: diagnosis}]'", code="E_NO_TARGET")
    return options


def index_units(spec: DatasetSpec, cases: Sequence[Case]) -> tuple[Unit, ...]:
    """One unit per case, or per exam, without the test part of an official split; each knows how the table is understood.

    Units are stratified by the class of the first target. Cases to predict, which have no cell of a target, are in no split.

    Raises:
        DatasetError: a patient is on both sides of the official split, or cells cannot be understood.
    """
    options = classification_options(spec)
    labelled = {case.id for case in cases if any(target.column in case.values for target in options.targets)}
    require_clean_split(options.official_split, [case for case in cases if case.id in labelled])
    units = exams(options, [case for case in cases if case.id not in labelled or not in_test(options.official_split, case)])
    return understood(options, units)


def units_to_evaluate(spec: DatasetSpec, cases: Sequence[Case]) -> tuple[Unit, ...]:
    """The units that `evaluate` scores: those of the official test part, or all where there is none."""
    options = classification_options(spec)
    chosen = [case for case in cases if in_test(options.official_split, case)]
    return understood(options, exams(options, chosen or cases))


def in_test(split: SplitOptions | None, case: Case) -> bool:
    """Whether a case is in the official test part."""
    return split is not None and case.values.get(split.column, "").strip() in split.test


def require_clean_split(split: SplitOptions | None, cases: Sequence[Case]) -> None:
    """Raises a DatasetError where the official split divides a patient."""
    if split is None:
        return
    tested = {case.group for case in cases if in_test(split, case)}
    both = sorted({case.group for case in cases if case.group in tested and not in_test(split, case)})
    if both:
        raise DatasetError(f"the split in column {split.column!r} has {len(both)} patient(s) on both sides "
                           f"({', '.join(both[:5])}); "
                           "scores of the test part would be too good. Correct the column, or the patients in 'grouping'",
                           code="E_SPLIT_PATIENT")


def exams(options: ClassificationOptions, cases: Sequence[Case]) -> list[Unit]:
    """The cases as units; those of one exam in the order of their ids.

    Cells of a column name an exam of a patient. What a pattern finds in the id names it alone: of cases to predict the
    patient is not known.
    """
    if options.exam is None:
        return [Unit(case.id, (case,), case.group, case.stratum) for case in cases]
    found: dict[tuple[str, str], list[Case]] = {}
    for case in sorted(cases, key=lambda case: case.id):
        patient = case.group if options.exam.pattern is None else ""
        found.setdefault((patient, _exam_of(options.exam, case)), []).append(case)
    names = Counter(name for _, name in found)
    return [Unit(name if names[name] == 1 else f"{patient}_{name}", tuple(images), images[0].group, images[0].stratum)
            for (patient, name), images in found.items()]


def _exam_of(exam: ExamOptions, case: Case) -> str:
    if exam.column is not None:
        return case.values.get(exam.column, "").strip() or case.id
    match = search(exam.pattern or "", case.id)
    return (match.group(1) or case.id) if match and match.groups() else case.id


def understood(options: ClassificationOptions, units: Sequence[Unit]) -> tuple[Unit, ...]:
    """The units with what the cells of all of them together mean, and with strata.

    Of the other columns nothing is kept: a case is prepared anew where its values differ, and they do not enter.
    """
    meanings = [understand(target, cells_of(target, units)) for target in options.targets
                if any(target.column in unit.cases[0].values for unit in units)]
    columns = {target.column for target in options.targets}
    units = [replace(unit, cases=tuple(replace(case, values={column: cell for column, cell in case.values.items()
                                                             if column in columns}) for case in unit.cases)) for unit in units]
    if not meanings:
        return tuple(units)
    strata = _strata(options.targets, meanings[0], units)
    pairs = [(target, meaning) for target in options.targets for meaning in meanings if meaning.name == target.label]
    return tuple(replace(unit, stratum=unit.stratum if unit.stratum is not None else stratum,
                         labelled=any(_says_something(case, *pair) for case in unit.cases for pair in pairs),
                         cases=tuple(replace(case, values=with_meanings(case.values, meanings)) for case in unit.cases))
                 for unit, stratum in zip(units, strata, strict=True))


def _says_something(case: Case, target: TargetOptions, meaning: Meaning) -> bool:
    """Whether a cell is there; one that is no class counts, as `examine` asks for its correction."""
    try:
        return read_cell(case.values.get(target.column), target, meaning) is not None
    except DatasetError:
        return True


def _strata(targets: Sequence[TargetOptions], meaning: Meaning, units: Sequence[Unit]) -> list[str | None]:
    """The class of the first target; the rarest of several labels; the fifth that a value lies in."""
    target = next(entry for entry in targets if entry.label == meaning.name)
    read = [_read_if_known(unit, target, meaning) for unit in units]
    if meaning.kind == Kind.CONTINUOUS:
        known = [found[0] for found in read if found is not None]
        edges = np.quantile(known, np.linspace(0, 1, STRATA_OF_VALUES + 1)[1:-1]) if known else np.zeros(0)
        return [None if found is None else f"fifth {int(np.searchsorted(edges, found[0]))}" for found in read]
    counts = np.sum([found for found in read if found is not None], axis=0)
    return [None if found is None else _rarest(found, meaning.classes, counts) for found in read]


def _read_if_known(unit: Unit, target: TargetOptions, meaning: Meaning) -> tuple[float, ...] | None:
    """None also for cells that are no class: `examine` lists all of them together."""
    try:
        return read_cell(unit.cases[0].values.get(target.column), target, meaning)
    except DatasetError:
        return None


def _rarest(found: Sequence[float], classes: Sequence[str], counts: np.ndarray) -> str:
    places = [place for place, value in enumerate(found) if value]
    return classes[min(places, key=lambda place: counts[place])] if places else "none"
