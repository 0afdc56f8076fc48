from __future__ import annotations

import math

import numpy as np
import pytest
from fields import image_on, naive_value, smooth_displacement, stored_grid

from autoseg.core.errors import GeometryError
from autoseg.core.geometry import Geometry
from autoseg.metrics.deformation import (
    end_point_errors_mm,
    folded_share,
    inverse_consistency_errors_mm,
    log_jacobian_deviation,
    target_registration_errors_mm,
)
from autoseg.ops.displacement import index_of, jacobian_determinant

GRID = Geometry((4, 5, 6), (3.0, 2.0, 0.5), (10.0, -20.0, 30.0))


def test_landmarks_that_a_shift_brings_within_three_and_four_millimetres_are_five_apart():
    displacement = np.zeros((3, *GRID.shape), np.float32)
    displacement[1] = 2.0
    fixed = np.array([[12.0, -18.0, 31.0], [10.0, -20.0, 30.0]])
    moving = fixed + [[3.0, 2.0, -4.0], [0.0, 2.0, 0.0]]
    np.testing.assert_allclose(target_registration_errors_mm(fixed, moving, displacement, GRID), [5.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(target_registration_errors_mm(fixed, moving, None, GRID), [math.sqrt(29), 2.0])
    with pytest.raises(GeometryError, match="2 landmarks in the fixed image and 1"):
        target_registration_errors_mm(fixed, moving[:1], displacement, GRID)


def test_landmarks_between_voxels_of_an_oblique_grid_move_as_a_loop_over_neighbours_says():
    geometry = image_on(stored_grid(angles_deg=(12, -18, 33))).geometry
    displacement = smooth_displacement(geometry, 4.0)
    index = np.random.default_rng(0).uniform(0, np.array(geometry.shape) - 1, (20, 3))
    fixed = np.array([geometry.position_mm(tuple(each)) for each in index])
    moving = fixed + 1.0
    expected = []
    for point, other in zip(fixed, moving, strict=True):
        where = index_of(point[None], geometry)[0]
        moved = point + [naive_value(component, where) for component in displacement]
        expected.append(math.dist(moved, other))
    np.testing.assert_allclose(target_registration_errors_mm(fixed, moving, displacement, geometry), expected, atol=1e-5)


def test_folds_are_voxels_that_are_not_positive_and_the_deviation_is_of_the_others():
    determinants = np.array([[[1.0, math.e, 1 / math.e, 0.0, -2.0, 1.0]]], np.float32)
    assert folded_share(determinants) == pytest.approx(2 / 6)
    assert log_jacobian_deviation(determinants) == pytest.approx(math.sqrt(2 / 4), rel=1e-6)  # logarithms 0, 1, -1, 0
    mask = determinants == 1.0
    assert folded_share(determinants, mask) == 0.0 and log_jacobian_deviation(determinants, mask) == 0.0
    nothing = np.zeros(determinants.shape, bool)
    assert math.isnan(folded_share(determinants, nothing)) and math.isnan(log_jacobian_deviation(determinants, nothing))
    assert math.isnan(log_jacobian_deviation(np.full((1, 1, 2), -1.0)))
    assert folded_share(np.array([[[math.nan, 1.0]]])) == 0.5


def test_a_mirrored_map_folds_everywhere():
    z = np.arange(4)[:, None, None] * 3.0 * np.ones(GRID.shape)
    displacement = np.zeros((3, *GRID.shape), np.float32)
    displacement[0] = -2 * z
    assert folded_share(jacobian_determinant(displacement, GRID)) == 1.0


def test_going_there_by_three_and_back_by_two_millimetres_is_one_millimetre_short():
    forward, backward = (np.zeros((3, *GRID.shape), np.float32) for _ in range(2))
    forward[0], backward[0] = 3.0, -2.0
    errors = inverse_consistency_errors_mm(forward, GRID, backward, GRID)
    np.testing.assert_allclose(errors[:3], 1.0)
    assert np.isnan(errors[3]).all()  # it leads out of the moving image


def test_inverse_consistency_on_oblique_grids_is_what_a_loop_finds():
    fixed = image_on(stored_grid(shape=(8, 7, 6), angles_deg=(12, -18, 33))).geometry
    moving = image_on(stored_grid(shape=(9, 11, 10), spacing_mm=(1.5, 1.2, 1.8), angles_deg=(-5, 3, 20))).geometry
    forward, backward = smooth_displacement(fixed, 3.0), smooth_displacement(moving, 3.0, seed=2)
    errors = inverse_consistency_errors_mm(forward, fixed, backward, moving)
    inside = 0
    for index in np.random.default_rng(0).integers(0, fixed.shape, (60, 3)):
        point = np.array(fixed.position_mm(tuple(index)))
        there = point + forward[(slice(None), *index)]
        where = index_of(there[None], moving)[0]
        if (where < -0.5).any() or (where >= np.array(moving.shape) - 0.5).any():
            assert np.isnan(errors[tuple(index)])
            continue
        inside += 1
        back = there + [naive_value(component, where) for component in backward]
        assert errors[tuple(index)] == pytest.approx(math.dist(point, back), abs=1e-4)
    assert 10 < inside < 60


def test_the_end_point_error_is_the_distance_of_two_displacements():
    known = np.zeros((3, 1, 1, 2), np.float32)
    found = known.copy()
    found[:, 0, 0, 0] = (1.0, -2.0, 2.0)
    np.testing.assert_allclose(end_point_errors_mm(found, known), [[[3.0, 0.0]]])
    with pytest.raises(GeometryError, match="both on one grid"):
        end_point_errors_mm(found, known[..., :1])
