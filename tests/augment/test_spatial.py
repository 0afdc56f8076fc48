from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from autoseg.augment.spatial import (
    Motion,
    centre_crop,
    draw_motion,
    move,
    moves_in_slices,
    source_patch_size,
    source_size,
)
from autoseg.core.plan import Augmentation

QUARTER = math.pi / 2


def blob_image(shape, centre, width=2.0):
    """A smooth blob (1, *shape) about a place given as offset from the centre, and the label map of its core."""
    axes = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij")
    squared = sum((axis - place) ** 2 for axis, place in zip(axes, centre, strict=True))
    image = np.exp(-squared / (2 * width**2)).astype(np.float32)
    return torch.from_numpy(image)[None], torch.from_numpy((squared < (2 * width) ** 2).astype(np.uint8))[None]


def centre_of_mass(weights: torch.Tensor) -> list[float]:
    weights = weights.double()
    grids = torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in weights.shape), indexing="ij")
    return [float((grid * weights).sum() / weights.sum()) for grid in grids]


def full(**changes) -> Augmentation:
    return Augmentation(**{"rotation_probability": 1.0, "rotation_deg": (-30.0, 30.0), "scaling_probability": 1.0,
                           "scaling": (0.7, 1.4), **changes})


@pytest.mark.parametrize(("axis", "expected"), [(0, (3, -7, 5)), (1, (-7, 5, 3)), (2, (5, 3, -7))])
def test_quarter_turn_about_each_axis_carries_the_blob_where_the_inverse_rotation_says(axis, expected):
    # the grid turns by +90 degrees: output offset o shows source offset R o, so content moves by the inverse of R
    place = (3, 5, 7)
    angles = tuple(QUARTER if index == axis else 0.0 for index in range(3))
    rotations = [np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]), np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]]),
                 np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])]
    by_matrix = rotations[axis].T @ np.array(place)

    image, label = move(*blob_image((31, 33, 35), place), (31, 33, 35), Motion(angles, 1.0))

    assert centre_of_mass(image[0]) == pytest.approx(by_matrix.tolist(), abs=0.05)
    assert centre_of_mass(label[0]) == pytest.approx(centre_of_mass(image[0]), abs=0.15)
    assert sorted(map(abs, by_matrix.tolist())) == sorted(map(abs, expected))


@pytest.mark.parametrize("angles", [(0.3, 0.0, 0.0), (0.0, -0.4, 0.0), (0.2, 0.3, -0.5)])
def test_image_and_label_turn_together(angles):
    image, label = move(*blob_image((31, 33, 35), (6, -4, 5)), (31, 33, 35), Motion(angles, 1.2))

    assert centre_of_mass(label[0]) == pytest.approx(centre_of_mass(image[0]), abs=0.15)
    assert math.hypot(*centre_of_mass(image[0])) == pytest.approx(math.hypot(6, -4, 5) / 1.2, abs=0.1)


def test_in_plane_turn_moves_along_the_slice_only():
    image, label = move(*blob_image((33, 35), (8, 2)), (33, 35), Motion((QUARTER,), 1.0))

    assert centre_of_mass(image[0]) == pytest.approx([2, -8], abs=0.05)
    assert centre_of_mass(label[0]) == pytest.approx([2, -8], abs=0.1)


@pytest.mark.parametrize("scale", [0.7, 1.4])
def test_factor_above_one_shows_more_of_the_surroundings_so_that_objects_shrink(scale):
    shape = (40, 44, 48)
    image, label = blob_image(shape, (0, 0, 0), width=5.0)

    _, scaled = move(image, label, shape, Motion((0.0, 0.0, 0.0), scale))

    assert float(scaled.sum()) == pytest.approx(float(label.sum()) / scale**3, rel=0.06)


def test_labels_come_only_from_the_input_and_zero():
    label = torch.from_numpy(np.random.default_rng(0).choice([3, 7, 40], (1, 12, 14, 16)).astype(np.uint8))

    _, moved = move(label.float(), label, (12, 14, 16), Motion((0.3, -0.2, 0.1), 1.3))

    assert set(moved.unique().tolist()) == {0, 3, 7, 40}
    assert moved.dtype == torch.uint8


def test_labels_equal_the_librarys_own_label_sampling():
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    label = torch.zeros(1, 24, 28, 32, dtype=torch.int16)
    label[0, 4:15, 6:20, 5:17], label[0, 10:20, 15:25, 12:26], label[0, 0:6, 0:9, 20:32] = 1, 5, 9
    motion = Motion((0.31, -0.22, 0.13), 1.17)
    library = SpatialTransform(
        (24, 28, 32), 0, False, p_rotation=1, rotation=lambda image, dim: motion.angles_rad[dim], p_scaling=1,
        scaling=motion.scale, p_synchronize_scaling_across_axes=1)

    image, moved = move(label.float(), label, (24, 28, 32), motion)
    expected = library(image=label.float(), segmentation=label)

    assert float((moved != expected["segmentation"]).float().mean()) < 1e-3
    torch.testing.assert_close(image, expected["image"], atol=1e-4, rtol=1e-4)


def test_many_labels_are_sampled_in_groups_without_losing_any():
    label = torch.arange(1, 21, dtype=torch.uint8).repeat_interleave(6)[None, :, None].repeat(1, 1, 12).contiguous()

    _, moved = move(label.float(), label, (120, 12), Motion((0.0,), 1.001))

    assert float((moved == label).float().mean()) > 0.95
    assert set(moved.unique().tolist()) >= set(range(1, 21))


def test_without_motion_the_result_is_the_centre_crop_to_the_bit():
    image = torch.randn(2, 13, 10, 9)
    label = torch.randint(0, 4, (1, 13, 10, 9), dtype=torch.uint8)

    cropped, labels = move(image, label, (5, 10, 11), Motion((0.0, 0.0, 0.0), 1.0))

    assert torch.equal(cropped, torch.nn.functional.pad(image[:, 4:9], (1, 1)))
    assert torch.equal(labels, torch.nn.functional.pad(label[:, 4:9], (1, 1)))


@pytest.mark.parametrize("source", [(11, 16, 17), (5, 10, 11), (3, 14, 9)])
def test_interpolation_without_motion_would_equal_the_crop(source):
    image = torch.randn(1, *source)
    label = torch.randint(0, 3, (1, *source), dtype=torch.uint8)

    moved, labels = move(image, label, (5, 10, 11), Motion((1e-9, 0.0, 0.0), 1.0))

    torch.testing.assert_close(moved, centre_crop(image, (5, 10, 11)), atol=1e-4, rtol=1e-4)
    assert torch.equal(labels, centre_crop(label, (5, 10, 11)))


@pytest.mark.parametrize("augmentation", [
    full(), full(rotation_deg=(-180.0, 180.0)), full(scaling_probability=0.0), full(rotation_deg=(10.0, 25.0)),
    full(dummy_2d=True, rotation_deg=(-180.0, 180.0))])
def test_no_motion_reads_outside_the_source_patch(augmentation):
    patch = (12, 20, 31)
    size = source_patch_size(patch, augmentation)
    rng = np.random.default_rng(0)
    inside = torch.ones(1, *size)

    for _ in range(60):
        motion = draw_motion(augmentation, patch, rng)
        own = source_size(patch, motion)
        assert all(a <= b for a, b in zip(own, size, strict=True)), (own, size)
        sampled = sample(inside[:, :own[0], :own[1], :own[2]], patch, motion, augmentation)
        assert float(sampled.min()) > 1 - 1e-4


def sample(ones: torch.Tensor, patch, motion, augmentation) -> torch.Tensor:
    if moves_in_slices(augmentation, patch):
        return move(ones[0], ones[0].byte(), patch[1:], motion)[0]
    return move(ones, ones.byte(), patch, motion)[0]


def test_source_patch_is_not_larger_than_the_farthest_corner_needs():
    patch = (12, 20, 31)
    diagonal = math.dist((0, 0, 0), (11, 19, 30)) * 1.4

    assert all(size <= diagonal + 5 for size in source_patch_size(patch, full()))
    assert source_patch_size(patch, Augmentation()) == patch
    assert source_patch_size(patch, full(rotation_probability=0.0)) == (18, 28, 43)  # 1.4 * (n - 1) + 1, parity kept
    assert source_patch_size((1, 20, 31), full())[0] == 1


def test_source_of_a_patch_that_does_not_move_is_the_patch():
    assert source_size((12, 20, 31), Motion((0.0, 0.0, 0.0), 1.0)) == (12, 20, 31)
    assert source_size((12, 20, 31), Motion((0.0, 0.0, 0.0), 0.7)) == (12, 20, 31)


def test_drawn_motions_have_the_planned_ranges_and_probabilities():
    rng = np.random.default_rng(0)
    drawn = [draw_motion(full(rotation_probability=0.2, scaling_probability=0.3), (8, 9, 10), rng) for _ in range(4000)]

    rotated = np.array([m.angles_rad for m in drawn if any(m.angles_rad)])
    scales = np.array([m.scale for m in drawn if m.scale != 1])
    assert len(rotated) / 4000 == pytest.approx(0.2, abs=0.03)
    assert len(scales) / 4000 == pytest.approx(0.3, abs=0.03)
    assert np.degrees([rotated.min(), rotated.max()]) == pytest.approx([-30, 30], abs=1)
    assert abs(np.corrcoef(rotated.T)[0, 1]) < 0.1
    assert scales.min() == pytest.approx(0.7, abs=0.01) and scales.max() == pytest.approx(1.4, abs=0.01)


@pytest.mark.parametrize("shift", [(2.0, 0.0, 0.0), (0.0, -3.0, 0.0), (0.0, 0.0, 1.5)])
def test_an_even_displacement_shifts_image_and_label_by_its_voxels_along_its_axis(shift):
    image, label = blob_image((31, 35, 39), (1.0, 2.0, -3.0))
    displacement = np.broadcast_to(np.array(shift, np.float32)[:, None, None, None], (3, 4, 5, 6)).copy()
    moved, moved_label = move(image, label, (21, 25, 29), Motion((0.0, 0.0, 0.0), 1.0, displacement))
    expected = [place - step for place, step in zip((1.0, 2.0, -3.0), shift, strict=True)]
    assert centre_of_mass(moved[0]) == pytest.approx(expected, abs=0.05)
    assert centre_of_mass(moved_label[0]) == pytest.approx(expected, abs=0.15)


def test_displacements_have_the_planned_deviation_and_enlarge_what_is_read():
    augmentation = Augmentation(elastic_probability=1.0, elastic_deviation_voxels=(1.5, 1.5))
    rng = np.random.default_rng(0)
    motions = [draw_motion(augmentation, (40, 56, 40), rng) for _ in range(50)]
    values = np.concatenate([motion.displacement_voxels.ravel() for motion in motions])
    assert motions[0].displacement_voxels.shape == (3, 6, 8, 6)
    assert values.std() == pytest.approx(1.5, rel=0.03) and abs(values.mean()) < 0.05
    for motion in motions:
        largest = np.abs(motion.displacement_voxels).max()
        assert all(0 <= (read - patch) / 2 - 1 <= largest for read, patch in zip(source_size((40, 56, 40), motion), (40, 56, 40),
                                                                              strict=True))


def test_planar_patches_are_deformed_within_their_plane():
    augmentation = Augmentation(elastic_probability=1.0, elastic_deviation_voxels=(1.0, 1.0))
    motion = draw_motion(augmentation, (1, 30, 20), np.random.default_rng(0))
    assert motion.displacement_voxels.shape == (2, 5, 4)
    assert source_size((1, 30, 20), motion)[0] == 1
