"""Pictures of a label map for the report: contours of prediction and reference on the slices of largest error."""

from __future__ import annotations

from autoseg.core.image import Image
from autoseg.core.spec import ChannelSpec, DatasetSpec
from autoseg.core.task import Picture
from autoseg.planning.normalization import SCHEME_OF_NAME
from autoseg.reporting.figures import Scene, Structure, case_pictures
from autoseg.tasks.segmentation.target import Segmentation


def draw_figures(prediction: Segmentation, target: Segmentation | None, image: Image,
                 spec: DatasetSpec) -> tuple[Picture, ...]:
    """Pictures of the channel with most contrast where prediction and reference differ most, then an overview."""
    channels = [channel for entry in spec.inputs[:1] for channel in entry.channels]
    scene = Scene(prediction.label, None if target is None else target.label, structures(spec), image.geometry)
    return case_pictures(image.voxels, [channel.name for channel in channels], [holds_hu(channel) for channel in channels],
                         scene)


def structures(spec: DatasetSpec) -> tuple[Structure, ...]:
    """What is drawn: the regions, and the labels that belong to none."""
    index = {entry.name: place for place, entry in enumerate(spec.labels, start=1)}
    regions = tuple(Structure(region.name, tuple(index[name] for name in region.labels)) for region in spec.regions)
    covered = {place for region in regions for place in region.indices}
    return (*regions, *(Structure(name, (place,)) for name, place in index.items() if place not in covered))


def holds_hu(channel: ChannelSpec) -> bool:
    """Whether a channel is CT, by the specification's normalisation or by its name."""
    scheme = SCHEME_OF_NAME.get(channel.name.casefold()) if channel.normalization == "auto" else channel.normalization
    return scheme == "ct"
