"""A folder of predictions beside a table or a dataset's folder: which prediction is compared with which truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath

from autoseg.core.case import Case, Unit
from autoseg.core.errors import DatasetError
from autoseg.core.report import Scores
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Comparison
from autoseg.io.dataset import scan
from autoseg.io.grouping import patient_in_id
from autoseg.io.images import ENDINGS, LOSSY_ENDINGS
from autoseg.io.tables import read_table
from autoseg.tasks.classification.kinds import Meaning
from autoseg.tasks.classification.output import ENDING, read_prediction
from autoseg.tasks.classification.score import score
from autoseg.tasks.classification.spec import classification_options, units_to_evaluate
from autoseg.tasks.classification.target import Answer, answer_of, drawn_boxes

TABLES = (".csv", ".tsv")


def compare(predictions: Path, references: Path, spec: DatasetSpec) -> tuple[Comparison, ...]:
    """Every unit of a table (CSV, TSV) or of a dataset's folder with the prediction of its name.

    Where the specification has an official split, the units of its test part.

    Raises:
        DatasetError: there is no reference, or no prediction for any of them.
    """
    units = units_to_evaluate(spec, _cases(references, spec))
    found = {path.stem: path for path in sorted(predictions.glob(f"*{ENDING}"))} if predictions.is_dir() else {}
    if not any(unit.id in found for unit in units):
        example = f" (for example {units[0].id!r})" if units else ""
        raise DatasetError(f"none of the {len(found)} predictions ({ENDING}) in {predictions} is named like one of the "
                           f"{len(units)} units of {references}{example}; name the folder that 'autoseg predict' wrote, and "
                           "the table or folder of the dataset")
    return tuple(Comparison(unit.id, unit.group, partial(_score_unit, spec, unit, found, references)) for unit in units)


def _cases(references: Path, spec: DatasetSpec) -> tuple[Case, ...]:
    if references.is_dir():
        return scan(spec, references).cases
    if references.suffix.lower() not in TABLES:
        raise DatasetError(f"{references} is neither a table ({', '.join(TABLES)}) nor the folder of a dataset; give one of them")
    table = read_table(references, [spec.grouping.case_column])
    place, cases = table.place(spec.grouping.case_column), {}
    for number, cells in table.rows:
        name = case_name(cells[place])
        if name in cases:
            raise DatasetError(f"{references}: row {number} is a second one for {name!r}; remove one of them", code="E_TABLE")
        row = dict(zip(table.columns, cells, strict=True))
        cases[name] = Case(name, patient(spec, name, row), {}, values=row)
    return tuple(cases.values())


def case_name(cell: str) -> str:
    """The id that a cell names, which may be the name of an image file, in folders or not."""
    path = PurePath(cell.strip())
    ending = next((ending for ending in (*ENDINGS, *LOSSY_ENDINGS) if path.name.lower().endswith(ending)), "")
    return path.name[:len(path.name) - len(ending)]


def patient(spec: DatasetSpec, case_id: str, row: Mapping[str, str]) -> str:
    """The patient of a row: its cell, else the pattern in its id, else the case is its own."""
    column = spec.grouping.group_column
    return (row.get(column, "") if column else "") or patient_in_id(spec, case_id) or case_id


def _score_unit(spec: DatasetSpec, unit: Unit, found: Mapping[str, Path], references: Path) -> Scores:
    if unit.id not in found:
        raise DatasetError(f"no prediction (looked for {unit.id}{ENDING} beside the others)",
                           code="E_MISSING_PREDICTION")
    said = read_prediction(found[unit.id], spec)
    true = answer_of(unit, spec, _meanings(said))
    if said.found is not None:
        true = replace(true, boxes=drawn_boxes(unit, classification_options(spec).boxes, beside=references.absolute()))
    return score(said, true, spec)


def _meanings(said: Answer) -> tuple[Meaning, ...]:
    """The classes that the prediction knows, so that cells are read in its own words."""
    return tuple(Meaning(reading.name, reading.kind, reading.classes, std=reading.std) for reading in said.readings)
