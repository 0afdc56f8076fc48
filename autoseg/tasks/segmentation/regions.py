"""What the outputs of a network stand for: labels, of which one wins, or regions, which overlap and are painted in order.

Regions as outputs: nnU-Net v2 (label_handling.py), after Isensee et al. 2018, "No New-Net": a network that is scored on
overlapping regions learns them directly. Voxels that nobody annotated have an index of their own behind the labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from autoseg.core.errors import DatasetError
from autoseg.core.plan import Configuration
from autoseg.core.spec import DatasetSpec, RegionSpec
from autoseg.ops.largest import first_largest
from autoseg.tasks.segmentation.spec import segmentation_options


@dataclass(frozen=True)
class Painting:
    """Regions as outputs.

    Attributes:
        regions: per output, the label indices (1 to n) that it is the union of.
        paints: per output, the label index that its voxels get; later outputs paint over earlier ones.
    """

    regions: tuple[tuple[int, ...], ...]
    paints: tuple[int, ...]


def label_indices(spec: DatasetSpec) -> dict[str, int]:
    """Index of every label, 1 to n in the order of the specification; 0 is the background."""
    return {entry.name: place for place, entry in enumerate(spec.labels, start=1)}


def ignore_index(spec: DatasetSpec) -> int | None:
    """The index of voxels that nobody annotated: behind the last label, so that it wins ties when label maps are resampled.

    None where all voxels are annotated.
    """
    return None if spec.ignore is None else len(spec.labels) + 1


def trains_regions(spec: DatasetSpec) -> bool:
    """True where the network has an output per region instead of one per label."""
    return bool(spec.regions) and segmentation_options(spec).train_on == "regions"


def scored_parts(spec: DatasetSpec) -> list[str]:
    """Names of what the mean score is taken over: what the network has outputs for."""
    return [entry.name for entry in (spec.regions if trains_regions(spec) else spec.labels)]


def label_sets(spec: DatasetSpec) -> dict[str, list[int]]:
    """Name -> label indices, for every region and every label that predictions tell apart.

    Where regions are the outputs, one may paint all that the next ones leave of it with one of several labels (`paints`): none
    of these can be scored or measured by itself.
    """
    index = label_indices(spec)
    mixed: set[str] = set()
    for place, region in enumerate(spec.regions if trains_regions(spec) else ()):
        left = _left_by_later(spec, place)
        if left and region.paints is not None and left != [region.paints]:
            mixed |= {*left, region.paints}
    return {name: [place] for name, place in index.items() if name not in mixed} | {
        region.name: sorted(index[name] for name in region.labels) for region in spec.regions}


def plan_painting(spec: DatasetSpec) -> Painting | None:
    """Regions as outputs and what each paints; None where the outputs are labels.

    Raises:
        DatasetError: a label is in no region and could never be predicted, or it is unclear what a region paints.
    """
    if not trains_regions(spec):
        return None
    index = label_indices(spec)
    missing = [name for name in index if not any(name in region.labels for region in spec.regions)]
    if missing:
        raise DatasetError(f"dataset {spec.name!r}: {', '.join(missing)} would never be predicted, as no region has it; add "
                           f"regions such as '{missing[0]}: [{missing[0]}]', or write 'train_on: labels' under options, "
                           "and regions are scored only")
    regions = tuple(tuple(sorted(index[name] for name in region.labels)) for region in spec.regions)
    paints = tuple(index[_painted(spec, place)] for place in range(len(spec.regions)))
    return Painting(regions, paints)


def _painted(spec: DatasetSpec, place: int) -> str:
    region = spec.regions[place]
    if region.paints is not None:
        return region.paints
    own = _left_by_later(spec, place)
    if len(own) != 1:
        raise DatasetError(f"dataset {spec.name!r}: it is unclear which label the region {region.name!r} paints: "
                           f"{_what_is_left(region, own)}. Order the regions from the outermost to the innermost, or write "
                           f"'{region.name}: {{labels: [{', '.join(region.labels)}], paints: {region.labels[0]}}}', or "
                           "'train_on: labels' under options, and regions are scored only")
    return own[0]


def _left_by_later(spec: DatasetSpec, place: int) -> list[str]:
    """Labels of a region that no later region paints over."""
    later: set[str] = set().union(*(other.labels for other in spec.regions[place + 1:]))
    return [name for name in spec.regions[place].labels if name not in later]


def _what_is_left(region: RegionSpec, own: Sequence[str]) -> str:
    if not own:
        return "later regions paint over all of it"
    return f"without the labels of later regions it holds {' and '.join(own)}"


def decide(logits: NDArray[np.float32], configuration: Configuration) -> NDArray[np.uint8]:
    """Label indices (z, y, x) from logits (K, z, y, x).

    Labels: the largest logit wins, the first of equal ones. Regions: every voxel starts as background and takes the label
    of the last region whose logit is above 0 (probability above one half).
    """
    paints = configuration.task_values.get("paints")
    if not isinstance(paints, tuple):
        return first_largest(logits)
    label = np.zeros(logits.shape[1:], np.uint8)
    for output, painted in zip(logits, paints, strict=True):
        label[output > 0] = painted  # type: ignore[call-overload]
    return label


def probabilities_of(logits: NDArray[np.float32], configuration: Configuration) -> NDArray[np.float32]:
    """Probabilities (K, z, y, x): of the labels, background first, which add up to 1; or of each region by itself."""
    if "paints" in configuration.task_values:
        return expit(logits)
    return softmax(logits, axis=0)


def probabilities_outside(configuration: Configuration) -> NDArray[np.float32]:
    """Probabilities (K,) of a voxel outside the crop: certainly background."""
    outside = np.zeros(configuration.network.out_channels, np.float32)
    if "paints" not in configuration.task_values:
        outside[0] = 1
    return outside
