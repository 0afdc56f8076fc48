"""Predictions of both tasks beside a dataset's folder: which is compared with which."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from autoseg.core.case import Case, Unit
from autoseg.core.errors import DatasetError, GeometryError
from autoseg.core.report import Scores
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Comparison
from autoseg.io.dataset import scan
from autoseg.io.images import accepted_of, grids_agree, read_geometry, read_image, written_ending
from autoseg.tasks.joint.parts import Parts, lifted, spec_of


def compare(parts: Parts, predictions: Path, references: Path, spec: DatasetSpec) -> tuple[Comparison, ...]:
    """The units that the whole-image task compares, each with the scores of both tasks.

    Args:
        references: the dataset's folder, where images, label maps and the table are.
    Raises:
        DatasetError: it is no such folder, or there is no prediction for any of its units.
    """
    if not references.is_dir():
        raise DatasetError(f"{references} is no folder; both tasks are scored against the folder of the dataset, with its images "
                           "and all targets")
    cases = {case.id: case for case in scan(spec, references).cases}
    compared = parts.whole.compare(predictions, references, spec_of(parts.whole, spec))
    return tuple(Comparison(one.unit, one.group, partial(_score, parts, spec, one, cases[one.unit], predictions))
                 for one in compared)


def _score(parts: Parts, spec: DatasetSpec, compared: Comparison, case: Case, predictions: Path) -> Scores:
    scores = lifted(parts.whole, compared.score())
    own, dense = spec_of(parts.dense, spec), parts.dense
    target = dense.read_target(Unit(case.id, (case,), case.group), own)
    if target is None:
        return scores
    first = spec.inputs[0]
    paths = case.inputs[first.role]
    path = predictions / f"{case.id}{written_ending(paths[0])}"
    if not path.is_file():
        raise DatasetError(f"no prediction (looked for {path.name} beside the others)",
                           code="E_MISSING_PREDICTION")
    if not grids_agree(path, paths[0]):
        raise GeometryError(f"prediction {path} lies on {read_geometry(path)} and its image on {read_geometry(paths[0])}; "
                            "predict again, or resample the prediction to the grid of the image")
    image = read_image(paths, channels=len(first.channels), accepted=accepted_of(first))
    return lifted(dense, dense.score(dense.read_prediction(path, own), target, own, image)) | scores
