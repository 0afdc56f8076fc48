"""Label maps as targets: read, described for the fingerprint, and brought to the model grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.core.case import Unit
from autoseg.core.errors import DatasetError
from autoseg.core.geometry import Geometry, GridRecord, canonical_orientation
from autoseg.core.plan import Configuration
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Arrays, Description, Inputs
from autoseg.io.images import read_geometry, read_label_map
from autoseg.ops.crop import crop
from autoseg.ops.resample import resample_labels, separate_axis

# nnU-Net v2.8.1 (default_preprocessor.py): at most 10,000 places per label, but at least 1 % of its voxels, drawn with
# seed 1234. They let a batch force foreground without reading whole cases.
LOCATIONS_PER_LABEL = 10_000
LOCATIONS_SHARE = 0.01
LOCATIONS_SEED = 1234


@dataclass(frozen=True)
class Segmentation:
    """A label for every voxel: indices 0 (background) to n in the order of the specification's labels.

    Attributes:
        label: uint8 (Z, Y, X), canonical orientation.
        probabilities: float32 (K, Z, Y, X), background first; None where they were not asked for.
    """

    label: NDArray[np.uint8]
    probabilities: NDArray[np.float32] | None = None


def read_target(unit: Unit, spec: DatasetSpec) -> Segmentation | None:
    """The reference label map of a unit as indices, None where the case has none.

    Raises:
        DatasetError: the file holds a value that the specification does not list.
        GeometryError: it does not lie on the grid of the unit's image.
    """
    path = unit.cases[0].targets.get("label")
    if path is None:
        return None
    image = read_label_map(path, reference=_input_grid(unit), values=[entry.value for entry in spec.labels])
    try:
        return Segmentation(values_to_indices(image.voxels[0], spec))
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}", code=error.code) from error


def _input_grid(unit: Unit) -> Geometry | None:
    """Canonical grid of the unit's first image, None where it has none (a folder of references to evaluate)."""
    paths = next(iter(unit.cases[0].inputs.values()), ())
    if not paths:
        return None
    stored = read_geometry(paths[0])
    return canonical_orientation(stored.direction).apply_to_geometry(stored)


def values_to_indices(label: NDArray, spec: DatasetSpec) -> NDArray[np.uint8]:
    """Indices 0..n of a label map with the values of the files.

    Raises:
        DatasetError: a value is not listed; the message counts its voxels.
    """
    values = np.array([0, *(entry.value for entry in spec.labels)])
    order = np.argsort(values)
    place = np.searchsorted(values[order], label).clip(0, len(values) - 1)
    unknown = values[order][place] != label
    if unknown.any():
        odd, counts = np.unique(label[unknown], return_counts=True)
        found = ", ".join(f"{v} ({c} voxels)" for v, c in list(zip(odd, counts, strict=True))[:5])
        listed = ", ".join(f"{entry.value} {entry.name}" for entry in spec.labels)
        raise DatasetError(f"label values {found} are not in the specification {spec.name!r}, which lists 0 background, "
                           f"{listed}; add them to its labels or correct the file", code="E_LABEL_VALUE")
    return order.astype(np.uint8)[place]


def indices_to_values(label: NDArray, spec: DatasetSpec) -> NDArray[np.int32]:
    """The label map with the values of the files, for indices 0..n."""
    return np.array([0, *(entry.value for entry in spec.labels)], dtype=np.int32)[label]


def describe(unit: Unit, inputs: Inputs, target: Segmentation) -> Description:
    """Foreground = any label; counted are voxels and cases per label."""
    counts = np.bincount(target.label.ravel(), minlength=1)
    properties = {f"voxels.label_{index}": int(count) for index, count in enumerate(counts)}
    properties |= {f"cases.label_{index}": 1 for index, count in enumerate(counts) if count}
    return Description(target.label > 0, properties)


def prepare_target(target: Segmentation, record: GridRecord, configuration: Configuration) -> Arrays:
    """The label map on the model grid, and voxel positions of each label to draw patches around.

    Returns:
        `label`: int8 or uint8 (Z, Y, X) in model axis order; `places_<index>`: int32 (n, 3), z, y, x on the model grid.
    """
    turned = crop(target.label, record.crop_box).transpose(record.transpose)
    rules = configuration.resampling
    apart = separate_axis(record.turned_spacing_mm, record.model_spacing_mm, rules.separate_z_ratio)
    label = resample_labels(turned, record.model_shape, order=rules.target_order, order_z=rules.target_order_z,
                            separate_axis=apart)
    rng = np.random.default_rng(LOCATIONS_SEED)
    arrays: Arrays = {"label": np.ascontiguousarray(label)}
    for index in np.unique(label[label > 0]):
        arrays[f"places_{index}"] = _draw_places(np.argwhere(label == index), rng)
    return arrays


def _draw_places(places: NDArray, rng: np.random.Generator) -> NDArray[np.int32]:
    count = min(len(places), max(LOCATIONS_PER_LABEL, int(np.ceil(len(places) * LOCATIONS_SHARE))))
    return places[np.sort(rng.permutation(len(places))[:count])].astype(np.int32)
