"""Pictures of a label map for the report: contours on the slice of largest error, across each axis."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autoseg.core.image import Image
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Picture
from autoseg.reporting.figures import worst_pictures
from autoseg.tasks.segmentation.target import Segmentation


def draw_figures(prediction: Segmentation, target: Segmentation | None, image: Image,
                 spec: DatasetSpec) -> tuple[Picture, ...]:
    """One picture per anatomical plane of the first channel, where prediction and reference differ most.

    Only annotated voxels are drawn where the reference has others.
    """
    if target is not None and target.ignored is not None:
        prediction, target = (replace(part, label=np.where(target.annotated, part.label, 0)) for part in (prediction, target))
    names = {index: entry.name for index, entry in enumerate(spec.labels, start=1)}
    return worst_pictures(image.voxels[0], prediction.label, None if target is None else target.label, names,
                          image.geometry.spacing_mm)
