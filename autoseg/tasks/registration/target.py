"""What a registration is scored against: label maps and landmarks of both images; labels also take part in training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.core.case import Case, Unit
from autoseg.core.errors import DatasetError
from autoseg.core.geometry import Geometry, GridRecord
from autoseg.core.image import Image
from autoseg.core.plan import Configuration
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Arrays, Description, Inputs
from autoseg.io.images import read_image, read_label_map
from autoseg.io.landmarks import Landmarks, paired, read_landmarks
from autoseg.io.problems import unlisted_values_text
from autoseg.ops.crop import content_mask, corner_value, crop
from autoseg.ops.resample import resample_labels, separate_axis

LABEL, LANDMARKS = "label", "landmarks"


@dataclass(frozen=True)
class Annotation:
    """What is known of one image.

    Attributes:
        paths: of the image, to look at; empty where only references are at hand.
        geometry: the image's canonical grid.
        label: (Z, Y, X) with the values of the file; None where there is no label map.
        landmarks: None where there are none.
    """

    geometry: Geometry
    label: NDArray | None = None
    landmarks: Landmarks | None = None
    paths: tuple[Path, ...] = ()


@dataclass(frozen=True)
class PairTarget:
    """What is known of the images of a pair; `moving` is None for an image that stands alone.

    Attributes:
        points_mm: landmarks (n, 3) of the fixed and of the moving image in one order; None where there are none.
    """

    fixed: Annotation
    moving: Annotation | None = None
    points_mm: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None


def read_target(unit: Unit, spec: DatasetSpec) -> PairTarget | None:
    """Labels and landmarks of a pair, as far as there are any; of a single case None where it has none.

    Raises:
        DatasetError: the fixed image has labels that the moving one lacks, or one of them landmarks that the other one lacks;
            landmarks differ, or a label map holds a value that is not listed. Labels of the moving image alone are warped.
        GeometryError: a label map does not lie on the grid of its image.
    """
    if len(unit.cases) == 1 and not unit.cases[0].targets:
        return None
    annotations = [annotation_of(case, spec) for case in unit.cases]
    if len(annotations) == 1:
        return PairTarget(annotations[0])
    require_both(unit, annotations)
    points = None
    if annotations[0].landmarks is not None and annotations[1].landmarks is not None:
        points = paired(annotations[0].landmarks, annotations[1].landmarks, f"pair {unit.id}")[1:]
    return PairTarget(annotations[0], annotations[1], points)


def annotation_of(case: Case, spec: DatasetSpec) -> Annotation:
    """What is known of a case; without an image, as of a folder of references, the grid is that of its label map."""
    paths = next(iter(case.inputs.values()), ())
    label_path, landmark_path = case.targets.get(LABEL), case.targets.get(LANDMARKS)
    image = read_image(paths[:1]) if landmark_path is not None and paths else None
    geometry = None if image is None else image.geometry
    if geometry is None and paths:
        geometry = canonical_grid(paths[0])
    label = None
    if label_path is not None:
        found = read_label_map(label_path, reference=geometry, values=spec.listed_values or None)
        label, geometry = found.voxels[0], geometry or found.geometry
        require_listed(label, spec, label_path)
    if geometry is None:
        raise DatasetError(f"case {case.id} has neither image nor label map, so there is no grid to score on")
    landmarks = None if landmark_path is None or image is None else read_landmarks(landmark_path, image)
    return Annotation(geometry, label, landmarks, tuple(paths))


def canonical_grid(path: Path) -> Geometry:
    """The canonical grid of an image file, from its header."""
    from autoseg.core.geometry import canonical_orientation
    from autoseg.io.images import read_geometry

    stored = read_geometry(path)
    return canonical_orientation(stored.direction).apply_to_geometry(stored)


def require_listed(label: NDArray, spec: DatasetSpec, path: Path) -> None:
    """Raises a DatasetError where a label map holds a value that the specification lists neither as label nor as ignored.

    A specification without labels takes every value for a label.
    """
    if spec.labels and not np.isin(label, (0, *spec.listed_values)).all():
        raise DatasetError(f"{path}: {unlisted_values_text(label, spec)}", code="E_LABEL_VALUE")


def require_both(unit: Unit, annotations: list[Annotation]) -> None:
    """Raises a DatasetError where one image of a pair is annotated and the other is not."""
    fixed, moving = annotations
    if fixed.label is None and fixed.landmarks is None and unit.cases[1].targets.keys() <= {LABEL}:
        return  # labels to be warped onto an image that has none, which is what an atlas is for
    for what, have in (("a label map", [fixed.label is not None, moving.label is not None]),
                       ("landmarks", [fixed.landmarks is not None, moving.landmarks is not None])):
        if have[0] != have[1]:
            with_it, without = unit.cases[0 if have[0] else 1], unit.cases[1 if have[0] else 0]
            raise DatasetError(f"pair {unit.id}: {with_it.id} has {what} and {without.id} has none, so nothing can be compared; "
                               f"add {what} of {without.id}, or take the other away", code="E_ONE_SIDED")


def describe(unit: Unit, inputs: Inputs, target: PairTarget | None) -> Description:
    """Foreground: what is not air, by the corners of the first channel. Counted: cases with labels and landmarks."""
    image: Image = next(iter(inputs.values()))
    channel = image.voxels[0]
    foreground = content_mask([channel], [corner_value(channel)])
    properties = {"cases": 1}
    if target is not None and target.fixed.label is not None:
        properties["cases.label"] = 1
    if target is not None and target.fixed.landmarks is not None:
        properties["cases.landmarks"] = 1
    return Description(foreground, properties)


def label_values(spec: DatasetSpec) -> tuple[int, ...]:
    """Values of the labels that are trained on and scored, in the order of the specification."""
    return tuple(label.value for label in spec.labels)


def prepare_target(target: PairTarget | None, record: GridRecord, configuration: Configuration) -> Arrays:
    """The label map of a case on its model grid, as indices: 0, and from 1 on the planned labels; nothing where it has none.

    Returns:
        `label`: uint8 or uint16 (Z, Y, X), model axis order.
    """
    values = configuration.task_values.get("label_values")
    if target is None or target.fixed.label is None or not isinstance(values, tuple):
        return {}
    indices = np.zeros(target.fixed.label.shape, np.uint8 if len(values) < 256 else np.uint16)
    for index, value in enumerate(values, start=1):
        indices[target.fixed.label == value] = index
    turned = crop(indices, record.crop_box).transpose(record.transpose)
    rules = configuration.resampling
    apart = separate_axis(record.turned_spacing_mm, record.model_spacing_mm, rules.separate_z_ratio)
    label = resample_labels(turned, record.model_shape, order=rules.target_order, order_z=rules.target_order_z,
                            separate_axis=apart)
    return {LABEL: np.ascontiguousarray(label)}
