"""A folder of label maps beside a folder of references: which file is compared with which."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from autoseg.core.case import Case, Unit
from autoseg.core.errors import DatasetError, GeometryError
from autoseg.core.report import Scores
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Comparison
from autoseg.io.grouping import patient_in_id
from autoseg.io.images import ENDINGS, files_by_case, grids_agree, read_geometry, read_image
from autoseg.tasks.segmentation.output import read_prediction
from autoseg.tasks.segmentation.score import score
from autoseg.tasks.segmentation.target import read_target


def compare(predictions: Path, references: Path, spec: DatasetSpec) -> tuple[Comparison, ...]:
    """Every reference of a folder with the prediction of its name.

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
    return tuple(Comparison(name, patient_in_id(spec, name), partial(_score_pair, spec, name, found, reference))
                 for name, reference in expected.items())


def _score_pair(spec: DatasetSpec, name: str, found: Mapping[str, Path], reference: Path) -> Scores:
    if name not in found:
        raise DatasetError("no prediction (looked for a file of its name beside the others)",
                           code="E_MISSING_PREDICTION")
    if not grids_agree(found[name], reference):
        ours, theirs = read_geometry(found[name]), read_geometry(reference)
        raise GeometryError(f"prediction {found[name]} lies on {ours} and reference {reference} on {theirs}; "
                            "resample the prediction to the grid of the reference")
    unit = Unit(name, (Case(name, name, {}, {"label": reference}),), name)
    target = read_target(unit, spec)
    assert target is not None  # the unit has a reference
    return score(read_prediction(found[name], spec), target, spec, read_image([reference]))
