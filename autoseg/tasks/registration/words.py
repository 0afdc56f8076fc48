"""What people are told of a registration: facts of its pairs, how its scores are to be read, a row of numbers per pair."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autoseg.core.case import Unit, single_units
from autoseg.core.image import Image
from autoseg.core.report import Failure, Record
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Refinement
from autoseg.metrics.deformation import folded_share, log_jacobian_deviation
from autoseg.ops.displacement import jacobian_determinant
from autoseg.tasks.registration.output import Registration
from autoseg.tasks.registration.spec import registration_options
from autoseg.tasks.registration.target import LABEL, LANDMARKS


def examine(units: Sequence[Unit], spec: DatasetSpec) -> tuple[Failure, ...]:
    """Pairs of which one image has labels or landmarks and the other has none; a warning where no pair has any."""
    found = []
    for what, name in ((LABEL, "a label map"), (LANDMARKS, "landmarks")):
        odd = [unit for unit in units if len({what in case.targets for case in unit.cases}) > 1
               and not (what == LABEL and what not in unit.cases[0].targets)]  # labels to be warped onto an image without
        if odd:
            lacking = next(case.id for case in odd[0].cases if what not in case.targets)
            found.append(Failure(f"{len(odd)} pairs", "E_ONE_SIDED",
                                 f"have {name} of one image only, for example {odd[0].id}, where {lacking} has none; add what is "
                                 "missing, or exclude these cases"))
    if not any(case.targets for unit in units for case in unit.cases):
        found.append(Failure(f"{len(units)} pairs", "W_NO_REFERENCE",
                             "have neither labels nor landmarks, so nothing says whether registered images correspond; folding "
                             "alone does not"))
    return tuple(found)


def facts(spec: DatasetSpec, units: Sequence[Unit]) -> dict[str, str]:
    """How pairs are made, and what they are scored by."""
    options = registration_options(spec)
    rule = {"cohort": "any two cases", "within_patient": "within patients", "atlas": f"every case with {options.atlas}, which is "
            f"{options.atlas_is}", "table": options.table}[options.pairs]
    cases = [unit.cases[0] for unit in single_units(units)]
    scored = [f"{sum(role in case.targets for case in cases)} cases with {name}" for role, name in
              ((LABEL, "labels"), (LANDMARKS, "landmarks")) if any(role in case.targets for case in cases)]
    labels = ", ".join(f"{label.value} {label.name}" for label in spec.labels)
    return {"pairs": f"{len(units)}, {rule}", "scored by": ", ".join(scored) or "nothing but the displacement itself"} | (
        {"labels": labels} if labels else {})


def notes(spec: DatasetSpec) -> tuple[str, ...]:
    """How the scores of registrations are to be read."""
    return ("pair.agreement is the mean Dice of the labels, or, where there are none, minus the mean distance of landmarks "
            "in mm.",
            "A high Dice alone does not make a registration believable: a displacement that folds (folded_percent above 0) or "
            "whose volumes change wildly (sd_log_jacobian) can bring any labels together. inverse_error_mm says how far from "
            "where it began a point ends that goes to the moving image and back.",
            "Pairs share images, so they are no independent samples; intervals draw patients of the fixed images.")


def refinements(spec: DatasetSpec) -> tuple[Refinement, ...]:
    """None: what is refined on the pair itself is planned, and needs the images."""
    return ()


def charts(records: Sequence[Record], baseline: Sequence[Record], spec: DatasetSpec) -> tuple[str, ...]:
    """None: the report draws the scores of every pair itself."""
    return ()


def row(prediction: Registration, spec: DatasetSpec, image: Image) -> dict[str, float | str]:
    """How far voxels move, what folds, and how unevenly volumes change."""
    determinants = jacobian_determinant(prediction.displacement, image.geometry)
    lengths = np.sqrt(np.square(prediction.displacement, dtype=np.float64).sum(axis=0))
    deviation = log_jacobian_deviation(determinants)
    return {"mean_mm": float(lengths.mean()), "largest_mm": float(lengths.max()),
            "folded_percent": 100 * folded_share(determinants),
            "sd_log_jacobian": deviation if math.isfinite(deviation) else "not defined"}
