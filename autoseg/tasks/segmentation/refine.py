"""Post-processing candidates of segmentation; cross-validation decides which of them help."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Given, Refinement
from autoseg.ops.components import largest_component
from autoseg.tasks.segmentation.regions import label_sets, scored_parts
from autoseg.tasks.segmentation.target import Segmentation


def refinements(spec: DatasetSpec) -> tuple[Refinement, ...]:
    """Largest component of all foreground together, then of each label, or of each region where these are trained.

    What is taken from a region becomes background. Source: nnU-Net v2.8.1, remove_connected_components.py tries the same
    two, in this order.
    """
    whole = Refinement("largest_component.foreground", _keep_largest_foreground,
                       "anatomy that is one piece has no islands")
    sets = label_sets(spec)
    each = [Refinement(f"largest_component.{name}", _keep_largest_of(sets[name]), f"{name} is one piece")
            for name in scored_parts(spec)]
    return (whole, *each)


def _keep_largest_foreground(prediction: Segmentation, spec: DatasetSpec, given: Given) -> Segmentation:
    keep = largest_component(prediction.label > 0)
    return replace(prediction, label=np.where(keep, prediction.label, 0).astype(np.uint8))


def _keep_largest_of(indices: list[int]):
    def keep_largest(prediction: Segmentation, spec: DatasetSpec, given: Given) -> Segmentation:
        mask = np.isin(prediction.label, indices)
        label = prediction.label.copy()
        label[mask & ~largest_component(mask)] = 0
        return replace(prediction, label=label)

    return keep_largest
