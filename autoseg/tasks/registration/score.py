"""Scores of one registration: labels and landmarks that should meet, and whether the displacement can be believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import GeometryError
from autoseg.core.geometry import Geometry
from autoseg.core.image import Image
from autoseg.core.report import Estimate, Record, Scores
from autoseg.core.spec import DatasetSpec
from autoseg.metrics.bootstrap import bootstrap_mean
from autoseg.metrics.deformation import (
    folded_share,
    inverse_consistency_errors_mm,
    log_jacobian_deviation,
    target_registration_errors_mm,
)
from autoseg.metrics.overlap import dice
from autoseg.metrics.surface import hausdorff_mm, surface_distances
from autoseg.ops.displacement import jacobian_determinant, warp_labels
from autoseg.ops.inversion import invert
from autoseg.tasks.registration.output import Registration
from autoseg.tasks.registration.target import Annotation, PairTarget

# The headline: what says most about whether points correspond.
AGREEMENT = "pair.agreement"
# Voxels on which a displacement is inverted for its score: it is smooth, and ten million would take a minute.
INVERTED_VOXELS = 2**19
# The iteration ends where a point comes back within a hundredth of the smallest voxel side.
INVERSION_TOLERANCE = 0.01


def score(prediction: Registration | PairTarget, target: PairTarget | Registration | None, spec: DatasetSpec,
          image: Image) -> Scores:
    """Dice and HD95 (mm) of every warped label and their means, landmarks (mm), folding, and how well the way back is known.

    `pair.agreement` is the mean Dice; without labels minus the mean distance of landmarks in mm; without either nan: then
    nothing says whether the images correspond.

    Args:
        prediction: a target stands for the registration that is right everywhere.
        target: another registration is taken for the truth, as its displacement says.
        image: the fixed one.
    Raises:
        GeometryError: the displacement does not lie on the fixed image's grid.
    """
    fixed = image.geometry
    if isinstance(prediction, PairTarget):
        assert isinstance(target, PairTarget)
        found = label_scores(prediction.fixed.label, target, spec, fixed)
        return {AGREEMENT: found.get("mean.dice", 0.0)} | found
    if prediction.displacement.shape[1:] != fixed.shape:
        raise GeometryError(f"the displacement has {prediction.displacement.shape[1:]} voxels (z, y, x) and the fixed image "
                            f"{fixed.shape}; a displacement lies on the grid of its fixed image")
    if isinstance(target, Registration):
        return _against(prediction, target) | field_scores(prediction.displacement, fixed, fixed)
    scores: Scores = {}
    if target is not None and target.moving is not None:
        scores |= label_scores(warped_label(prediction, target.moving, fixed), target, spec, fixed)
        scores |= landmark_scores(prediction, target, fixed)
    agreement = scores.get("mean.dice", -scores.get("landmarks.tre_mm", math.nan))
    onto = fixed if target is None or target.moving is None else target.moving.geometry
    return {AGREEMENT: agreement} | scores | field_scores(prediction.displacement, fixed, onto)


def warped_label(prediction: Registration, moving: Annotation, fixed: Geometry) -> NDArray | None:
    """The moving image's labels (Z, Y, X) on the fixed grid; None where it has none."""
    if moving.label is None:
        return None
    return warp_labels(moving.label, moving.geometry, prediction.displacement, fixed, interpolation="linear")


def label_scores(warped: NDArray | None, target: PairTarget, spec: DatasetSpec, fixed: Geometry) -> Scores:
    """Dice and HD95 of the moving image's labels, warped, with those of the fixed one; nothing where there are none."""
    if target.fixed.label is None or warped is None:
        return {}
    scores: Scores = {}
    for name, value in scored_labels(target, spec).items():
        masks = warped == value, target.fixed.label == value
        box = _around(masks[0] | masks[1])
        scores[f"{name}.dice"] = dice(*masks)
        scores[f"{name}.hd95_mm"] = hausdorff_mm(surface_distances(masks[0][box], masks[1][box], fixed.spacing_mm))
    for metric in ("dice", "hd95_mm"):
        values = np.array([found for name, found in scores.items() if name.endswith(f".{metric}")])
        scores[f"mean.{metric}"] = float(np.nanmean(values)) if (~np.isnan(values)).any() else math.nan
    return scores


def scored_labels(target: PairTarget, spec: DatasetSpec) -> dict[str, int]:
    """Values by name: those of the specification, or, where it lists none, all that both label maps hold."""
    if spec.labels:
        return {label.name: label.value for label in spec.labels}
    assert target.fixed.label is not None and target.moving is not None and target.moving.label is not None
    both = np.intersect1d(np.unique(target.fixed.label), np.unique(target.moving.label))
    return {f"label {value}": int(value) for value in both if value}


def landmark_scores(prediction: Registration, target: PairTarget, fixed: Geometry) -> Scores:
    """Mean and largest distance of landmarks in mm, and the mean before anything was registered."""
    if target.points_mm is None:
        return {}
    errors = target_registration_errors_mm(*target.points_mm, prediction.displacement, fixed)
    before = target_registration_errors_mm(*target.points_mm, None, fixed)
    return {"landmarks.tre_mm": float(errors.mean()), "landmarks.largest_mm": float(errors.max()),
            "landmarks.before_mm": float(before.mean())}


def field_scores(displacement: NDArray, fixed: Geometry, moving: Geometry) -> Scores:
    """Percent of voxels that fold, deviation of the log Jacobian, and the mean error of the way there and back in mm."""
    determinants = jacobian_determinant(displacement, fixed)
    coarse, own = _coarser(displacement, fixed)
    grid = _coarser_geometry(moving)
    back = invert(coarse, own, grid, tolerance_mm=INVERSION_TOLERANCE * min(fixed.spacing_mm))
    errors = inverse_consistency_errors_mm(coarse, own, back.displacement, grid)
    inside = errors[np.isfinite(errors)]
    return {"field.folded_percent": 100 * folded_share(determinants),
            "field.sd_log_jacobian": log_jacobian_deviation(determinants),
            "field.inverse_error_mm": float(inside.mean()) if inside.size else math.nan}


def summarise(records: Sequence[Record], rng: np.random.Generator) -> dict[str, Estimate]:
    """Mean and median over pairs with the 95 % bootstrap interval of the mean, per score; patients are drawn whole.

    A pair counts for the patient of its fixed image. All scores are resampled with the same draws. Infinite distances (one mask
    empty) count as undefined, and the overlap of the same label is 0.
    """
    names = dict.fromkeys(name for record in records for name in record.scores)
    patients, seed = [record.patient for record in records], int(rng.integers(2**63))

    def finite(value: float) -> float:
        return value if math.isfinite(value) else math.nan

    return {name: bootstrap_mean([finite(record.scores.get(name, math.nan)) for record in records], np.random.default_rng(seed),
                                 groups=patients) for name in names}


def _against(prediction: Registration, truth: Registration) -> Scores:
    errors = np.linalg.norm(prediction.displacement - truth.displacement, axis=0)
    return {AGREEMENT: -float(errors.mean()), "field.end_point_error_mm": float(errors.mean())}


def _around(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The box of a mask with a margin of one voxel, so that surfaces close; everything where it is empty."""
    if not mask.any():
        return (slice(None),) * 3
    spans = []
    for axis in range(3):
        held = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        spans.append(slice(max(int(held[0]) - 1, 0), int(held[-1]) + 2))
    return tuple(spans)


def _coarser(displacement: NDArray, geometry: Geometry) -> tuple[NDArray, Geometry]:
    """Every second (third, ...) voxel along each axis, until there are few enough."""
    step = _step(geometry)
    return np.ascontiguousarray(displacement[:, ::step, ::step, ::step]), _coarser_geometry(geometry)


def _coarser_geometry(geometry: Geometry) -> Geometry:
    step = _step(geometry)
    z, y, x = (-(-size // step) for size in geometry.shape)
    spacing = (geometry.spacing_mm[0] * step, geometry.spacing_mm[1] * step, geometry.spacing_mm[2] * step)
    return replace(geometry, shape=(z, y, x), spacing_mm=spacing)


def _step(geometry: Geometry) -> int:
    step = 1
    while math.prod(-(-size // step) for size in geometry.shape) > INVERTED_VOXELS:
        step += 1
    return step
