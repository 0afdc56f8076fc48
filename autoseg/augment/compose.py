"""One training sample: motion, mirroring and intensity changes of an image with its label map, from one generator."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoseg.augment.intensity import change_intensity
from autoseg.augment.spatial import Motion, centre_crop, draw_motion, move, moves_in_slices
from autoseg.core.geometry import Shape
from autoseg.core.plan import Augmentation


def augment(
        image: NDArray[np.float32], label: NDArray, augmentation: Augmentation, patch_size: Shape,
        rng: np.random.Generator, *, motion: Motion | None = None,
) -> tuple[NDArray[np.float32], NDArray]:
    """Image (C, *patch_size) float32 and label map (*patch_size) of the input's type, randomly changed.

    Args:
        image, label: (C, Z, Y, X) and (Z, Y, X) on one grid, centred on the patch. `source_patch_size` is large enough
            for every motion; what is missing is 0. The arrays are not written to.
        patch_size: model axes; a 2-D patch has size 1 along axis 0.
        motion: drawn before by `draw_motion` from the same generator, so that only `source_size` of it had to be
            read; None: drawn here.

    The result depends on the arguments only. Global random generators are borrowed and put back, so calls must not run
    in several threads of one process.
    """
    drawn = draw_motion(augmentation, patch_size, rng) if motion is None else motion
    voxels, labels = torch.from_numpy(_readable(image)), torch.from_numpy(_readable(_signed(label)))[None]
    flipped = [axis for axis in augmentation.mirror_axes if rng.random() < 0.5]
    flips = [axis + 1 for axis in flipped]
    with seeded(int(rng.integers(2**32))):
        voxels, labels = _move(voxels, labels, augmentation, patch_size, drawn)
        # copies: the transforms write in place, and a crop is a view of the caller's array
        voxels, labels = torch.flip(voxels, flips), torch.flip(labels, flips)
        if augmentation.left_right_axis in flipped:
            labels = _swap(labels, augmentation.mirror_pairs)
        planar = voxels.squeeze(1) if patch_size[0] == 1 else voxels
        changed = change_intensity(planar, augmentation).reshape(voxels.shape)
    return changed.numpy(), labels[0].numpy().astype(label.dtype, copy=False)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Global generators of torch (CPU), numpy and random start from `seed` inside and continue unchanged after."""
    before = torch.default_generator.get_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


def _move(
        image: Tensor, label: Tensor, augmentation: Augmentation, patch_size: Shape, motion: Motion,
) -> tuple[Tensor, Tensor]:
    if not moves_in_slices(augmentation, patch_size) or not motion.moves:
        return move(image, label, patch_size, motion)
    depth = patch_size[0]
    slices, labels = (centre_crop(voxels, (depth, *voxels.shape[2:])).flatten(0, 1) for voxels in (image, label))
    slices, labels = move(slices, labels, patch_size[1:], motion)
    return slices.unflatten(0, (-1, depth)), labels.unflatten(0, (-1, depth))


def _swap(labels: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """The labels with those of every pair exchanged, in place: the mirror image of a left kidney is a right one."""
    for first, second in pairs:
        was_first, was_second = labels == first, labels == second
        labels[was_first], labels[was_second] = second, first
    return labels


def _signed(label: NDArray) -> NDArray:
    """The same labels in a type that torch can compare and interpolate."""
    return label.astype(np.int32) if label.dtype.kind == "u" and label.dtype.itemsize > 1 else label


def _readable(array: NDArray) -> NDArray:
    """The array, copied where torch would warn (read-only) or refuse (negative strides)."""
    return array if array.flags.writeable and min(array.strides, default=0) >= 0 else array.copy()
