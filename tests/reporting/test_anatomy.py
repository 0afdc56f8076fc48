"""Sides of the patient: which way a slice is held up, and the letters at its borders."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.core.geometry import CANONICAL, Geometry
from autoseg.reporting import anatomy


@pytest.mark.parametrize(("axis", "letters"), [(0, ("A", "L", "P", "R")), (1, ("S", "L", "I", "R")), (2, ("S", "P", "I", "A"))])
def test_letters_at_top_right_bottom_and_left_in_radiological_convention(axis, letters):
    assert anatomy.side_letters(CANONICAL, axis) == letters


@pytest.mark.parametrize(("axis", "expected"), [
    (0, (3, 7)),  # y to posterior goes down, x to left goes right
    (1, (1, 7)),  # z to superior goes up: of 5 slices the fourth is in the second row
    (2, (1, 3)),
])
def test_a_voxel_stands_in_its_row_and_column_of_the_slice(axis, expected):
    volume = np.zeros((5, 6, 8), dtype=np.uint8)
    volume[3, 3, 7] = 1
    plane = anatomy.view(volume, axis, (3, 3, 7)[axis])
    assert np.argwhere(plane).tolist() == [list(expected)]


def turned(angle_deg: float):
    """Directions of a head nodded by an angle: z and y turned about the left-right axis."""
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    return ((c, s, 0.0), (-s, c, 0.0), (0.0, 0.0, 1.0))


@pytest.mark.parametrize(("angle", "top"), [(0, "A"), (22, "A"), (23, "AI"), (44, "AI"), (46, "IA")])
def test_an_oblique_side_gets_a_second_letter_half_way_between_two_directions(angle, top):
    # y runs to (s, c, 0): posterior and, the more it is turned, superior; the top is its other end.
    assert anatomy.side_letters(turned(angle), 0)[0] == top
    assert anatomy.tilt_deg(turned(angle)) == pytest.approx(angle)


def test_only_a_grid_at_the_origin_along_the_axes_has_no_known_orientation():
    assert not anatomy.is_placed(Geometry((1, 4, 5), (1.0, 1.0, 1.0)))
    assert not anatomy.is_placed(Geometry((3, 4, 5), (2.0, 0.5, 0.5)))
    assert anatomy.is_placed(Geometry((1, 4, 5), (1.0, 1.0, 1.0), (0.0, 0.0, -30.0)))
    assert anatomy.is_placed(Geometry((1, 4, 5), (1.0, 1.0, 1.0), direction=turned(10)))


def test_voxels_of_exactly_one_without_a_place_have_no_known_size():
    assert not anatomy.has_size(Geometry((1, 4, 5), (1.0, 1.0, 1.0)))
    assert anatomy.has_size(Geometry((1, 4, 5), (1.0, 0.5, 0.5)))
    assert anatomy.has_size(Geometry((3, 4, 5), (1.0, 1.0, 1.0), (0.0, 0.0, 9.0)))
