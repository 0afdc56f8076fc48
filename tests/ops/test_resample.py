from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.transform import resize

from autoseg.ops.crop import crop
from autoseg.ops.resample import resample, resample_labels, resample_parts, resampled_shape, separate_axis

SHAPES = st.tuples(*(st.integers(1, 7) for _ in range(3)))
ORDERS = st.sampled_from([0, 1, 3])
AXES = st.sampled_from([None, 0, 1, 2])


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(20.0, 70.0, shape).astype(np.float32)


def blobs(shape: tuple[int, int, int], count: int, seed: int = 2) -> np.ndarray:
    """Label map of smooth regions 0..count that touch each other."""
    rng = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(rng.normal(size=(count + 1, *shape)), (0, 1.5, 2, 2))
    return fields.argmax(axis=0).astype(np.uint8)


def naive_resample(voxels: np.ndarray, shape, order: int, order_z: int, axis: int | None) -> np.ndarray:
    """One channel as nnU-Net v2 does it: every slice by scikit-image, then map_coordinates across."""
    if axis is None:
        return resize(voxels.astype(float), shape, order, mode="edge", anti_aliasing=False)
    plane = tuple(size for a, size in enumerate(shape) if a != axis)
    slices = [resize(part.astype(float), plane, order, mode="edge", anti_aliasing=False)
              for part in np.moveaxis(voxels, axis, 0)]
    stack = np.stack(slices, axis=axis)
    scale = np.array(stack.shape) / np.array(shape)
    grid = np.stack(np.meshgrid(*(np.arange(s) for s in shape), indexing="ij")).astype(float)
    where = scale[:, None, None, None] * (grid + 0.5) - 0.5
    return ndimage.map_coordinates(stack, where, order=order_z, mode="nearest")


def naive_labels(label: np.ndarray, shape, order: int, order_z: int, axis: int | None) -> np.ndarray:
    """nnU-Net v2's label maps, every label on the whole image; ties in floating point count for the label."""
    def plane_by_plane(part: np.ndarray, size) -> np.ndarray:
        if part.shape == tuple(size):
            return part
        result = np.zeros(size, part.dtype)
        for value in np.unique(part):
            share = resize((part == value).astype(float), size, order, mode="edge", anti_aliasing=False)
            result[share >= 0.5 - 1e-6] = value
        return result

    if axis is None:
        return plane_by_plane(label, shape)
    plane = tuple(size for a, size in enumerate(shape) if a != axis)
    stack = np.stack([plane_by_plane(part, plane) for part in np.moveaxis(label, axis, 0)], axis=axis)
    if stack.shape == tuple(shape):
        return stack
    scale = np.array(stack.shape) / np.array(shape)
    grid = np.stack(np.meshgrid(*(np.arange(s) for s in shape), indexing="ij")).astype(float)
    where = scale[:, None, None, None] * (grid + 0.5) - 0.5
    if order_z == 0:
        return ndimage.map_coordinates(stack, where, order=0, mode="nearest")
    result = np.zeros(shape, label.dtype)
    for value in np.unique(stack):
        share = ndimage.map_coordinates((stack == value).astype(float), where, order=order_z, mode="nearest")
        result[share > 0.5 + 1e-6] = value
    return result


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("shape", [(31, 57, 44), (13, 36, 90), (24, 40, 36), (1, 1, 1)])
def test_numbers_are_those_of_scikit_image(shape, order):
    voxels = noise(2, 24, 40, 36)
    expected = np.stack([resize(v.astype(float), shape, order, mode="edge", anti_aliasing=False) for v in voxels])
    np.testing.assert_allclose(resample(voxels, shape, order=order), expected, atol=2e-4)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("part_bytes", [1, 2**26])
def test_axes_that_shrink_much_are_blurred_as_scikit_image_does(monkeypatch, order, part_bytes):
    """24 to 5 and 40 to 11 are more than halved, 36 to 20 is not, and 36 to 72 grows."""
    monkeypatch.setattr("autoseg.ops.resample.PART_BYTES", part_bytes)
    voxels = noise(24, 40, 36)
    for shape in ((5, 11, 20), (5, 11, 72), (24, 20, 18)):
        sigmas = [(old / new - 1) / 2 if old > 2 * new else 0 for old, new in zip(voxels.shape, shape, strict=True)]
        expected = resize(voxels.astype(float), shape, order, mode="edge", anti_aliasing=any(sigmas), anti_aliasing_sigma=sigmas)
        found = resample_parts(lambda box: crop(voxels, box).copy(), voxels.shape, shape, order=order, low_pass_from=2.0)
        np.testing.assert_allclose(found, expected, atol=3e-4)
    default = resize(voxels.astype(float), (5, 11, 12), order, mode="edge", anti_aliasing=True)
    found = resample_parts(lambda box: crop(voxels, box).copy(), voxels.shape, (5, 11, 12), order=order, low_pass_from=2.0)
    np.testing.assert_allclose(found, default, atol=3e-4)


def test_stripes_finer_than_the_new_voxels_vanish_instead_of_coming_back_as_coarse_ones():
    stripes = np.tile(np.array([0, 0, 100], np.float32), 64)[None, None]  # 192 voxels in stripes of 3
    old_shape, shape = (1, 1, 192), (1, 1, 56)  # 3.43 times as coarse
    aliased, smooth = (resample_parts(lambda box: crop(stripes, box).copy(), old_shape, shape, order=3, low_pass_from=limit)
                       for limit in (None, 2.0))
    assert aliased.std() > 25 and smooth[0, 0, 2:-2].std() < 6
    assert smooth.mean() == pytest.approx(100 / 3, abs=1)


def test_clipping_is_needed_for_the_numbers_of_scikit_image():
    steps = np.zeros((1, 1, 1, 8), np.float32)
    steps[..., 4:] = 100
    result = resample(steps, (1, 1, 19), order=3)
    assert result.min() == 0
    assert result.max() == 100


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order_z", [0, 1, 3])
def test_separate_axis_gives_the_numbers_of_nnunet(axis, order_z):
    voxels = noise(2, 11, 17, 14)
    shape = (16, 13, 23)
    expected = np.stack([naive_resample(v, shape, 3, order_z, axis) for v in voxels])
    result = resample(voxels, shape, order=3, order_z=order_z, separate_axis=axis)
    np.testing.assert_allclose(result, expected, atol=3e-4)


def test_slices_of_a_separate_axis_are_clipped_each_to_its_own_range():
    voxels = noise(1, 4, 12, 10)
    voxels[0, 0] *= 100
    result = resample(voxels, (4, 19, 23), order=3, separate_axis=0)
    for before, after in zip(voxels[0], result[0], strict=True):
        assert before.min() <= after.min() and after.max() <= before.max()


def test_long_axes_in_blocks_give_the_same_numbers():
    voxels = noise(1, 2, 150, 201)
    expected = resize(voxels[0].astype(float), (2, 333, 130), 3, mode="edge", anti_aliasing=False)
    np.testing.assert_allclose(resample(voxels, (2, 333, 130), order=3)[0], expected, atol=3e-4)


def test_halving_a_ramp_by_linear_interpolation_gives_the_means_of_pairs():
    ramp = np.arange(6, dtype=np.float32).reshape(1, 1, 1, 6)
    np.testing.assert_allclose(resample(ramp, (1, 1, 3), order=1).ravel(), [0.5, 2.5, 4.5])


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("shape", [(16, 13, 23), (11, 9, 40), (5, 30, 14), (11, 17, 14), (30, 17, 14), (1, 1, 1)])
@pytest.mark.parametrize("part_bytes", [1, 3000, 2**26])
def test_a_channel_in_parts_is_resampled_as_in_one_piece(monkeypatch, axis, order, shape, part_bytes):
    monkeypatch.setattr("autoseg.ops.resample.PART_BYTES", part_bytes)
    voxels = noise(1, 11, 17, 14)
    orders = {"order": order, "order_z": 1, "separate_axis": axis}
    result = resample_parts(lambda box: crop(voxels[0], box).copy(), (11, 17, 14), shape, **orders)
    np.testing.assert_allclose(result, resample(voxels, shape, **orders)[0], rtol=1e-6, atol=1e-4)


@settings(max_examples=80, deadline=None)
@given(SHAPES, SHAPES, ORDERS, ORDERS, AXES, st.floats(-3e4, 3e4, width=32))
def test_constant_stays_constant(old, new, order, order_z, axis, value):
    voxels = np.full((1, *old), value, np.float32)
    result = resample(voxels, new, order=order, order_z=order_z, separate_axis=axis)
    assert result.shape == (1, *new)
    np.testing.assert_allclose(result, value, rtol=2e-6, atol=1e-30)


@settings(max_examples=30, deadline=None)
@given(SHAPES, ORDERS, AXES)
def test_same_shape_returns_the_input_itself(shape, order, axis):
    voxels, label = np.zeros((2, *shape), np.float32), np.zeros(shape, np.uint8)
    assert resample(voxels, shape, order=order, separate_axis=axis) is voxels
    assert resample_labels(label, shape, order=order, separate_axis=axis) is label


def test_float64_and_strided_input_gives_float32():
    voxels = noise(1, 5, 6, 7).astype(np.float64)[:, ::-1, :, ::2]
    result = resample(voxels, (7, 5, 9), order=1)
    assert result.dtype == np.float32
    expected = resize(voxels[0], (7, 5, 9), 1, mode="edge", anti_aliasing=False)
    np.testing.assert_allclose(result[0], expected, atol=2e-4)


@settings(max_examples=50, deadline=None)
@given(st.permutations([0, 1, 2]), ORDERS)
def test_swapping_axes_before_or_after_is_the_same(axes, order):
    voxels, shape = noise(1, 5, 7, 9), (8, 6, 4)
    turned = resample(voxels.transpose(0, *(1 + a for a in axes)), tuple(shape[a] for a in axes), order=order)
    straight = resample(voxels, shape, order=order).transpose(0, *(1 + a for a in axes))
    np.testing.assert_allclose(turned, straight, atol=1e-4)


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("shape", [(15, 22, 31), (9, 33, 17), (12, 8, 60)])
def test_label_maps_are_those_of_nnunet(shape, order):
    label = blobs((12, 17, 23), 4)
    np.testing.assert_array_equal(resample_labels(label, shape, order=order),
                                  naive_labels(label, shape, order, 0, None))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order_z", [0, 1])
def test_label_maps_of_a_separate_axis_are_those_of_nnunet(axis, order_z):
    label, shape = blobs((12, 17, 23), 4), (17, 13, 31)
    np.testing.assert_array_equal(resample_labels(label, shape, order_z=order_z, separate_axis=axis),
                                  naive_labels(label, shape, 1, order_z, axis))


@settings(max_examples=80, deadline=None)
@given(hnp.arrays(np.int16, SHAPES, elements=st.sampled_from([-1, 0, 3, 200])), SHAPES, ORDERS, ORDERS, AXES)
def test_label_maps_never_invent_labels(label, shape, order, order_z, axis):
    result = resample_labels(label, shape, order=order, order_z=order_z, separate_axis=axis)
    assert result.shape == shape and result.dtype == label.dtype
    assert set(np.unique(result)) <= {0, *np.unique(label)}


@settings(max_examples=80, deadline=None)
@given(hnp.arrays(np.int16, SHAPES, elements=st.sampled_from([-1, 0, 3, 200])), SHAPES, ORDERS, AXES)
def test_boxes_around_labels_lose_nothing(label, shape, order, axis):
    np.testing.assert_array_equal(resample_labels(label, shape, order=order, separate_axis=axis),
                                  naive_labels(label, shape, order, 0, axis))


def test_larger_label_wins_a_tie_and_three_that_meet_leave_background():
    tie = np.array([[[2, 1, 1, 2]]], np.uint8)
    meeting = np.array([[[1, 2], [3, 4]]], np.uint8)
    assert resample_labels(tie, (1, 1, 2)).ravel().tolist() == [2, 2]
    assert resample_labels(meeting, (1, 1, 1)).ravel().tolist() == [0]


def test_tripled_label_map_has_tripled_blocks():
    label = np.array([[[0, 5], [7, 5]]], np.uint8)
    expected = np.kron(label, np.ones((1, 3, 3), np.uint8))
    np.testing.assert_array_equal(resample_labels(label, (1, 6, 6), order=0), expected)


def test_new_shape_is_rounded_from_the_extent_in_millimetres():
    assert resampled_shape((10, 21, 33), (3.0, 0.5, 1.0), (1.5, 1.0, 0.8)) == (20, 10, 41)  # 10.5 rounds to even
    assert resampled_shape((1, 2, 3), (1.0, 1.0, 1.0), (5.0, 1.0, 1.0)) == (1, 2, 3)


@pytest.mark.parametrize(("current", "new", "expected"), [
    ((3.0, 1.0, 1.0), (1.0, 1.0, 1.0), None),  # exactly 3 is not above 3
    ((3.1, 1.0, 1.0), (1.0, 1.0, 1.0), 0),
    ((1.0, 1.0, 3.1), (4.0, 1.0, 1.0), 2),  # the current spacing decides first
    ((1.0, 1.2, 1.1), (0.5, 4.0, 0.6), 1),
    ((4.0, 4.0, 1.0), (1.0, 1.0, 1.0), None),  # two coarse axes
    ((4.0, 4.0, 1.0), (9.0, 1.0, 1.0), None),  # also when the new spacing has one
    ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), None),
])
def test_coarse_axis_follows_the_rule_of_nnunet(current, new, expected):
    assert separate_axis(current, new) == expected


def test_ratio_of_coarse_axes_can_be_planned():
    assert separate_axis((2.5, 1.0, 1.0), (1.0, 1.0, 1.0), 2.0) == 0
