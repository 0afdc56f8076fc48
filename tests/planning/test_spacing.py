from __future__ import annotations

import pytest

from autoseg.core.errors import DatasetError
from autoseg.core.fingerprint import Fingerprint
from autoseg.planning.spacing import median_shape, model_axes, plan_grid, target_spacing


def fingerprint(shapes, spacings):
    count = len(shapes)
    return Fingerprint(tuple(shapes), tuple(spacings), (1.0,) * count, ((),) * count, (), {})


def test_target_spacing_is_the_median_of_every_axis():
    spacings = ((1.0, 0.5, 0.9), (2.0, 0.6, 0.8), (1.5, 0.9, 0.7))
    assert target_spacing(spacings, ((30, 40, 50),) * 3) == (1.5, 0.6, 0.8)


def test_a_coarse_axis_takes_the_tenth_percentile_of_its_spacing():
    spacings = tuple((z, 1.0, 1.2) for z in (4.0, 5.0, 6.0, 7.0, 8.0))
    assert target_spacing(spacings, ((10, 100, 120),) * 5) == pytest.approx((4.4, 1.0, 1.2))


def test_a_coarse_axis_with_many_voxels_keeps_its_median():
    spacings = tuple((z, 1.0, 1.2) for z in (4.0, 5.0, 6.0, 7.0, 8.0))
    assert target_spacing(spacings, ((40, 100, 120),) * 5) == (6.0, 1.0, 1.2)


def test_a_coarse_axis_never_becomes_finer_than_the_others():
    spacings = tuple((1.0, 1.2, x) for x in (0.5, 0.5, 5.0, 5.0, 5.0))
    assert target_spacing(spacings, ((100, 120, 10),) * 5) == pytest.approx((1.0, 1.2, 1.20001))


def test_spacing_of_exactly_three_times_the_others_is_not_coarse():
    spacings = tuple((z, 1.0, 1.0) for z in (2.0, 3.0, 4.0))
    assert target_spacing(spacings, ((10, 100, 120),) * 3) == (3.0, 1.0, 1.0)


def test_the_coarsest_axis_comes_first_and_the_others_keep_their_order():
    assert model_axes((0.9, 0.5, 3.0), ((50, 60, 20),)) == (2, 0, 1)


def test_an_axis_of_one_voxel_counts_as_the_coarsest():
    assert model_axes((1.0, 2.0, 1.5), ((1, 60, 20), (1, 50, 40))) == (0, 1, 2)


def test_median_shape_rounds_every_case_before_the_median():
    # 11 * 0.5 / 2 = 2.75 -> 3 and 17 * 0.5 / 2 = 4.25 -> 4, median 3.5
    shapes, spacings = ((11, 20, 30), (17, 24, 30)), ((0.5, 1.0, 2.0), (0.5, 1.0, 2.0))
    assert median_shape(shapes, spacings, (2.0, 1.0, 1.0)) == (3.5, 22.0, 60.0)


def test_grid_turns_spacing_and_shape_into_model_order_and_keeps_stored_slices():
    grid = plan_grid(fingerprint([(60, 50, 8), (64, 50, 10), (70, 50, 12)], [(1.0, 0.5, 4.0)] * 2 + [(1.0, 0.5, 2.0)]))
    assert grid.transpose == (2, 0, 1)
    assert grid.spacing_mm == pytest.approx((2.4, 1.0, 0.5))  # 10th percentile of 2, 4, 4 mm
    assert grid.median_shape == (13, 64, 50)  # round(8 * 4 / 2.4), round(10 * 4 / 2.4), round(12 * 2 / 2.4) = 13, 17, 10
    assert grid.median_slices == 10
    assert grid.dataset_voxels == 13 * 64 * 50 * 3


def test_a_fingerprint_without_cases_is_refused():
    with pytest.raises(DatasetError, match="no case"):
        plan_grid(fingerprint([], []))
