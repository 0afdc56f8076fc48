from __future__ import annotations

import numpy as np
import pytest
from fields import image_on, naive_value, smooth_displacement, stored_grid, turned
from scipy import ndimage

from autoseg.core.errors import GeometryError
from autoseg.core.geometry import Geometry
from autoseg.ops import sampling
from autoseg.ops.displacement import (
    affine_displacement,
    compose,
    from_voxels,
    index_of,
    jacobian_determinant,
    move_points,
    to_voxels,
    warp,
    warp_labels,
)

PLAIN = Geometry((4, 5, 6), (3.0, 2.0, 0.5))


def pair():
    fixed = image_on(stored_grid(shape=(9, 7, 8), angles_deg=(12, -20, 35)), seed=3)
    moving = image_on(stored_grid((12, 10, 11), (1.1, 1.9, 2.3), (-14, 28, 3), (-8, 5, 50)), seed=4)
    return fixed, moving


def test_an_image_moves_by_whole_voxels_against_the_displacement():
    voxels = np.arange(120, dtype=np.float32).reshape(1, *PLAIN.shape)
    displacement = np.zeros((3, *PLAIN.shape), np.float32)
    displacement[1] = 2.0  # one voxel towards posterior: the warped image shows what lies there
    warped = warp(voxels, PLAIN, displacement, PLAIN, interpolation="linear", outside=-1.0)
    np.testing.assert_array_equal(warped[0, :, :4], voxels[0, :, 1:])
    assert (warped[0, :, 4] == -1.0).all()
    repeated = warp(voxels, PLAIN, displacement, PLAIN, interpolation="linear", outside=None)
    np.testing.assert_array_equal(repeated[0, :, 4], voxels[0, :, 4])


def test_half_a_voxel_beyond_an_image_still_belongs_to_it():
    voxels = np.full((1, *PLAIN.shape), 7.0, np.float32)
    displacement = np.zeros((3, *PLAIN.shape), np.float32)
    displacement[2] = 0.24  # of voxels of 0.5 mm
    assert (warp(voxels, PLAIN, displacement, PLAIN, interpolation="linear", outside=0.0) == 7.0).all()
    displacement[2] = 0.26
    assert (warp(voxels, PLAIN, displacement, PLAIN, interpolation="linear", outside=0.0)[..., -1] == 0.0).all()


@pytest.mark.parametrize("slab", [1, 200, 2**18])
def test_warping_between_oblique_grids_is_what_a_loop_over_voxels_finds(monkeypatch, slab):
    monkeypatch.setattr(sampling, "SLAB_VOXELS", slab)
    fixed, moving = pair()
    displacement = smooth_displacement(fixed.geometry, 4.0)
    warped = warp(moving.voxels, moving.geometry, displacement, fixed.geometry, interpolation="linear", outside=None)[0]
    for index in np.random.default_rng(0).integers(0, fixed.geometry.shape, (60, 3)):
        point = np.array(fixed.geometry.position_mm(tuple(index))) + displacement[(slice(None), *index)]
        expected = naive_value(moving.voxels[0], index_of(point[None], moving.geometry)[0])
        assert warped[tuple(index)] == pytest.approx(expected, abs=1e-5)


def test_nearest_keeps_the_type_and_cubic_goes_through_the_voxels_and_stays_in_their_range():
    fixed, moving = pair()
    labels = (moving.voxels * 9).astype(np.uint16)
    assert warp(labels, moving.geometry, None, fixed.geometry, interpolation="nearest", outside=0).dtype == np.uint16
    same = warp(moving.voxels, moving.geometry, None, moving.geometry, interpolation="cubic", outside=None)
    np.testing.assert_allclose(same, moving.voxels, atol=1e-5)
    steps = np.where(moving.voxels > 0.5, 1.0, 0.0).astype(np.float32)
    cubic = warp(steps, moving.geometry, smooth_displacement(moving.geometry, 3.0), moving.geometry, interpolation="cubic",
                 outside=None)
    assert cubic.min() == 0.0 and cubic.max() == 1.0


def test_a_flat_image_is_warped_in_its_plane():
    flat = Geometry((1, 8, 9), (4.0, 1.5, 0.7), (3.0, 2.0, 1.0))
    voxels = np.random.default_rng(0).random((1, *flat.shape)).astype(np.float32)
    displacement = np.zeros((3, *flat.shape), np.float32)
    displacement[2] = 1.4
    for interpolation in ("linear", "nearest", "cubic"):
        warped = warp(voxels, flat, displacement, flat, interpolation=interpolation, outside=0.0)
        np.testing.assert_allclose(warped[0, 0, :, :7], voxels[0, 0, :, 2:], atol=1e-5)
        assert (warped[0, 0, :, 7:] == 0).all()


def naive_labels(labels, moving, displacement, fixed):
    """Every label's mask interpolated linearly on the whole image; the largest wins, the smallest label of equal ones."""
    where = sampling.places(fixed, moving, displacement, slice(0, fixed.shape[0]))
    values = np.unique(labels)
    shares = [ndimage.map_coordinates((labels == value).astype(np.float64), where, order=1, mode="nearest") for value in values]
    best = values[np.argmax(np.round(shares, 9), axis=0)]
    return np.where(sampling.is_inside(where, moving.shape), best, 0)


@pytest.mark.parametrize("slab", [1, 2**18])
def test_labels_by_share_are_those_of_all_masks_interpolated(monkeypatch, slab):
    monkeypatch.setattr(sampling, "SLAB_VOXELS", slab)
    fixed, moving = pair()
    labels = np.array([0, 3, 4, 900, 17], np.int16)[(moving.voxels[0] * 4.99).astype(int)]
    displacement = smooth_displacement(fixed.geometry, 4.0)
    warped = warp_labels(labels, moving.geometry, displacement, fixed.geometry, interpolation="linear")
    assert warped.dtype == np.int16 and len(np.unique(warped)) == 5
    np.testing.assert_array_equal(warped, naive_labels(labels, moving.geometry, displacement, fixed.geometry))


def test_of_equal_shares_the_smallest_label_wins():
    labels = np.array([[[5, 2]]], np.uint8)
    grid, middle = Geometry((1, 1, 2), (1.0, 1.0, 1.0)), Geometry((1, 1, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.5))
    assert warp_labels(labels, grid, None, middle, interpolation="linear").item() == 2
    assert warp_labels(labels[..., ::-1], grid, None, middle, interpolation="linear").item() == 2


def test_labels_come_by_the_nearest_voxel_or_by_share_and_not_by_splines():
    fixed, moving = pair()
    labels = (moving.voxels[0] * 5).astype(np.uint8)
    nearest = warp_labels(labels, moving.geometry, None, fixed.geometry, interpolation="nearest", outside=9)
    where = sampling.places(fixed.geometry, moving.geometry, None, slice(0, fixed.geometry.shape[0]))
    expected = np.full(fixed.geometry.shape, 9)
    inside = sampling.is_inside(where, moving.geometry.shape)
    rounded = np.floor(where[:, inside] + 0.5).astype(int)
    expected[inside] = labels[tuple(rounded)]
    np.testing.assert_array_equal(nearest, expected)
    assert 0 < inside.mean() < 1
    with pytest.raises(ValueError, match="nearest or linear"):
        warp_labels(labels, moving.geometry, None, fixed.geometry, interpolation="cubic")


def test_two_affine_maps_composed_are_their_product():
    fixed, moving = pair()
    first, second = (np.concatenate([np.array(turned(angles)) * scale, np.array(shift)[:, None]], axis=1)
                     for angles, scale, shift in (((3, 5, -4), 1.02, (1.0, -2.0, 0.5)), ((-6, 2, 8), 0.97, (-0.5, 1.5, 2.0))))
    large = Geometry((30, 30, 30), (4.0, 4.0, 4.0), (-60.0, -20.0, -60.0))
    composed = compose(affine_displacement(first, fixed.geometry), fixed.geometry, affine_displacement(second, large), large)
    product = np.concatenate([second[:, :3] @ first[:, :3], (second[:, :3] @ first[:, 3] + second[:, 3])[:, None]], axis=1)
    np.testing.assert_allclose(composed, affine_displacement(product, fixed.geometry), atol=1e-4)


def test_beyond_its_grid_the_second_map_moves_nothing_or_as_its_border():
    one = np.zeros((3, *PLAIN.shape), np.float32)
    one[0] = 100.0
    second = np.ones_like(one)
    assert (compose(one, PLAIN, second, PLAIN)[:, 0, 0, 0] == [100, 0, 0]).all()
    assert (compose(one, PLAIN, second, PLAIN, outside=None)[:, 0, 0, 0] == [101, 1, 1]).all()


def test_points_move_as_an_affine_map_says_and_not_outside_of_the_grid():
    fixed, _ = pair()
    matrix = np.concatenate([np.array(turned((4, -7, 2))) * 1.1, np.array([[3.0], [-1.0], [2.0]])], axis=1)
    points = np.array([fixed.geometry.position_mm((1.3, 4.6, 2.2)), fixed.geometry.position_mm((8.4, 0.0, 7.4))])
    moved = move_points(points, affine_displacement(matrix, fixed.geometry), fixed.geometry)
    np.testing.assert_allclose(moved[0], matrix[:, :3] @ points[0] + matrix[:, 3], atol=1e-4)
    with pytest.raises(GeometryError, match="1 of 1 points lie outside"):
        move_points(np.array([fixed.geometry.position_mm((9, 0, 0))]), np.zeros((3, *fixed.geometry.shape)), fixed.geometry)


def test_voxels_of_an_oblique_grid_become_millimetres_of_the_world_and_back():
    grid = Geometry((3, 4, 5), (3.0, 2.0, 0.5), direction=turned((0, 0, 90)))  # about L: array z runs along P, y along -S
    steps = np.zeros((3, *grid.shape), np.float32)
    steps[0] = 2.0
    along = np.array(grid.position_mm((2, 0, 0))) - grid.position_mm((0, 0, 0))
    np.testing.assert_allclose(from_voxels(steps, grid)[:, 0, 0, 0], along, atol=1e-5)
    np.testing.assert_allclose(to_voxels(from_voxels(steps, grid), grid), steps, atol=1e-6)


@pytest.mark.parametrize("slab", [1, 2**18])
@pytest.mark.parametrize("angles", [(0, 0, 0), (20, -30, 55)])
def test_the_jacobian_of_an_affine_map_is_its_determinant_on_any_grid(monkeypatch, slab, angles):
    monkeypatch.setattr(sampling, "SLAB_VOXELS", slab)
    grid = stored_grid(shape=(5, 4, 6), angles_deg=angles)
    matrix = np.array([[1.2, 0.1, -0.2, 3.0], [0.0, 0.9, 0.3, -4.0], [0.1, -0.2, 1.1, 5.0]])
    found = jacobian_determinant(affine_displacement(matrix, grid), grid)
    np.testing.assert_allclose(found, np.linalg.det(matrix[:, :3]), rtol=2e-4)


def test_the_jacobian_of_a_curved_map_is_that_of_its_formula():
    grid = Geometry((21, 5, 4), (0.5, 2.0, 3.0))
    z = 0.5 * np.arange(21)[:, None, None] * np.ones(grid.shape)
    displacement = np.zeros((3, *grid.shape), np.float32)
    displacement[0] = -0.15 * z**2  # d/dz = -0.3 z: 1 - 0.3 z folds beyond 3.33 mm
    found = jacobian_determinant(displacement, grid)
    np.testing.assert_allclose(found[1:-1], (1 - 0.3 * z)[1:-1], atol=1e-5)
    assert ((found <= 0) == (np.arange(21) >= 7)[:, None, None]).all()


def test_of_a_flat_image_the_jacobian_is_an_area():
    flat = Geometry((1, 6, 7), (5.0, 1.5, 0.5))
    matrix = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 1.3, 0.2, 0.0], [0.0, -0.1, 0.8, 0.0]])
    np.testing.assert_allclose(jacobian_determinant(affine_displacement(matrix, flat), flat), 1.3 * 0.8 + 0.2 * 0.1, atol=1e-5)


def test_arrays_that_are_not_on_their_grids_are_refused():
    fixed, moving = pair()
    with pytest.raises(GeometryError, match="the displacement has"):
        warp(moving.voxels, moving.geometry, np.zeros((3, 1, 2, 3)), fixed.geometry, interpolation="linear", outside=None)
    with pytest.raises(GeometryError, match="the moving image has"):
        warp(fixed.voxels, moving.geometry, None, fixed.geometry, interpolation="linear", outside=None)
    with pytest.raises(GeometryError, match="three components"):
        jacobian_determinant(np.zeros((2, *fixed.geometry.shape)), fixed.geometry)
