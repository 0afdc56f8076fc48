"""What counts as air around the patient, and the fingerprint after cropping to the rest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autoseg.core.fingerprint import Fingerprint
from autoseg.core.plan import Air, InputPlan

# nnU-Net's bound below which a crop matters (default_experiment_planner.py:205), here for the crop to what differs from the
# corners, relative to the crop to non-zero.
WORTH_BELOW = 0.75


def plan_air(fingerprint: Fingerprint, *, follow_nnunet: bool = False) -> Air:
    """`corners` where air has one value other than 0, so that a crop to non-zero would keep it; else nnU-Net's `zero`.

    Published scans are often skull-stripped and standardised afterwards: their air is -3.6, say. Kept, it fills most
    patches and enters the mean of every z-score.
    """
    if follow_nnunet or not fingerprint.case_count:
        return "zero"
    inside = fingerprint.inside_corners()
    share = np.divide(inside.relative_sizes, fingerprint.relative_sizes)
    return "corners" if float(np.median(share)) < WORTH_BELOW else "zero"


def cropped(fingerprint: Fingerprint, air: Air) -> Fingerprint:
    """The fingerprint with shapes and sizes after the crop to what is not air."""
    if air == "nothing":
        return _whole(fingerprint)
    return fingerprint.inside_corners() if air == "corners" else fingerprint


def cropped_as_planned(fingerprint: Fingerprint, inputs: tuple[InputPlan, ...]) -> Fingerprint:
    """The fingerprint as the inputs of a plan are cropped."""
    asked = {entry.air for entry in inputs}
    return cropped(fingerprint, "nothing" if "nothing" in asked else "corners" if "corners" in asked else "zero")


def _whole(fingerprint: Fingerprint) -> Fingerprint:
    """The fingerprint of uncropped images. Their volumes are known; their proportions are taken to be those of the crop."""
    shapes = []
    for shape, share in zip(fingerprint.shapes_after_crop, fingerprint.relative_sizes, strict=True):
        long = sum(size > 1 for size in shape)
        factor = (1 / share) ** (1 / max(long, 1))
        z, y, x = (round(size * factor) if size > 1 else size for size in shape)
        shapes.append((z, y, x))
    return replace(fingerprint, shapes_after_crop=tuple(shapes), relative_sizes=(1.0,) * len(shapes))
