"""Scores a folder of predictions against a folder of references."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from autoseg.core.case import Case, Unit
from autoseg.core.errors import AutosegError, DatasetError, GeometryError
from autoseg.core.progress import Progress
from autoseg.core.report import Failure, Record, Report
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Task
from autoseg.io.grouping import patient_in_id
from autoseg.io.images import ENDINGS, PICTURE_ENDINGS, grids_agree, image_ending, read_geometry, read_image
from autoseg.stages.summary import make_report

# Resampling of the bootstrap only; a fixed stream makes the same folders give the same interval.
EVALUATION_SEED = 0


def run_evaluate(task: Task, spec: DatasetSpec, predictions: Path, references: Path, *, progress: Progress) -> Report:
    """Scores of every reference; a prediction that is missing, unreadable or on another grid is listed as a failure.

    Raises:
        DatasetError: there is no reference at all, or no prediction for any of them.
    """
    expected = files_by_case(references)
    found = files_by_case(predictions)
    if not expected:
        raise DatasetError(f"{references} holds no label maps (endings {', '.join(ENDINGS)})")
    if not set(expected) & set(found):
        raise DatasetError(f"none of the {len(found)} files in {predictions} is named like one of the {len(expected)} in "
                           f"{references} (for example {next(iter(expected))!r}); files pair by name without ending")
    records, failures = [], []
    for place, (name, reference) in enumerate(expected.items()):
        try:
            records.append(_score_pair(task, spec, name, found, reference))
        except AutosegError as error:
            failures.append(Failure(name, error.code, str(error)))
        progress("evaluate", place + 1, len(expected), name)
    return make_report(task, records, np.random.default_rng(EVALUATION_SEED), failures)


def files_by_case(folder: Path) -> dict[str, Path]:
    """Image files of a folder by their name without ending, sorted; probabilities are left out, and pictures (PNG, TIFF)
    beside volumes, which are previews."""
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder")
    files = {}
    paths = sorted(folder.iterdir())
    has_volumes = any(image_ending(path) not in (None, *PICTURE_ENDINGS) for path in paths)
    for path in paths:
        ending = image_ending(path)
        if has_volumes and ending in PICTURE_ENDINGS:
            continue
        if ending and not path.name.startswith(".") and not path.name.endswith(f"_probabilities{ending}"):
            files[path.name[: -len(ending)]] = path
    return files


def _score_pair(task: Task, spec: DatasetSpec, name: str, found: Mapping[str, Path], reference: Path) -> Record:
    if name not in found:
        raise DatasetError(f"no prediction for {name} (looked for a file of that name beside the others)",
                           code="E_MISSING_PREDICTION")
    if not grids_agree(found[name], reference):
        ours, theirs = read_geometry(found[name]), read_geometry(reference)
        raise GeometryError(f"prediction {found[name]} lies on {ours} and reference {reference} on {theirs}; "
                            "resample the prediction to the grid of the reference")
    unit = Unit(name, (Case(name, name, {}, {"label": reference}),), name)
    scores = task.score(task.read_prediction(found[name], spec), task.read_target(unit, spec), spec,
                        read_image([reference]))
    return Record(name, scores, patient_in_id(spec, name))
