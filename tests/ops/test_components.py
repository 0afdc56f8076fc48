from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import label

from autoseg.ops.components import largest_component


def test_largest_of_two_groups_stays():
    mask = np.zeros((4, 6, 9), bool)
    mask[1, 1, 1:3] = True
    large = np.zeros_like(mask)
    large[2:4, 3:5, 5:8] = True
    np.testing.assert_array_equal(largest_component(mask | large), large)


def test_voxels_that_touch_by_a_corner_are_one_group():
    mask = np.zeros((3, 4, 5), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = True
    mask[0, 3, 3:5] = True
    assert np.argwhere(largest_component(mask)).tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]


def test_first_of_equal_groups_stays():
    mask = np.array([[[True, False, True]]])
    assert largest_component(mask).ravel().tolist() == [True, False, False]


def test_empty_full_and_one_voxel_masks_stay():
    one = np.zeros((2, 3, 4), bool)
    one[1, 2, 3] = True
    for mask in (np.zeros((2, 3, 4), bool), np.ones((2, 3, 4), bool), one):
        np.testing.assert_array_equal(largest_component(mask), mask)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(bool, st.tuples(*(st.integers(1, 7) for _ in range(3)))))
def test_agrees_with_labels_of_scikit_image(mask):
    labels = label(mask, connectivity=3)
    sizes = np.bincount(labels[mask]) if mask.any() else np.array([0, 0])
    np.testing.assert_array_equal(largest_component(mask), mask & (labels == sizes.argmax()))
