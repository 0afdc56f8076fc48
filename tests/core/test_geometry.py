from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from autoseg.core.errors import GeometryError
from autoseg.core.geometry import CANONICAL, Geometry, GridRecord, Orientation, as_direction, canonical_orientation

SHAPE, SPACING = (3, 4, 5), (2.0, 1.5, 0.5)
ALL_48 = [(axes, flips) for axes in permutations(range(3)) for flips in product((False, True), repeat=3)]


def axis_direction(axes, flips):
    """Direction of an array whose axis a runs along world axis axes[a], backwards where flipped."""
    matrix = np.zeros((3, 3))
    for axis, (world, flip) in enumerate(zip(axes, flips, strict=True)):
        matrix[world, axis] = -1.0 if flip else 1.0
    return as_direction(matrix)


def test_position_of_a_voxel_worked_out_by_hand():
    geometry = Geometry(SHAPE, SPACING, origin_mm=(10.0, 20.0, 30.0))
    assert geometry.position_mm((1, 2, 3)) == (12.0, 23.0, 31.5)


@pytest.mark.parametrize(("axes", "flips"), ALL_48)
def test_every_voxel_keeps_its_place_when_an_array_becomes_canonical(axes, flips):
    stored = Geometry(SHAPE, SPACING, (7.0, -3.0, 11.0), axis_direction(axes, flips))
    orientation = canonical_orientation(stored.direction)
    canonical = orientation.apply_to_geometry(stored)
    assert np.allclose(canonical.direction, CANONICAL)
    places = np.array([stored.position_mm(index) for index in np.ndindex(SHAPE)]).T.reshape(3, *SHAPE)
    moved = orientation.apply(places)
    assert moved.shape[1:] == canonical.shape
    expected = np.array([canonical.position_mm(index) for index in np.ndindex(canonical.shape)])
    assert np.allclose(moved.reshape(3, -1).T, expected)


@pytest.mark.parametrize(("axes", "flips"), ALL_48)
def test_undo_gives_the_stored_array_back(axes, flips):
    voxels = np.arange(2 * 60).reshape(2, *SHAPE)
    orientation = Orientation(axes, flips)
    assert np.array_equal(orientation.undo(orientation.apply(voxels)), voxels)


def test_an_oblique_direction_goes_to_the_nearest_axes():
    angle = np.deg2rad(30)
    rotation = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    assert canonical_orientation(as_direction(rotation)) == Orientation()
    assert canonical_orientation(as_direction(rotation[:, [0, 2, 1]])).axes == (0, 2, 1)


def test_no_two_axes_claim_one_world_axis_at_45_degrees():
    half = np.sqrt(0.5)
    rotation = np.array([[1, 0, 0], [0, half, -half], [0, half, half]])
    assert sorted(canonical_orientation(as_direction(rotation)).axes) == [0, 1, 2]


def test_grids_agree_within_a_thousandth_of_a_voxel():
    geometry = Geometry(SHAPE, SPACING, (100.0, 0.0, 0.0))
    assert geometry.agrees_with(Geometry(SHAPE, SPACING, (100.0001, 0.0, 0.0)))
    assert not geometry.agrees_with(Geometry(SHAPE, SPACING, (100.1, 0.0, 0.0)))
    assert not geometry.agrees_with(Geometry((3, 4, 6), SPACING, (100.0, 0.0, 0.0)))


@pytest.mark.parametrize("spacing", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, float("nan"))])
def test_impossible_spacings_are_refused(spacing):
    with pytest.raises(GeometryError, match="finite and positive"):
        Geometry(SHAPE, spacing)


def test_grid_record_follows_crop_and_transpose():
    record = GridRecord(Geometry(SHAPE, SPACING), Orientation(), ((0, 2), (1, 4), (0, 5)), (2, 0, 1), (5, 2, 3), (0.5, 2.0, 1.5))
    assert record.cropped_shape == (2, 3, 5)
    assert record.turned_shape == (5, 2, 3)
    assert record.turned_spacing_mm == (0.5, 2.0, 1.5)
