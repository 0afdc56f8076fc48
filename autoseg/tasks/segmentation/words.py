"""What people are told of a segmentation: facts of its targets, how its scores are to be read, a row of numbers per case."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autoseg.core.case import Unit
from autoseg.core.image import Image
from autoseg.core.report import Failure, Record
from autoseg.core.spec import DatasetSpec
from autoseg.tasks.segmentation.regions import label_sets
from autoseg.tasks.segmentation.target import Segmentation


def examine(units: Sequence[Unit], spec: DatasetSpec) -> tuple[Failure, ...]:
    """Nothing: what is wrong with label maps is found where their voxels are read."""
    return ()


def facts(spec: DatasetSpec, units: Sequence[Unit]) -> dict[str, str]:
    """Labels with their values, regions, and the value of voxels that nobody annotated."""
    labels = ", ".join(f"{label.value} {label.name}" for label in spec.labels)
    found = {"labels": f"0 background, {labels}" if labels else "none"}
    if spec.ignore is not None:
        found["ignored"] = f"{spec.ignore}: voxels that nobody annotated"
    if spec.regions:
        found["regions"] = "; ".join(f"{region.name}: {' + '.join(region.labels)}" for region in spec.regions)
    return found


def notes(spec: DatasetSpec) -> tuple[str, ...]:
    """How missing labels count."""
    return ("A label that neither prediction nor reference contains has no score and is not counted. Where only one of them "
            "contains it, overlaps count as 0; distances are then infinite and left out of the means, so read them beside the "
            "overlaps.",)


def charts(records: Sequence[Record], baseline: Sequence[Record], spec: DatasetSpec) -> tuple[str, ...]:
    """None: the report draws the scores of every case and label itself."""
    return ()


def row(prediction: Segmentation, spec: DatasetSpec, image: Image) -> dict[str, float | str]:
    """Volume in millilitres of every label and region."""
    counts = np.zeros(len(spec.labels) + 1, np.int64)
    for plane in prediction.label:  # numpy makes 8-byte numbers of a plane, not of the whole image
        counts += np.bincount(plane.ravel(), minlength=len(counts))
    voxel_ml = math.prod(image.geometry.spacing_mm) / 1000
    return {f"{name}.volume_ml": float(counts[indices].sum() * voxel_ml) for name, indices in label_sets(spec).items()}
