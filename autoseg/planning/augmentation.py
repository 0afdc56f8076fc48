"""Which random changes a patch takes: a recipe's table, with rotation and mirroring fitted to the patch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from autoseg.core.plan import Augmentation, Reason
from autoseg.planning.laterality import Laterality
from autoseg.planning.recipes import MANY_PASSES, NNUNET, Recipe
from autoseg.planning.spacing import ANISOTROPY

# nnU-Net 2.8.1, nnUNetTrainer.py:472-513, degrees.
ANY_ANGLE = (-180.0, 180.0)
TILT_3D = (-30.0, 30.0)
TILT_2D = (-15.0, 15.0)
LONG_PATCH_2D = 1.5

# The canonical array axis that runs from right to left.
LEFT_RIGHT = 2
MIRROR_TEXTS = {
    "none": "no axis is mirrored: a mirrored patient does not occur, and learning it takes steps that a CPU does not have",
    "left_right": "left and right are mirrored with probability one half: the body is nearly symmetric that way only",
    "all": "every axis is mirrored with probability one half",
}


@dataclass(frozen=True)
class Mirroring:
    """Which model axes are mirrored, and what is swapped with the one from right to left.

    Attributes:
        left_right_axis: None where nothing is swapped.
        reason: of the choice.
    """

    axes: tuple[int, ...]
    left_right_axis: int | None
    label_pairs: tuple[tuple[int, int], ...]
    output_pairs: tuple[tuple[int, int], ...]
    reason: Reason


def plan_augmentation(recipe: Recipe, patch: Sequence[int], passes: float, mirroring: Mirroring) -> Augmentation:
    """The recipe's augmentation for a patch of two or three axes (model order).

    Args:
        passes: how often the run draws the voxels of the dataset.
    """
    is_long = recipe.long_augmentation is not None and passes >= MANY_PASSES
    chosen = recipe.long_augmentation if is_long and recipe.long_augmentation else recipe.augmentation
    return replace(chosen, dummy_2d=is_flat(patch),
                   rotation_deg=rotation_range(patch) if recipe.fits_rotation else chosen.rotation_deg,
                   mirror_axes=mirroring.axes, left_right_axis=mirroring.left_right_axis,
                   mirror_pairs=mirroring.label_pairs)


def plan_mirroring(recipe: Recipe, dims: int, transpose: Sequence[int], laterality: Laterality) -> Mirroring:
    """Which of the axes that a network of `dims` dimensions sees are mirrored, in training and prediction alike.

    The axis from right to left is mirrored with its labels swapped, or not at all where the swap is unclear; nnU-Net's
    recipe mirrors it like the others.
    """
    across = tuple(transpose).index(LEFT_RIGHT)
    seen = {"none": (), "left_right": (across,), "all": (0, 1, 2)}[recipe.mirrors]
    axes = tuple(axis for axis in seen if axis >= 3 - dims)
    inputs = f"{dims} dimensions, left-right is model axis {across}" + (
        f", labels with a side: {', '.join(laterality.names)}" if laterality.has_sides else "")
    because = MIRROR_TEXTS[recipe.mirrors]
    if across not in axes or not laterality.has_sides:
        return Mirroring(axes, None, (), (), Reason(inputs, because, recipe.source))
    if recipe is NNUNET:
        because += ". Warning: nnU-Net mirrors left and right without swapping their labels, which teaches a network to " \
                   "take one for the other; the default plan swaps them, or does not mirror that axis"
        return Mirroring(axes, None, (), (), Reason(inputs, because, recipe.source))
    if laterality.unclear:
        rest = tuple(axis for axis in axes if axis != across)
        because += f"; not left and right: {laterality.unclear}, so their labels cannot be swapped"
        return Mirroring(rest, None, (), (), Reason(inputs, because, recipe.source))
    because += "; left and right with their labels swapped, in prediction too, as a mirrored left side is a right one"
    return Mirroring(axes, across, laterality.label_pairs, laterality.output_pairs, Reason(inputs, because, recipe.source))


def is_flat(patch: Sequence[int]) -> bool:
    """True for a 3-D patch whose longest axis exceeds three times axis 0: it is rotated within its slices only."""
    return len(patch) == 3 and max(patch) / patch[0] > ANISOTROPY


def rotation_range(patch: Sequence[int]) -> tuple[float, float]:
    """nnU-Net's range of rotation in degrees: any angle within slices, less for 3-D and for long 2-D patches."""
    if len(patch) == 2:
        return TILT_2D if max(patch) / min(patch) > LONG_PATCH_2D else ANY_ANGLE
    return ANY_ANGLE if is_flat(patch) else TILT_3D
