"""Post-processing candidates of segmentation; cross-validation decides which of them help."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Refinement
from autoseg.ops.components import largest_component
from autoseg.tasks.segmentation.target import Segmentation


def refinements(spec: DatasetSpec) -> tuple[Refinement, ...]:
    """Largest component of all foreground together, then of each label.

    Source: nnU-Net v2.8.1, remove_connected_components.py tries the same two, in this order.
    """
    whole = Refinement("largest_component.foreground", _keep_largest_foreground,
                       "anatomy that is one piece has no islands")
    each = [Refinement(f"largest_component.{entry.name}", _keep_largest_of(index),
                       f"{entry.name} is one piece") for index, entry in enumerate(spec.labels, start=1)]
    return (whole, *each)


def _keep_largest_foreground(prediction: Segmentation, spec: DatasetSpec) -> Segmentation:
    keep = largest_component(prediction.label > 0)
    return replace(prediction, label=np.where(keep, prediction.label, 0).astype(np.uint8))


def _keep_largest_of(index: int):
    def keep_largest(prediction: Segmentation, spec: DatasetSpec) -> Segmentation:
        mask = prediction.label == index
        label = prediction.label.copy()
        label[mask & ~largest_component(mask)] = 0
        return replace(prediction, label=label)

    return keep_largest
