from __future__ import annotations

import numpy as np
import pytest

from autoseg.ops.operators import Operator, apply_operator, coarse_operator, spline_operator


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize(("old", "new"), [(1, 5), (5, 1), (7, 12), (300, 90)])
def test_weights_of_every_new_voxel_sum_to_one(old, new, order):
    np.testing.assert_allclose(spline_operator(old, new, order).matrix.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(coarse_operator(old, new, order).matrix.sum(axis=1), 1, atol=1e-6)


def test_linear_weights_of_three_to_two_by_hand():
    # centres of the new voxels lie at 0.25 and 1.75 of the old
    np.testing.assert_allclose(spline_operator(3, 2, 1).matrix, [[0.75, 0.25, 0], [0, 0.25, 0.75]], atol=1e-7)


def test_nearest_neighbour_is_a_selection():
    operator = spline_operator(4, 8, 0)
    assert operator.is_selection
    assert operator.nearest.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert not spline_operator(4, 8, 1).is_selection


def test_same_size_is_the_identity():
    assert spline_operator(6, 6, 3).is_identity
    assert coarse_operator(6, 6, 0).is_identity
    assert not spline_operator(6, 7, 3).is_identity


def test_operators_are_made_once_and_cannot_be_changed():
    operator = spline_operator(6, 9, 3)
    assert spline_operator(6, 9, 3) is operator
    with pytest.raises(ValueError, match="read-only"):
        operator.matrix[0, 0] = 1


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_operator_is_applied_along_the_named_axis(axis):
    voxels = np.random.default_rng(0).normal(size=(2, 150, 4, 5)).astype(np.float32)
    operator = spline_operator(voxels.shape[axis], 70, 3)
    expected = np.moveaxis(np.tensordot(operator.matrix, voxels, (1, axis)), 0, axis)
    np.testing.assert_allclose(apply_operator(voxels, operator, axis), expected, atol=1e-5)


def test_restricted_operator_gives_the_non_zero_part():
    line = np.zeros(40, np.float32)
    line[12:15] = 1
    operator = spline_operator(40, 61, 1)
    part, rows = operator.restricted(12, 15)
    expected = operator.matrix @ line
    np.testing.assert_allclose(apply_operator(line[12:15], part, 0), expected[rows])
    assert not np.delete(expected, np.r_[rows]).any()


def test_restriction_to_voxels_that_reach_nothing_is_empty():
    part, rows = Operator(np.array([[1, 0, 0]], np.float32)).restricted(1, 2)
    assert (rows.stop - rows.start, part.rows) == (0, 0)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize(("old", "new"), [(1, 5), (5, 1), (7, 12), (300, 90), (6, 6)])
@pytest.mark.parametrize("make", [spline_operator, coarse_operator])
def test_taps_are_the_whole_of_an_operator_of_order_0_or_1(make, old, new, order):
    operator = make(old, new, order)
    matrix = np.zeros((new, old), np.float32)
    for tap in operator.taps:
        matrix[np.arange(new), tap.index] += tap.share
    np.testing.assert_array_equal(matrix, operator.matrix)


def test_taps_of_linear_weights_by_hand():
    first, last = spline_operator(3, 2, 1).taps
    assert (first.index.tolist(), last.index.tolist()) == ([0, 1], [1, 2])
    np.testing.assert_allclose([first.share, last.share], [[0.75, 0.25], [0.25, 0.75]], atol=1e-7)
    assert len(spline_operator(4, 8, 0).taps) == 1


def test_splines_that_weigh_many_voxels_have_no_taps():
    assert spline_operator(9, 14, 3).taps is None
    assert coarse_operator(9, 14, 3).taps is None
