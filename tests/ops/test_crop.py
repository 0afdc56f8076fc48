from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from autoseg.core.errors import GeometryError
from autoseg.ops.crop import bounding_box, crop, nonzero_box, nonzero_mask, paste

MASKS = hnp.arrays(bool, st.tuples(*(st.integers(1, 7) for _ in range(3))))


def test_mask_is_the_union_of_the_channels():
    voxels = np.zeros((2, 3, 4, 5), np.float32)
    voxels[0, 0, 1, 2] = -7.0
    voxels[1, 2, 3, 4] = 0.5
    assert np.argwhere(nonzero_mask(voxels)).tolist() == [[0, 1, 2], [2, 3, 4]]


@settings(max_examples=200, deadline=None)
@given(MASKS)
def test_holes_are_filled_as_scipy_fills_them(mask):
    np.testing.assert_array_equal(nonzero_mask(mask[None].astype(np.float32)), ndimage.binary_fill_holes(mask))


def test_closed_shell_is_filled_and_an_open_one_is_not():
    shell = np.ones((5, 6, 7), bool)
    shell[1:-1, 1:-1, 1:-1] = False
    pierced = shell.copy()
    pierced[0, 2, 3] = False
    assert nonzero_mask(shell[None]).all()
    np.testing.assert_array_equal(nonzero_mask(pierced[None]), pierced)


def test_mask_does_not_change_the_image():
    voxels = np.ones((1, 5, 6, 7), np.float32)
    voxels[0, 2, 3, 3] = 0
    nonzero_mask(voxels)
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
def test_the_box_of_what_is_not_zero_is_that_of_the_mask(seed):
    rng = np.random.default_rng(seed)
    channels = (rng.random((2, 9, 11, 8)) > 0.995).astype(np.int16)
    assert nonzero_box(list(channels)) == bounding_box(nonzero_mask(channels))


def test_the_box_of_an_empty_image_is_all_of_it():
    assert nonzero_box([np.zeros((3, 4, 5))]) == ((0, 3), (0, 4), (0, 5))
