"""Pictures of a label map for the report: contours of prediction and reference on the slices of largest error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autoseg.core.image import Image
from autoseg.core.spec import ChannelSpec, DatasetSpec
from autoseg.core.task import Picture
from autoseg.planning.normalization import SCHEME_OF_NAME
from autoseg.reporting.figures import Scene, Structure, case_pictures
from autoseg.tasks.segmentation.regions import label_sets, scored_parts
from autoseg.tasks.segmentation.target import Segmentation


def draw_figures(prediction: Segmentation, target: Segmentation | None, image: Image,
                 spec: DatasetSpec) -> tuple[Picture, ...]:
    """Pictures of the channel with most contrast where prediction and reference differ most, then an overview.

    Only annotated voxels are drawn where the reference has others.
    """
    if target is not None and target.ignored is not None:
        prediction, target = (replace(part, label=np.where(target.annotated, part.label, 0)) for part in (prediction, target))
    channels = [channel for entry in spec.inputs[:1] for channel in entry.channels]
    scene = Scene(prediction.label, None if target is None else target.label, structures(spec), image.geometry)
    return case_pictures(image.voxels, [channel.name for channel in channels], [holds_hu(channel) for channel in channels],
                         scene)


def structures(spec: DatasetSpec) -> tuple[Structure, ...]:
    """What is drawn is what is scored: labels, or regions where the network has outputs for them."""
    indices = label_sets(spec)
    return tuple(Structure(name, tuple(indices[name])) for name in scored_parts(spec))


def holds_hu(channel: ChannelSpec) -> bool:
    """Whether a channel is CT, by the specification's normalisation or by its name."""
    scheme = SCHEME_OF_NAME.get(channel.name.casefold()) if channel.normalization == "auto" else channel.normalization
    return scheme == "ct"
