"""Scores of one label map against its reference, and their summary."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoseg.core.image import Image
from autoseg.core.report import Estimate, Record, Scores
from autoseg.core.spec import DatasetSpec
from autoseg.metrics.bootstrap import bootstrap_mean
from autoseg.metrics.overlap import dice, iou, volume_ml
from autoseg.metrics.surface import hausdorff_mm, surface_dice, surface_distances
from autoseg.tasks.segmentation.spec import segmentation_options
from autoseg.tasks.segmentation.target import Segmentation


def score(prediction: Segmentation, target: Segmentation, spec: DatasetSpec, image: Image) -> Scores:
    """Dice, IoU, surface Dice, HD95 (mm) and volumes (ml) per label and region, and their mean over labels.

    Both masks empty: not defined (nan); one empty: Dice, IoU and surface Dice 0, HD95 infinite.
    """
    tolerance = segmentation_options(spec).surface_tolerance_mm
    spacing = image.geometry.spacing_mm
    scores: Scores = {}
    for name, indices in label_sets(spec).items():
        masks = (np.isin(prediction.label, indices), np.isin(target.label, indices))
        for metric, value in _score_mask(*masks, spacing, tolerance).items():
            scores[f"{name}.{metric}"] = value
    labels = [entry.name for entry in spec.labels]
    for metric in ("dice", "iou", "surface_dice", "hd95_mm"):
        values = np.array([scores[f"{name}.{metric}"] for name in labels])
        scores[f"mean.{metric}"] = float(np.nanmean(values)) if (~np.isnan(values)).any() else float("nan")
    return scores


def label_sets(spec: DatasetSpec) -> dict[str, list[int]]:
    """Name -> indices, for every label and region."""
    index = {entry.name: place for place, entry in enumerate(spec.labels, start=1)}
    sets = {name: [place] for name, place in index.items()}
    return sets | {region.name: [index[name] for name in region.labels] for region in spec.regions}


def _score_mask(prediction: NDArray[np.bool_], reference: NDArray[np.bool_], spacing_mm, tolerance_mm: float) -> Scores:
    distances = surface_distances(prediction, reference, spacing_mm)
    return {
        "dice": dice(prediction, reference),
        "iou": iou(prediction, reference),
        "surface_dice": surface_dice(distances, tolerance_mm),
        "hd95_mm": hausdorff_mm(distances),
        "volume_ml": volume_ml(prediction, spacing_mm),
        "reference_volume_ml": volume_ml(reference, spacing_mm),
    }


def summarise(records: Sequence[Record], rng: np.random.Generator) -> dict[str, Estimate]:
    """Mean and median over cases with the 95 % bootstrap interval of the mean, per score; patients are drawn whole.

    Infinite distances (one mask empty) would make every mean infinite; they count as undefined, and the overlaps of the
    same case are 0.
    """
    names = dict.fromkeys(name for record in records for name in record.scores)
    patients = [record.patient for record in records]
    return {name: bootstrap_mean([_finite(record.scores.get(name, math.nan)) for record in records], rng, groups=patients)
            for name in names}


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.nan
