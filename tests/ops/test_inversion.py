from __future__ import annotations

import numpy as np
import pytest
from fields import smooth_displacement, stored_grid, turned

from autoseg.core.geometry import Geometry
from autoseg.ops import sampling
from autoseg.ops.displacement import affine_displacement, compose, move_points
from autoseg.ops.inversion import invert

FIXED = stored_grid(shape=(20, 24, 28), angles_deg=(10, -15, 25))


def inner(geometry: Geometry, margin: int = 5) -> tuple[slice, slice, slice]:
    return tuple(slice(margin, size - margin) for size in geometry.shape)


@pytest.mark.parametrize("slab", [1, 2**18])
def test_going_there_and_back_ends_where_it_began(monkeypatch, slab):
    monkeypatch.setattr(sampling, "SLAB_VOXELS", slab)
    displacement = smooth_displacement(FIXED, 3.0)
    inverse = invert(displacement, FIXED, FIXED, tolerance_mm=0.009)
    assert inverse.residual_mm <= 0.009 and inverse.unsolved == 0
    back = compose(inverse.displacement, FIXED, displacement, FIXED, outside=None)
    there = compose(displacement, FIXED, inverse.displacement, FIXED, outside=None)
    assert np.linalg.norm(back, axis=0)[inner(FIXED)].max() < 0.01
    assert np.linalg.norm(there, axis=0)[inner(FIXED)].max() < 0.1 * min(FIXED.spacing_mm)


def test_a_rotation_by_a_right_angle_with_a_shift_is_inverted_onto_another_grid():
    turn = np.array(turned((0, 0, 90)))
    matrix = np.concatenate([turn * 0.8, [[100.0], [-50.0], [30.0]]], axis=1)
    inside = np.array([FIXED.position_mm(index) for index in ((5, 6, 7), (12, 10, 20), (16, 18, 9))])
    moved = inside @ matrix[:, :3].T + matrix[:, 3]
    moving = Geometry((30, 30, 30), (1.3, 1.6, 1.1), tuple(moved.mean(axis=0) - (20, 24, 16)))
    inverse = invert(affine_displacement(matrix, FIXED), FIXED, moving, tolerance_mm=1e-3)
    np.testing.assert_allclose(move_points(moved, inverse.displacement, moving), inside, atol=2e-3)
    assert 0 < inverse.covered < 1 and inverse.residual_mm <= 1e-3


def test_where_a_map_folds_the_residual_says_so():
    displacement = np.zeros((3, *FIXED.shape), np.float32)
    displacement[:] = smooth_displacement(FIXED, 40.0, sigma=1.5)
    inverse = invert(displacement, FIXED, FIXED, tolerance_mm=0.01)
    assert inverse.unsolved > 0.01 and inverse.residual_mm > 0.1


def test_a_flat_map_is_inverted_in_its_plane():
    flat = Geometry((1, 30, 26), (5.0, 0.8, 1.3), (7.0, 0.0, 0.0))
    displacement = smooth_displacement(flat, 2.0)
    displacement[0] = 0
    inverse = invert(displacement, flat, flat, tolerance_mm=0.005)
    there = compose(displacement, flat, inverse.displacement, flat, outside=None)
    assert (inverse.displacement[0] == 0).all()
    assert np.linalg.norm(there, axis=0)[:, 4:-4, 4:-4].max() < 0.08


def test_a_grid_that_no_voxel_is_brought_to_has_no_residual():
    far = Geometry((2, 3, 4), (1.0, 1.0, 1.0), (5000.0, 0.0, 0.0))
    inverse = invert(np.zeros((3, *FIXED.shape), np.float32), FIXED, far, tolerance_mm=0.01)
    assert np.isnan(inverse.residual_mm) and inverse.covered == 0 and (inverse.displacement == 0).all()
