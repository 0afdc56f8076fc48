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
from autoseg.metrics.lesions import compare_lesions
from autoseg.metrics.overlap import dice, iou, volume_ml
from autoseg.metrics.surface import hausdorff_mm, surface_dice, surface_distances
from autoseg.tasks.segmentation.regions import label_sets, scored_parts
from autoseg.tasks.segmentation.spec import LesionOptions, lesion_options, segmentation_options
from autoseg.tasks.segmentation.target import Segmentation

MEAN_METRICS = ("dice", "iou", "surface_dice", "hd95_mm")
MEAN_LESION_METRICS = ("lesion_dice", "lesion_hd95_mm")


def score(prediction: Segmentation, target: Segmentation, spec: DatasetSpec, image: Image) -> Scores:
    """Dice, IoU, surface Dice, HD95 (mm) and volumes (ml) per label and region, and their mean over what was trained on.

    The mean is taken over labels, or over regions where they are the outputs of the network. Both masks empty: not
    defined (nan); one empty: Dice, IoU and surface Dice 0, HD95 infinite. Voxels that nobody annotated do not count:
    they are in no mask, so a surface ends where the annotation does.
    """
    tolerance, lesions = segmentation_options(spec).surface_tolerance_mm, lesion_options(spec)
    spacing, parts = image.geometry.spacing_mm, scored_parts(spec)
    counts = target.annotated
    scores: Scores = {}
    for name, indices in label_sets(spec).items():
        masks = (np.isin(prediction.label, indices) & counts, np.isin(target.label, indices) & counts)
        measured = _score_mask(*masks, spacing, tolerance)
        if lesions is not None and name in parts:
            measured |= _score_lesions(*masks, spacing, lesions)
        scores |= {f"{name}.{metric}": value for metric, value in measured.items()}
    for metric in (*MEAN_METRICS, *(() if lesions is None else MEAN_LESION_METRICS)):
        values = np.array([scores[f"{name}.{metric}"] for name in parts])
        scores[f"mean.{metric}"] = float(np.nanmean(values)) if (~np.isnan(values)).any() else float("nan")
    return scores


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


def _score_lesions(prediction: NDArray[np.bool_], reference: NDArray[np.bool_], spacing_mm, rules: LesionOptions) -> Scores:
    found = compare_lesions(prediction, reference, spacing_mm, dilation_voxels=rules.dilation_voxels,
                            smallest_mm3=rules.smallest_mm3)
    return {"lesion_dice": found.dice, "lesion_hd95_mm": found.hd95_mm, "lesions_found": float(found.found),
            "lesions_missed": float(found.missed), "lesions_false": float(found.false)}


def summarise(records: Sequence[Record], rng: np.random.Generator) -> dict[str, Estimate]:
    """Mean and median over cases with the 95 % bootstrap interval of the mean, per score; patients are drawn whole.

    All scores are resampled with the same draws, so that equal scores have equal intervals.

    Infinite distances (one mask empty) would make every mean infinite; they count as undefined, and the overlaps of the
    same case are 0.
    """
    names = dict.fromkeys(name for record in records for name in record.scores)
    patients = [record.patient for record in records]
    seed = int(rng.integers(2**63))
    return {name: bootstrap_mean([_finite(record.scores.get(name, math.nan)) for record in records],
                                 np.random.default_rng(seed), groups=patients) for name in names}


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.nan
