"""The channel and the window of a picture."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.reporting import contrast

SHAPE = (6, 8, 10)
WHOLE = tuple((0, size) for size in SHAPE)


def labels() -> np.ndarray:
    found = np.zeros(SHAPE, dtype=np.uint8)
    found[2:4, 2:5, 3:7] = 1
    return found


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 1.0, SHAPE).astype(np.float32)


def choose(voxels, names=("a", "b"), ct=(False, False)):
    return contrast.choose_backdrop(voxels, names, ct, labels(), [(1,)], WHOLE)


def test_the_channel_in_which_the_structure_stands_out_is_shown_and_named():
    voxels = np.stack([noise(0) + 0.2 * labels(), noise(1) - 3.0 * labels()])
    backdrop = choose(voxels, ("T1", "FLAIR"))
    np.testing.assert_array_equal(backdrop.channels, voxels[1:])
    assert backdrop.note.startswith("FLAIR, grey from ")


def test_contrast_is_the_difference_of_means_in_standard_deviations():
    channel = np.zeros(SHAPE, dtype=np.float32)
    channel[labels() == 1] = 5.0
    channel[:, :, ::2] += 2.0  # every second column: a standard deviation of 1 inside and outside
    assert contrast.contrast(channel, labels(), [(1,)]) == pytest.approx(5.0, rel=0.01)
    assert contrast.contrast(channel, labels(), [(2,)]) == 0.0


@pytest.mark.parametrize(("hu", "name", "window"), [
    (30.0, "brain", (0.0, 80.0)), (120.0, "soft-tissue", (-150.0, 250.0)), (-700.0, "lung", (-1350.0, 150.0)),
    (900.0, "bone", (-500.0, 1300.0)),
])
def test_ct_is_shown_in_the_narrowest_window_that_shows_the_labelled_voxels(hu, name, window):
    voxels = np.full((1, *SHAPE), -1000.0, dtype=np.float32)
    voxels[0, labels() == 1] = hu
    backdrop = choose(voxels, ("CT",), (True,))
    assert backdrop.window == window
    assert backdrop.note == f"CT, {name} window {window[0]:.0f} to {window[1]:.0f} HU"


def test_ct_without_labels_is_shown_in_soft_tissue_and_beyond_all_windows_in_its_range():
    assert contrast.ct_window(np.zeros(0), np.zeros(3))[0] == (-150.0, 250.0)
    window, note = contrast.ct_window(np.full(9, 3000.0), np.linspace(0.0, 4000.0, 1001))
    assert window == pytest.approx((20.0, 3980.0)) and note == "CT, grey from 20 to 3980 HU"


def test_three_channels_of_one_slice_are_a_colour_image_and_shown_as_they_are():
    voxels = np.random.default_rng(0).integers(0, 256, (3, 1, 5, 7)).astype(np.uint8)
    backdrop = contrast.choose_backdrop(voxels, ("r", "g", "b"), (False,) * 3, np.zeros((1, 5, 7), np.uint8), [(1,)],
                                        ((0, 1), (0, 5), (0, 7)))
    np.testing.assert_array_equal(backdrop.slice(0, 0), voxels[:, 0].transpose(1, 2, 0))
    assert backdrop.note == "in colour"


@pytest.mark.parametrize("voxels", [
    np.full((3, 2, 5, 7), 100.0), np.full((2, 1, 5, 7), 100.0), np.full((3, 1, 5, 7), 300.0), np.full((3, 1, 5, 7), -1.0),
    np.full((3, 1, 5, 7), 0.5),
])
def test_volumes_two_channels_and_other_values_are_no_colours(voxels):
    assert not contrast.is_colour(voxels)


def test_window_leaves_out_the_extreme_values_and_the_filled_border():
    channel = np.zeros((1, 10, 1001), dtype=np.float32)
    channel[0, 0] = np.linspace(1.0, 1001.0, 1001)
    channel[0, 0, -1] = 1.7e6
    low, high = contrast.percentiles(contrast.sampled(channel))
    assert (low, high) == pytest.approx((6.0, 996.0))


def test_grey_goes_from_black_to_white_and_a_constant_image_is_black():
    np.testing.assert_array_equal(contrast.grey(np.array([[-5.0, 0.0, 60.0, 100.0, 900.0]]), (0.0, 100.0)),
                                  [[0, 0, 153, 255, 255]])
    constant = np.full(SHAPE, 7.0)
    assert not contrast.grey(constant[0], contrast.percentiles(contrast.sampled(constant))).any()


def test_one_bright_voxel_is_shown():
    lone = np.zeros((10, 10, 10))
    lone[3, 4, 5] = 2.0
    assert contrast.grey(lone[3], contrast.percentiles(lone.ravel()))[4, 5] == 255
