"""Pictures of a registration for the report: how well images and labels meet, how space was deformed, and where it folds."""

from __future__ import annotations

import numpy as np

from autoseg.core.image import Image
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Picture
from autoseg.io.images import accepted_of, read_image
from autoseg.ops.displacement import affine_displacement, jacobian_determinant, warp
from autoseg.planning.normalization import SCHEME_OF_NAME
from autoseg.reporting.deformation import Pair, registration_pictures
from autoseg.reporting.figures import Scene, Structure, case_pictures
from autoseg.tasks.registration.baseline import alignment_correlations, centre_shift
from autoseg.tasks.registration.output import Registration, with_warped
from autoseg.tasks.registration.score import scored_labels
from autoseg.tasks.registration.target import PairTarget


def draw_figures(prediction: Registration, target: PairTarget | None, image: Image, spec: DatasetSpec) -> tuple[Picture, ...]:
    """Checkerboard, difference before and after, deformed grid and Jacobian map; then labels where both images have some.

    None where the moving image is not at hand.
    """
    moving_paths = () if target is None or target.moving is None else target.moving.paths
    if target is None or target.moving is None or not moving_paths:
        return ()
    entry = spec.inputs[0]
    moving = read_image(moving_paths, channels=len(entry.channels), accepted=accepted_of(entry))
    shown = with_warped(prediction, image, moving, target.moving.label)
    assert shown.warped is not None
    pictures = pair_pictures(shown, image, moving, spec)
    if target.fixed.label is None or shown.warped_label is None:
        return pictures
    return (*pictures, *label_pictures(shown, target, image, spec))


def pair_pictures(shown: Registration, fixed: Image, moving: Image, spec: DatasetSpec) -> tuple[Picture, ...]:
    """The pictures that need no labels; the moving image before lies by its centre or by its position, as it fits better."""
    centres, positions = alignment_correlations(fixed, moving)
    start = affine_displacement(centre_shift(fixed.geometry, moving.geometry), fixed.geometry) if centres >= positions else None
    before = warp(moving.voxels.astype(np.float32), moving.geometry, start, fixed.geometry, interpolation="linear", outside=None)
    assert shown.warped is not None
    names = tuple(channel.name for channel in spec.inputs[0].channels)
    ct = tuple(SCHEME_OF_NAME.get(channel.name.casefold(), channel.normalization) == "ct" for channel in spec.inputs[0].channels)
    return registration_pictures(Pair(
        fixed=fixed.voxels, before=before, warped=shown.warped, displacement=shown.displacement,
        determinants=jacobian_determinant(shown.displacement, fixed.geometry), geometry=fixed.geometry, names=names, ct=ct))


def label_pictures(shown: Registration, target: PairTarget, image: Image, spec: DatasetSpec) -> tuple[Picture, ...]:
    """Contours of the warped labels (solid) and of the fixed image's own (dashed)."""
    values = scored_labels(target, spec)
    maps = []
    for label in (shown.warped_label, target.fixed.label):
        indices = np.zeros(image.geometry.shape, np.uint16)
        for index, value in enumerate(values.values(), start=1):
            indices[label == value] = index
        maps.append(indices)
    structures = tuple(Structure(name, (index,)) for index, name in enumerate(values, start=1))
    names = [channel.name for channel in spec.inputs[0].channels]
    return case_pictures(image.voxels, names, [False] * len(names), Scene(maps[0], maps[1], structures, image.geometry))
