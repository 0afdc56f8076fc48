from __future__ import annotations

import numpy as np
import pytest

from autoseg.core.errors import IncompatibleError
from autoseg.core.plan import Normalization
from autoseg.ops.normalize import measure_scaling, normalize


def image(*values: float) -> np.ndarray:
    return np.array(values, np.float32).reshape(1, 1, 1, -1)


def test_zscore_by_hand():
    # mean 4, standard deviation 2
    result = normalize(image(2, 2, 6, 6), [Normalization("zscore")])
    assert result.ravel().tolist() == [-1, -1, 1, 1]


def test_zscore_with_mask_measures_inside_and_is_zero_outside():
    mask = np.array([False, True, True, False]).reshape(1, 1, 4)
    result = normalize(image(500, 1, 3, -9), [Normalization("zscore", use_mask=True)], mask)
    assert result.ravel().tolist() == [0, -1, 1, 0]


def test_mask_is_not_used_where_the_plan_says_so():
    mask = np.array([False, True, True, False]).reshape(1, 1, 4)
    with_mask = normalize(image(2, 2, 6, 6), [Normalization("zscore")], mask)
    assert with_mask.ravel().tolist() == [-1, -1, 1, 1]


def test_empty_mask_gives_zeros():
    result = normalize(image(1, 2), [Normalization("zscore", use_mask=True)], np.zeros((1, 1, 2), bool))
    assert result.ravel().tolist() == [0, 0]


def test_ct_clips_to_the_dataset_percentiles_then_scales():
    plan = Normalization("ct", mean=50.0, std=25.0, lower=0.0, upper=100.0)
    result = normalize(image(-1000, 0, 75, 3000), [plan])
    assert result.ravel().tolist() == [-2, -2, 1, 2]


def test_rescaling_maps_the_range_to_zero_and_one():
    assert normalize(image(-2, 0, 6), [Normalization("rescale_to_0_1")]).ravel().tolist() == [0, 0.25, 1]


def test_rgb_divides_by_255():
    assert normalize(image(0, 51, 255), [Normalization("rgb_to_0_1")]).ravel().tolist() == pytest.approx([0, 0.2, 1])


def test_none_keeps_values():
    assert normalize(image(-3, 7), [Normalization("none")]).ravel().tolist() == [-3, 7]


@pytest.mark.parametrize("scheme", ["zscore", "rescale_to_0_1"])
def test_constant_image_becomes_zero(scheme):
    assert not normalize(image(1000.1, 1000.1, 1000.1), [Normalization(scheme)]).any()


def test_each_channel_follows_its_own_scheme_and_the_input_is_kept():
    voxels = np.concatenate([image(2, 2, 6, 6), image(0, 51, 102, 255)]).astype(np.int16)
    result = normalize(voxels, [Normalization("zscore"), Normalization("rgb_to_0_1")])
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[:, 0, 0], [[-1, -1, 1, 1], [0, 0.2, 0.4, 1]], rtol=1e-6)
    assert voxels[0, 0, 0].tolist() == [2, 2, 6, 6]


def test_large_offsets_do_not_spoil_the_standard_deviation():
    voxels = 30000 + np.random.default_rng(0).normal(0, 1, (1, 20, 30, 40))
    result = normalize(voxels, [Normalization("zscore")])
    assert float(result.std(dtype=np.float64)) == pytest.approx(1, abs=1e-3)


def test_other_number_of_channels_is_refused():
    with pytest.raises(IncompatibleError, match="1 channels and the plan normalises 2"):
        normalize(image(1), [Normalization("none"), Normalization("none")])


def test_ct_without_dataset_values_is_refused():
    with pytest.raises(IncompatibleError, match="needs lower, upper, mean and std"):
        normalize(image(1), [Normalization("ct", mean=1.0)])


@pytest.mark.parametrize("scheme", [Normalization("zscore"), Normalization("zscore", use_mask=True), Normalization("none"),
                                    Normalization("ct", False, 30.0, 40.0, -50.0, 90.0), Normalization("rescale_to_0_1"),
                                    Normalization("rgb_to_0_1")])
def test_parts_of_integers_are_those_of_the_whole_in_float32(scheme):
    rng = np.random.default_rng(0)
    channel, mask = rng.integers(-1000, 2000, (9, 8, 7)).astype(np.int16), rng.random((9, 8, 7)) < 0.7
    whole = normalize(channel[None].astype(np.float32), [scheme], mask)[0]
    scaling = measure_scaling(channel, scheme, mask)
    parts = [scaling.apply(channel[part], mask[part]) for part in (slice(0, 4), slice(4, 9))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert channel.dtype == np.int16
    assert whole.dtype == np.float32


@pytest.mark.parametrize("use_mask", [False, True])
def test_mean_and_deviation_taken_plane_by_plane_are_those_of_numpy(use_mask):
    rng = np.random.default_rng(0)
    channel, mask = rng.normal(1e4, 3, (9, 8, 7)).astype(np.float32), rng.random((9, 8, 7)) < 0.7
    scaling = measure_scaling(channel, Normalization("zscore", use_mask), mask)
    inside = channel[mask] if use_mask else channel
    assert scaling.subtract == pytest.approx(inside.mean(dtype=np.float64), rel=1e-14)
    assert scaling.divide == pytest.approx(inside.std(dtype=np.float64), rel=1e-12)
