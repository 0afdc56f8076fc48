from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from autoseg.augment.compose import augment, seeded
from autoseg.augment.spatial import draw_motion, source_patch_size, source_size
from autoseg.core.plan import Augmentation

NNUNET = Augmentation(
    rotation_probability=0.2, rotation_deg=(-30.0, 30.0), scaling_probability=0.2, scaling=(0.7, 1.4),
    noise_probability=0.1, noise_variance=(0.0, 0.1), blur_probability=0.2, blur_probability_per_channel=0.5,
    blur_sigma=(0.5, 1.0), brightness_probability=0.15, brightness=(0.75, 1.25), contrast_probability=0.15,
    contrast=(0.75, 1.25), low_resolution_probability=0.25, low_resolution_probability_per_channel=0.5,
    low_resolution_zoom=(0.5, 1.0), inverted_gamma_probability=0.1, gamma_probability=0.3, gamma=(0.7, 1.5),
    mirror_axes=(0, 1, 2))
EVERYTHING = replace(NNUNET, **{
    name: 1.0 for name in NNUNET.__dataclass_fields__ if name.endswith("probability") or name.endswith("_per_channel")})
PATCH = (8, 10, 12)


def case(shape=(20, 22, 24), seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, *shape)).astype(np.float32), rng.choice([0, 1, 5], shape).astype(np.uint8)


def off(**changes) -> Augmentation:
    return Augmentation(**changes)


@pytest.mark.parametrize("augmentation", [NNUNET, EVERYTHING, replace(EVERYTHING, dummy_2d=True)])
def test_same_generator_gives_the_same_bytes_whatever_the_global_generators_hold(augmentation):
    image, label = case()
    first = augment(image, label, augmentation, PATCH, np.random.default_rng(7))
    np.random.seed(99)
    torch.manual_seed(98)
    random.seed(97)

    second = augment(image, label, augmentation, PATCH, np.random.default_rng(7))

    assert first[0].tobytes() == second[0].tobytes() and first[1].tobytes() == second[1].tobytes()


def test_global_generators_are_untouched():
    image, label = case()
    np.random.seed(1)
    torch.manual_seed(2)
    random.seed(3)
    expected = np.random.random(), float(torch.rand(1)), random.random()
    np.random.seed(1)
    torch.manual_seed(2)
    random.seed(3)

    augment(image, label, EVERYTHING, PATCH, np.random.default_rng(0))

    assert (np.random.random(), float(torch.rand(1)), random.random()) == expected


def test_global_generators_are_put_back_after_an_error():
    np.random.seed(1)
    expected = np.random.RandomState(1).random()

    with pytest.raises(ZeroDivisionError), seeded(5):
        1 / 0  # noqa: B018

    assert np.random.random() == expected


def test_different_generators_give_different_samples():
    image, label = case()

    samples = {augment(image, label, EVERYTHING, PATCH, np.random.default_rng(seed))[0].tobytes() for seed in range(5)}

    assert len(samples) == 5


def test_switched_off_augmentation_is_the_centre_crop():
    image, label = case()

    cropped, labels = augment(image, label, off(), PATCH, np.random.default_rng(0))

    assert np.array_equal(cropped, image[:, 6:14, 6:16, 6:18]) and np.array_equal(labels, label[6:14, 6:16, 6:18])


@pytest.mark.parametrize("augmentation", [off(), EVERYTHING])
def test_input_arrays_are_not_written_to_and_may_be_read_only(augmentation):
    image, label = case(PATCH)
    before = image.copy(), label.copy()
    image.flags.writeable = label.flags.writeable = False

    result, labels = augment(image, label, augmentation, PATCH, np.random.default_rng(0))

    assert np.array_equal(image, before[0]) and np.array_equal(label, before[1])
    assert not np.shares_memory(result, image) and not np.shares_memory(labels, label)


def test_views_with_negative_strides_are_accepted():
    image, label = case(PATCH)

    cropped, labels = augment(image[:, ::-1], label[::-1], off(), PATCH, np.random.default_rng(0))

    assert np.array_equal(cropped, image[:, ::-1]) and np.array_equal(labels, label[::-1])


def test_mirroring_flips_image_and_label_together_each_axis_half_of_the_time():
    image, label = case(PATCH)
    counts = np.zeros(3)

    for seed in range(200):
        mirrored, labels = augment(image, label, off(mirror_axes=(0, 2)), PATCH, np.random.default_rng(seed))
        found = [axes for axes in ((), (0,), (2,), (0, 2)) if np.array_equal(labels, np.flip(label, axes))]
        assert len(found) == 1
        assert np.array_equal(mirrored, np.flip(image, [axis + 1 for axis in found[0]]))
        counts[list(found[0])] += 1

    assert counts[1] == 0
    assert counts[[0, 2]] / 200 == pytest.approx([0.5, 0.5], abs=0.12)


@pytest.mark.parametrize("augmentation", [EVERYTHING, replace(EVERYTHING, dummy_2d=True)])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32])
def test_labels_keep_their_type_and_values(augmentation, kind):
    image, label = case(source_patch_size(PATCH, augmentation))

    result, labels = augment(image, label.astype(kind), augmentation, PATCH, np.random.default_rng(0))

    assert labels.dtype == kind and labels.shape == PATCH and set(np.unique(labels)) <= {0, 1, 5}
    assert result.dtype == np.float32 and result.shape == (2, *PATCH) and np.isfinite(result).all()


def test_two_dimensional_patches_turn_in_the_slice():
    image, label = case((1, 40, 44))
    label[:] = 0
    label[0, 18:22, 30:40] = 1
    upright = replace(off(rotation_probability=1.0), rotation_deg=(90.0, 90.0))

    _, labels = augment(image, label, upright, (1, 40, 44), np.random.default_rng(0))

    rows, columns = np.nonzero(labels[0])
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (10, 4)


def test_dummy_2d_moves_every_slice_alike_and_none_into_another():
    label = np.zeros((6, 24, 26), np.uint8)
    label[3, 5:15, 8:16] = 1
    image = np.repeat(label[None].astype(np.float32), 2, axis=0)
    turned = off(dummy_2d=True, rotation_probability=1.0, rotation_deg=(20.0, 20.0), scaling_probability=1.0,
                 scaling=(1.2, 1.2))

    result, labels = augment(image, label, turned, (6, 24, 26), np.random.default_rng(0))

    assert [int(part.any()) for part in labels] == [0, 0, 0, 1, 0, 0]
    assert np.array_equal(labels, (result[0] > 0.5).astype(np.uint8))
    assert np.array_equal(result[0], result[1])
    assert labels.sum() == pytest.approx(80 / 1.2**2, rel=0.1)


def test_reading_only_what_the_motion_needs_gives_the_same_sample():
    size = source_patch_size(PATCH, EVERYTHING)
    image, label = case(size)

    whole = augment(image, label, EVERYTHING, PATCH, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    motion = draw_motion(EVERYTHING, PATCH, rng)
    needed = source_size(PATCH, motion)
    box = tuple(slice((a - b) // 2, (a - b) // 2 + b) for a, b in zip(size, needed, strict=True))
    part = augment(image[(slice(None), *box)], label[box], EVERYTHING, PATCH, rng, motion=motion)

    assert needed != size
    assert np.array_equal(part[0], whole[0]) and np.array_equal(part[1], whole[1])


def test_mirroring_left_and_right_keeps_labels_on_their_side_of_the_patient():
    """The right half of the patient is labelled 1 and the left half 2, whatever is mirrored."""
    image = np.broadcast_to(np.arange(12, dtype=np.float32), (1, *PATCH)).copy()
    label = np.where(image[0] < 6, 1, 2).astype(np.uint8)
    label[:2] = 5
    swapping = off(mirror_axes=(0, 1, 2), left_right_axis=2, mirror_pairs=((1, 2),))
    directions = set()

    for seed in range(30):
        mirrored, labels = augment(image, label, swapping, PATCH, np.random.default_rng(seed))
        directions.add(bool(mirrored[0, 0, 0, 0] > 0))
        body = labels != 5
        assert (labels[..., :6][body[..., :6]] == 1).all() and (labels[..., 6:][body[..., 6:]] == 2).all()
        assert np.count_nonzero(labels == 5) == np.count_nonzero(label == 5)

    assert directions == {True, False}
    assert (label[2:, :, :6] == 1).all()


def test_the_axis_of_left_and_right_is_the_models_own():
    label = np.repeat([1, 1, 1, 1, 2, 2, 2, 2], 120).reshape(PATCH).astype(np.int16)
    turned = off(mirror_axes=(0, 1, 2), left_right_axis=0, mirror_pairs=((1, 2),))
    for seed in range(12):
        _, labels = augment(np.zeros((1, *PATCH), np.float32), label, turned, PATCH, np.random.default_rng(seed))
        assert np.array_equal(labels, label)


def test_pairs_do_not_change_what_is_drawn():
    image, label = case()
    plain = augment(image, label, EVERYTHING, PATCH, np.random.default_rng(7))
    paired = augment(image, label, replace(EVERYTHING, left_right_axis=2, mirror_pairs=((7, 8),)), PATCH,
                     np.random.default_rng(7))
    assert plain[0].tobytes() == paired[0].tobytes() and plain[1].tobytes() == paired[1].tobytes()
