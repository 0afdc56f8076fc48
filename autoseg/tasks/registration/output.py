"""From networks, or from a pair alone, to a displacement in millimetres and the files that say it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from autoseg.core.case import Unit
from autoseg.core.errors import DatasetError, GeometryError, UsageError
from autoseg.core.geometry import GridRecord
from autoseg.core.image import Image
from autoseg.core.plan import Configuration
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Arrays, Context, Inputs
from autoseg.io.images import split_ending, write_label_map, write_volume
from autoseg.io.transforms import read_displacement, write_displacement
from autoseg.ops.crop import corner_value
from autoseg.ops.displacement import warp, warp_labels
from autoseg.tasks.registration.frame import place_pair, world_displacement
from autoseg.tasks.registration.target import annotation_of

if TYPE_CHECKING:
    from torch import nn

# Endings under which a displacement keeps the name of its image; it is NIfTI beside all others.
OWN_ENDINGS = (".nii.gz", ".nii", ".mha")
FIXED, MOVING = "image", "image@1"


@dataclass(frozen=True)
class Registration:
    """Where each voxel of the fixed image lies in the moving image.

    Attributes:
        displacement: float32 (3, Z, Y, X) on the canonical grid of the fixed image, mm of the world (S, P, L).
        warped: (C, Z, Y, X): the moving image on that grid; None until `complete`.
        warped_label: (Z, Y, X): the moving image's labels there, with their own values; None where it has none.
    """

    displacement: NDArray[np.float32]
    warped: NDArray[np.float32] | None = None
    warped_label: NDArray | None = None


@dataclass(frozen=True)
class Pending:
    """A pair with what registers it; `restore`, which knows where the images lie, runs it."""

    networks: Sequence[nn.Module]
    fixed: NDArray[np.float32]
    moving: NDArray[np.float32]


def infer(networks: Sequence[nn.Module], inputs: Arrays, configuration: Configuration, context: Context) -> Pending:
    """The pair and the networks: placing it needs the records of both images, which `restore` gets.

    Raises:
        UsageError: there are not two images.
        DatasetError: an image has one value everywhere, or a value that is no finite number.
        GeometryError: one image is flat and the other is not.
    """
    if set(inputs) != {FIXED, MOVING}:
        raise UsageError(f"a registration needs a fixed and a moving image, {len(inputs)} given")
    fixed, moving = inputs[FIXED], inputs[MOVING]
    for what, image in (("fixed", fixed), ("moving", moving)):
        if not np.isfinite(image).all():
            raise DatasetError(f"the {what} image holds values that are no finite numbers; correct the file", code="E_NONFINITE")
        if image.min() == image.max():
            raise DatasetError(f"the {what} image has one value everywhere, so nothing in it can be recognised",
                               code="E_CONSTANT")
    flat = [image.shape[1] == 1 for image in (fixed, moving)]
    if flat[0] != flat[1]:
        names = ("a slice", "a volume") if flat[0] else ("a volume", "a slice")
        raise GeometryError(f"the fixed image is {names[0]} and the moving one {names[1]} on the model's grid; register images "
                            "of the same dimensions")
    if configuration.network.dims == 2 and not flat[0]:
        raise GeometryError(f"the plan registers slices, and these are volumes of {fixed.shape[1]} and {moving.shape[1]} slices")
    return Pending(networks, fixed, moving)


def restore(raw: Pending, record: GridRecord, configuration: Configuration, context: Context) -> Registration:
    """The displacement in mm on the fixed image's canonical grid; networks and optimisation run here.

    Args:
        record: of the fixed image, with that of the moving one as the first of `further`.
    Raises:
        GeometryError: the plan starts from positions, and the images do not overlap.
    """
    from autoseg.tasks.registration.solve import frame_steps  # torch: two seconds that planning need not wait

    placed = place_pair({FIXED: raw.fixed}, {FIXED: raw.moving}, (record, record.further[0]), configuration.patch_size,
                        str(configuration.task_values["alignment"]))
    steps = frame_steps(raw.networks, placed.fixed[FIXED], placed.moving[FIXED], configuration, context)
    return Registration(world_displacement(steps, placed, record.canonical))


def complete(prediction: Registration, unit: Unit, inputs: Inputs, spec: DatasetSpec) -> Registration:
    """The registration with the moving image, and its labels where it has some, on the grid of the fixed one."""
    label = annotation_of(unit.cases[1], spec).label if unit.cases[1].targets.get("label") else None
    return with_warped(prediction, inputs[FIXED], inputs[MOVING], label)


def with_warped(prediction: Registration, fixed: Image, moving: Image, label: NDArray | None) -> Registration:
    """The same with a moving image, and labels on its grid, warped.

    Beyond the moving image is what its corners have; no label.
    """
    warped = warp(moving.voxels.astype(np.float32), moving.geometry, prediction.displacement, fixed.geometry,
                  interpolation="linear", outside=corner_value(moving.voxels[0]))
    labels = None if label is None else warp_labels(label, moving.geometry, prediction.displacement, fixed.geometry,
                                                    interpolation="linear")
    return replace(prediction, warped=warped, warped_label=labels)


def field_path(path: Path) -> Path:
    """Where the displacement of an image that is called `path` lies."""
    stem, ending = split_ending(path)
    return path.with_name(f"{stem}{ending if ending.lower() in OWN_ENDINGS else '.nii.gz'}")


def write_registration(prediction: Registration, spec: DatasetSpec, image: Image, path: Path) -> tuple[Path, ...]:
    """Writes the displacement as vectors; of a completed registration also as an ITK transform, and what was warped.

    Args:
        image: the fixed image.
        path: with the ending of the fixed image; beside `pair.nii.gz` come `pair_transform.h5`, `pair_warped.nii.gz` and
            `pair_warped_labels.nii.gz`.
    """
    field = field_path(path)
    stem, ending = split_ending(field)
    write_displacement(field, prediction.displacement, image)
    written = [field]
    if prediction.warped is not None:
        transform, warped = (field.with_name(f"{stem}_{what}") for what in ("transform.h5", f"warped{ending}"))
        write_displacement(transform, prediction.displacement, image)
        write_volume(warped, prediction.warped, image)
        written += [transform, warped]
    if prediction.warped_label is not None:
        labels = field.with_name(f"{stem}_warped_labels{ending}")
        write_label_map(labels, prediction.warped_label, image)
        written.append(labels)
    return tuple(written)


def read_registration(path: Path, spec: DatasetSpec) -> Registration:
    """The displacement in the file that `write_registration` called after `path`."""
    return Registration(read_displacement(field_path(path))[0])
