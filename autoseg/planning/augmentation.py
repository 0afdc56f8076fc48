"""Which random changes a patch takes: a recipe's table, with rotation and mirroring fitted to the patch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autoseg.core.plan import Augmentation
from autoseg.planning.recipes import MANY_PASSES, Recipe
from autoseg.planning.spacing import ANISOTROPY

# nnU-Net 2.8.1, nnUNetTrainer.py:472-513, degrees.
ANY_ANGLE = (-180.0, 180.0)
TILT_3D = (-30.0, 30.0)
TILT_2D = (-15.0, 15.0)
LONG_PATCH_2D = 1.5


def plan_augmentation(recipe: Recipe, patch: Sequence[int], passes: float) -> Augmentation:
    """The recipe's augmentation for a patch of two or three axes (model order).

    Args:
        passes: how often the run draws the voxels of the dataset.
    """
    is_long = recipe.long_augmentation is not None and passes >= MANY_PASSES
    chosen = recipe.long_augmentation if is_long and recipe.long_augmentation else recipe.augmentation
    return replace(chosen, dummy_2d=is_flat(patch),
                   rotation_deg=rotation_range(patch) if recipe.fits_rotation else chosen.rotation_deg,
                   mirror_axes=mirror_axes(len(patch)) if recipe.mirrors else ())


def is_flat(patch: Sequence[int]) -> bool:
    """True for a 3-D patch whose longest axis exceeds three times axis 0: it is rotated within its slices only."""
    return len(patch) == 3 and max(patch) / patch[0] > ANISOTROPY


def rotation_range(patch: Sequence[int]) -> tuple[float, float]:
    """nnU-Net's range of rotation in degrees: any angle within slices, less for 3-D and for long 2-D patches."""
    if len(patch) == 2:
        return TILT_2D if max(patch) / min(patch) > LONG_PATCH_2D else ANY_ANGLE
    return ANY_ANGLE if is_flat(patch) else TILT_3D


def mirror_axes(dims: int) -> tuple[int, ...]:
    """The model axes that a network of `dims` dimensions sees: (0, 1, 2), or (1, 2) within slices."""
    return (0, 1, 2)[-dims:]
