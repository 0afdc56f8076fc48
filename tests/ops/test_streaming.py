from __future__ import annotations

import numpy as np
import pytest
from naive import margin
from scipy import ndimage

from autoseg.ops.largest import first_largest
from autoseg.ops.operators import Operator
from autoseg.ops.resample import axis_operators, resample
from autoseg.ops.slabs import LogitSlabs
from autoseg.ops.streaming import can_stream, stream_labels, stream_logits

SHAPE = (11, 17, 14)
# Up, down, both, one axis only, none; to one voxel and from one voxel.
GRIDS = [(SHAPE, (19, 31, 22)), (SHAPE, (6, 9, 8)), (SHAPE, (23, 8, 14)), (SHAPE, (11, 30, 14)), (SHAPE, (20, 17, 14)),
         (SHAPE, SHAPE), (SHAPE, (1, 1, 1)), ((1, 1, 1), (4, 5, 6))]
# Splines of another order along the coarse axis; None: all axes alike.
APART = [(1, 0, None), (0, 0, None), (1, 0, 0), (1, 1, 0), (1, 0, 1), (1, 0, 2), (0, 1, 2)]


def smooth(classes: int, shape, seed: int = 3) -> np.ndarray:
    """Logits of smooth regions."""
    fields = np.random.default_rng(seed).normal(size=(classes, *shape))
    return (10 * ndimage.gaussian_filter(fields, (0, 1.5, 2, 2))).astype(np.float32)


def in_slabs(logits: np.ndarray, *cuts: int) -> LogitSlabs:
    return LogitSlabs(logits.shape, iter(np.split(logits, list(cuts), axis=1)))


def last_positive(logits: np.ndarray) -> np.ndarray:
    """Regions that are painted one over the other."""
    label = np.zeros(logits.shape[1:], np.uint8)
    for index, values in enumerate(logits):
        label[values > 0] = index + 1
    return label


def first_and_third_alike(logits: np.ndarray) -> np.ndarray:
    """Three regions of which two paint the same label."""
    return np.array([0, 1, 2, 1], np.uint8)[last_positive(logits)]


@pytest.mark.parametrize(("order", "order_z", "apart"), APART)
@pytest.mark.parametrize(("shape", "new_shape"), GRIDS)
def test_labels_are_those_of_logits_that_are_resampled_whole(shape, new_shape, order, order_z, apart):
    logits = smooth(5, shape)
    operators = axis_operators(shape, new_shape, order=order, order_z=order_z, separate_axis=apart)
    label = np.stack(list(stream_labels(in_slabs(logits, 2, 3, 8), operators, first_largest)))
    whole = resample(logits, new_shape, order=order, order_z=order_z, separate_axis=apart)
    np.testing.assert_array_equal(label, whole.argmax(axis=0))
    assert label.dtype == np.uint8


@pytest.mark.parametrize("decide", [last_positive, first_and_third_alike])
@pytest.mark.parametrize(("shape", "new_shape"), GRIDS)
def test_regions_that_are_painted_over_each_other_are_those_of_whole_logits(shape, new_shape, decide):
    logits = smooth(3, shape)
    operators = axis_operators(shape, new_shape, order=1)
    planes = stream_labels(in_slabs(logits, 4), operators, decide, convex=decide is last_positive)
    np.testing.assert_array_equal(np.stack(list(planes)), decide(resample(logits, new_shape, order=1)))


def test_without_convexity_the_shortcut_would_be_wrong():
    logits = np.array([[-1, -1, 1, 1], [-1, 3, 1, -1], [-1, -1, 1, -1.5]], np.float32)  # labels 0 2 3 1, painted 0 2 1 1
    logits[1, 2] = 3
    logits = logits[:, None, None, :]
    operators = axis_operators((1, 1, 4), (1, 1, 12), order=1)
    expected = first_and_third_alike(resample(logits, (1, 1, 12), order=1))
    exact, = stream_labels(in_slabs(logits), operators, first_and_third_alike, convex=False)
    short, = stream_labels(in_slabs(logits), operators, first_and_third_alike, convex=True)
    np.testing.assert_array_equal(exact, expected[0])
    assert (short != expected[0]).any()


def test_noise_differs_only_where_two_logits_are_equal_to_rounding():
    logits = np.random.default_rng(0).normal(size=(20, 24, 40, 40)).astype(np.float32)
    new_shape = (37, 71, 53)
    label = np.stack(list(stream_labels(in_slabs(logits, 5, 11), axis_operators((24, 40, 40), new_shape, order=1),
                                        first_largest)))
    whole = resample(logits, new_shape, order=1)
    differs = label != whole.argmax(axis=0)
    assert differs.mean() < 1e-4
    assert margin(whole)[differs].max(initial=0) < 1e-6


@pytest.mark.parametrize(("shape", "new_shape"), GRIDS)
def test_streamed_logits_are_those_that_are_resampled_whole(shape, new_shape):
    logits = smooth(3, shape)
    planes = list(stream_logits(in_slabs(logits, 1, 6), axis_operators(shape, new_shape, order=1)))
    np.testing.assert_allclose(np.stack(planes, axis=1), resample(logits, new_shape, order=1), atol=1e-5)


def test_exact_ties_go_to_the_first_class_on_every_grid():
    logits = np.broadcast_to(smooth(1, SHAPE), (4, *SHAPE)).copy()
    logits[0] -= 1
    planes = list(stream_labels(in_slabs(logits, 3), axis_operators(SHAPE, (20, 30, 25), order=1), first_largest))
    assert (np.stack(planes) == 1).all()


def test_only_voxels_where_labels_meet_are_decided_again():
    logits = np.zeros((2, 4, 4, 8), np.float32)
    logits[1, ..., 4:] = 1
    logits[0, ..., :4] = 1
    asked = []

    def decide(part: np.ndarray) -> np.ndarray:
        asked.append(part[0].size)
        return first_largest(part)

    list(stream_labels(in_slabs(logits), axis_operators((4, 4, 8), (4, 4, 16), order=1), decide))
    assert asked == [4 * 4 * 8] + [2 * 4] * 4  # the two columns between the halves


def test_a_stream_that_ends_early_is_an_error():
    stream = LogitSlabs((2, 6, 4, 4), iter([np.zeros((2, 3, 4, 4), np.float32)]))
    with pytest.raises(ValueError, match="3 of 6 planes"):
        list(stream_labels(stream, axis_operators((6, 4, 4), (9, 4, 4), order=1), first_largest))


def test_planes_that_no_new_plane_takes_a_share_of_are_drawn_too():
    operators = (Operator(np.array([[1, 0, 0, 0]], np.float32)), *axis_operators((4, 5, 5), (4, 7, 5), order=1)[1:])
    drawn = []

    def parts():
        for place in range(4):
            drawn.append(place)
            yield np.zeros((2, 1, 5, 5), np.float32)

    assert len(list(stream_labels(LogitSlabs((2, 4, 5, 5), parts()), operators, first_largest))) == 1
    assert drawn == [0, 1, 2, 3]


def test_splines_above_order_1_cannot_be_streamed():
    operators = axis_operators((6, 6, 6), (9, 9, 9), order=3)
    assert not can_stream(operators)
    with pytest.raises(ValueError, match="order 0 and 1 only"):
        list(stream_labels(in_slabs(smooth(2, (6, 6, 6))), operators, first_largest))
