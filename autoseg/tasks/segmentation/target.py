"""Label maps as targets: read, described for the fingerprint, and brought to the model grid."""

from __future__ import annotations

from collections.abc import Sequence
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
from autoseg.io.problems import unlisted_values_text
from autoseg.ops.crop import crop
from autoseg.ops.resample import resample_labels, separate_axis
from autoseg.tasks.segmentation.regions import ignore_index

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
        probabilities: float32 (K, Z, Y, X), of background and labels, or of regions; None where they were not asked for.
        ignored: the index (n + 1) of voxels that nobody annotated; None where all are annotated.
    """

    label: NDArray[np.uint8]
    probabilities: NDArray[np.float32] | None = None
    ignored: int | None = None

    @property
    def annotated(self) -> NDArray[np.bool_]:
        """Bool (Z, Y, X): where somebody annotated."""
        return np.ones(self.label.shape, bool) if self.ignored is None else self.label != self.ignored


def read_target(unit: Unit, spec: DatasetSpec) -> Segmentation | None:
    """The reference label map of a unit as indices, None where the case has none.

    Raises:
        DatasetError: the file holds a value that the specification does not list.
        GeometryError: it does not lie on the grid of the unit's image.
    """
    path = unit.cases[0].targets.get("label")
    if path is None:
        return None
    image = read_label_map(path, reference=_input_grid(unit), values=spec.listed_values)
    try:
        return Segmentation(values_to_indices(image.voxels[0], spec), ignored=ignore_index(spec))
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
    """Indices 0..n of a label map with the values of the files, n + 1 for ignored voxels.

    Raises:
        DatasetError: a value is not listed; the message counts its voxels.
    """
    values = np.array(_values(spec))
    order = np.argsort(values)
    place = np.searchsorted(values[order], label).clip(0, len(values) - 1)
    unknown = values[order][place] != label
    if unknown.any():
        raise DatasetError(unlisted_values_text(label, spec), code="E_LABEL_VALUE")
    return order.astype(np.uint8)[place]


def indices_to_values(label: NDArray, spec: DatasetSpec) -> NDArray[np.int32]:
    """The label map with the values of the files, for indices 0..n (and n + 1 for ignored voxels)."""
    return np.array(_values(spec), dtype=np.int32)[label]


def _values(spec: DatasetSpec) -> list[int]:
    """Values in the files by index."""
    return [0, *(entry.value for entry in spec.labels), *([] if spec.ignore is None else [spec.ignore])]


def describe(unit: Unit, inputs: Inputs, target: Segmentation) -> Description:
    """Foreground = any label; counted are annotated voxels and cases per label."""
    counts = np.bincount(target.label.ravel(), minlength=1)[:target.ignored]
    properties = {f"voxels.label_{index}": int(count) for index, count in enumerate(counts)}
    properties |= {f"cases.label_{index}": 1 for index, count in enumerate(counts) if count}
    return Description((target.label > 0) & target.annotated, properties)


def prepare_target(target: Segmentation, record: GridRecord, configuration: Configuration) -> Arrays:
    """The label map on the model grid, and voxel positions of each label or region to draw patches around.

    Returns:
        `label`: uint8 (Z, Y, X) in model axis order; `places_<k>`: int32 (n, 3), z, y, x on the model grid, of the k-th
        label or region (from 1 on) where the case has it; `annotated`: the same of all annotated voxels, where the
        specification has a value for others.
    """
    turned = crop(target.label, record.crop_box).transpose(record.transpose)
    rules = configuration.resampling
    apart = separate_axis(record.turned_spacing_mm, record.model_spacing_mm, rules.separate_z_ratio)
    label = resample_labels(turned, record.model_shape, order=rules.target_order, order_z=rules.target_order_z,
                            separate_axis=apart)
    rng = np.random.default_rng(LOCATIONS_SEED)
    arrays: Arrays = {"label": np.ascontiguousarray(label)}
    for place, indices in enumerate(_drawn_around(configuration), start=1):
        mask = np.isin(label, indices)
        if mask.any():
            arrays[f"places_{place}"] = _draw_places(mask, rng)
    ignored = configuration.task_values.get("ignore")
    if ignored is not None:
        arrays["annotated"] = _draw_places(label != ignored, rng)
    return arrays


def _drawn_around(configuration: Configuration) -> Sequence[Sequence[int]]:
    """The sets of label indices that patches are drawn around: the regions, or else every label."""
    regions = configuration.task_values.get("regions")
    if regions is not None:
        return regions  # type: ignore[return-value]
    return [(index,) for index in range(1, int(configuration.task_values["label_count"]) + 1)]  # type: ignore[arg-type]


def _draw_places(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int32]:
    voxels = np.flatnonzero(mask)
    count = min(len(voxels), max(LOCATIONS_PER_LABEL, int(np.ceil(len(voxels) * LOCATIONS_SHARE))))
    drawn = voxels[np.sort(rng.permutation(len(voxels))[:count])]
    return np.stack(np.unravel_index(drawn, mask.shape), axis=1).astype(np.int32)
