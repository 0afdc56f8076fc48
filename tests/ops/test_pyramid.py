from __future__ import annotations

import math

import pytest

from autoseg.ops.pyramid import axis_factors, shrink_to


def test_thick_slices_keep_their_number_until_pixels_are_as_long():
    assert axis_factors(4, (8.0, 1.0, 2.0)) == (1, 4, 2)
    assert axis_factors(16, (8.0, 1.0, 2.0)) == (2, 16, 8)
    assert axis_factors(4, (1.5, 1.5)) == (4, 4)


def test_a_grid_shrinks_to_the_voxels_that_are_wanted():
    assert shrink_to(8, (1.0, 1.0, 1.0)) == 2
    assert shrink_to(4, (8.0, 1.0, 1.0)) == 2  # within slices only
    assert shrink_to(2 * 16**2, (8.0, 1.0, 1.0)) == pytest.approx(16)  # pixels to 16 mm, slices to as much
    assert shrink_to(0.5, (8.0, 1.0, 1.0)) == 1


@pytest.mark.parametrize("spacing_mm", [(8.0, 1.0, 1.0), (6.5, 0.7, 0.7), (1.0, 3.0, 2.0), (0.5, 0.5)])
@pytest.mark.parametrize("ratio", [1.0, 1.7, 9.0, 300.0, 5000.0])
def test_the_factors_of_a_shrink_have_the_ratio_that_was_asked_for(spacing_mm, ratio):
    factors = axis_factors(shrink_to(ratio, spacing_mm), spacing_mm)
    assert math.prod(factors) == pytest.approx(ratio)
