from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from autoseg.core.errors import GeometryError
from autoseg.ops.crop import bounding_box, content_box, content_mask, corner_value, crop, paste

MASKS = hnp.arrays(bool, st.tuples(*(st.integers(1, 7) for _ in range(3))))


def test_mask_is_the_union_of_the_channels():
    voxels = np.zeros((2, 3, 4, 5), np.float32)
    voxels[0, 0, 1, 2] = -7.0
    voxels[1, 2, 3, 4] = 0.5
    assert np.argwhere(content_mask(voxels, [0] * len(voxels))).tolist() == [[0, 1, 2], [2, 3, 4]]


@settings(max_examples=200, deadline=None)
@given(MASKS)
def test_holes_are_filled_as_scipy_fills_them(mask):
    np.testing.assert_array_equal(content_mask(mask[None].astype(np.float32), [0]), ndimage.binary_fill_holes(mask))


def test_closed_shell_is_filled_and_an_open_one_is_not():
    shell = np.ones((5, 6, 7), bool)
    shell[1:-1, 1:-1, 1:-1] = False
    pierced = shell.copy()
    pierced[0, 2, 3] = False
    assert content_mask(shell[None], [0]).all()
    np.testing.assert_array_equal(content_mask(pierced[None], [0]), pierced)


def test_mask_does_not_change_the_image():
    voxels = np.ones((1, 5, 6, 7), np.float32)
    voxels[0, 2, 3, 3] = 0
    content_mask(voxels, [0] * len(voxels))
    assert voxels[0, 2, 3, 3] == 0


@settings(max_examples=200, deadline=None)
@given(MASKS)
def test_box_holds_exactly_the_extent_of_all_true_voxels(mask):
    indices = np.argwhere(mask) if mask.any() else np.argwhere(np.ones_like(mask))
    expected = tuple(zip(indices.min(axis=0).tolist(), (indices.max(axis=0) + 1).tolist(), strict=True))
    assert bounding_box(mask) == expected


def test_box_of_an_empty_mask_is_the_whole_image():
    assert bounding_box(np.zeros((3, 4, 5), bool)) == ((0, 3), (0, 4), (0, 5))


@settings(max_examples=50, deadline=None)
@given(MASKS)
def test_paste_undoes_crop(mask):
    box = bounding_box(mask)
    np.testing.assert_array_equal(paste(crop(mask, box), box, mask.shape, fill=False), mask)


def test_paste_fills_and_keeps_leading_axes_and_dtype():
    part = np.full((2, 1, 1, 2), 3, np.int16)
    whole = paste(part, ((1, 2), (0, 1), (1, 3)), (2, 2, 4), fill=-1)
    expected = np.full((2, 2, 2, 4), -1)
    expected[:, 1, 0, 1:3] = 3
    assert whole.dtype == np.int16
    np.testing.assert_array_equal(whole, expected)


def test_crop_is_a_view_over_the_last_three_axes():
    voxels = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    part = crop(voxels, ((1, 3), (0, 2), (4, 5)))
    assert part.shape == (2, 2, 2, 1)
    assert np.shares_memory(part, voxels)
    assert part[1, 0, 1, 0] == voxels[1, 1, 1, 4]


def test_box_outside_the_image_is_refused_with_both_sizes():
    with pytest.raises(GeometryError, match=r"\(0, 6\).*\(3, 4, 5\)"):
        crop(np.zeros((3, 4, 5)), ((0, 3), (0, 4), (0, 6)))


def test_box_of_another_size_is_refused():
    with pytest.raises(GeometryError, match=r"\(1, 1, 1\).*\(1, 2, 1\)"):
        paste(np.zeros((1, 1, 1)), ((0, 1), (0, 2), (0, 1)), (3, 3, 3))


@pytest.mark.parametrize("seed", range(6))
def test_the_box_of_what_is_not_air_is_that_of_the_mask(seed):
    rng = np.random.default_rng(seed)
    channels = (rng.random((2, 9, 11, 8)) > 0.995).astype(np.int16)
    channels[1] -= 3
    assert content_box(list(channels), [0, -3]) == bounding_box(content_mask(channels, [0, -3]))
    assert content_box(list(channels), [0, 0]) == ((0, 9), (0, 11), (0, 8))


def test_the_box_of_an_empty_image_is_all_of_it():
    assert content_box([np.zeros((3, 4, 5))], [0]) == ((0, 3), (0, 4), (0, 5))


def test_air_is_what_at_least_half_of_the_corners_share():
    image = np.full((4, 5, 6), -3.6243944, np.float32)
    image[1:3, 1:4, 2:5] = 1
    assert np.float32(corner_value(image)) == image[0, 0, 0]
    image[0, :, 0] = (7, 1, 1, 1, 8)  # the head reaches into two corners ...
    image[-1, :, 0] = (9, 1, 1, 1, 10)  # ... and into two more: four of eight are left
    assert np.float32(corner_value(image)) == image[0, 0, -1]
    image[0, 0, -1] = 11
    assert corner_value(image) == 0


def test_one_slice_has_its_four_corners_twice():
    image = np.full((1, 3, 3), 255, np.uint8)
    image[0, 0, 0], image[0, 2, 2] = 1, 2
    assert corner_value(image) == 255
