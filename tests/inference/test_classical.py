"""Registrations find a map that is known, on grids that are turned against each other, and in slices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fields import smooth_displacement, turned

from autoseg.core.errors import AutosegError
from autoseg.core.geometry import Geometry, canonical_orientation
from autoseg.core.image import Image
from autoseg.inference.classical import (
    AffineMethod,
    BSplineMethod,
    DemonsMethod,
    register_affine,
    register_bspline,
    register_demons,
)
from autoseg.io.images import read_image, read_label_map
from autoseg.metrics.deformation import end_point_errors_mm
from autoseg.metrics.overlap import dice
from autoseg.ops.displacement import affine_displacement, warp, warp_labels

AFFINE = AffineMethod("moments", "correlation", 100, (2, 1), (1.0, 0.0), 32, 1.0)
DEMONS = DemonsMethod("diffeomorphic", (20, 30), (2, 1), 1.5, 0.0, False)
BSPLINE = BSplineMethod("correlation", 3, 15, (1,), (0.0,), 32, 1.0)
MATRIX = np.concatenate([np.array(turned((4, -5, 6))) * 1.04, [[3.0], [-2.0], [1.5]]], axis=1)


def bodies(points: np.ndarray) -> np.ndarray:
    """Intensities of a soft ellipsoid with five others in it, at points (..., 3) in mm (S, P, L)."""
    total = np.zeros(points.shape[:-1])
    for centre, radii, value in (((0, 0, 0), (15, 18, 14), 1.0), ((0, 9, 5), (5, 5, 5), 1.0), ((7, 0, -6), (5, 6, 4), -0.9),
                                 ((-6, -10, 0), (5, 4, 5), 1.0), ((0, -6, -7), (4, 5, 4), -0.8), ((-7, 5, -4), (4, 5, 5), 0.8)):
        distance = np.linalg.norm((points - centre) / radii, axis=-1)
        total += value / (1 + np.exp(8 * (distance - 1)))
    return total


def world(geometry: Geometry) -> np.ndarray:
    """Points (Z, Y, X, 3) of the voxels."""
    axes = np.stack(np.meshgrid(*(np.arange(size) for size in geometry.shape), indexing="ij"), axis=-1)
    lattice = geometry.matrix()
    return axes @ lattice[:, :3].T + lattice[:, 3]


def centred(shape, spacing_mm, angles_deg=(0, 0, 0), axes=(0, 1, 2), signs=(1, 1, 1), shift=(0, 0, 0)) -> Image:
    """A canonical image of the bodies in the middle of an oblique grid."""
    direction = turned(angles_deg, axes, signs)
    origin = np.array(shift) - np.array(direction) @ ((np.array(shape) - 1) / 2 * spacing_mm)
    stored = Geometry(shape, spacing_mm, tuple(origin), direction)
    orientation = canonical_orientation(direction)
    geometry = orientation.apply_to_geometry(stored)
    return Image(bodies(world(geometry) - shift)[None].astype(np.float32), geometry, orientation, stored)


FIXED = centred((22, 26, 30), (2.2, 2.0, 1.5), (10, -15, 5))


def moving_by(matrix: np.ndarray, like: Image) -> Image:
    """The bodies, moved by an affine map of the world."""
    points = world(like.geometry) - matrix[:, 3]
    return replace(like, voxels=bodies(points @ np.linalg.inv(matrix[:, :3]).T)[None].astype(np.float32))


def test_a_known_affine_map_is_found_between_turned_and_flipped_grids():
    moving = moving_by(MATRIX, centred((24, 28, 26), (1.8, 2.1, 1.7), (-12, 8, 20), axes=(1, 2, 0), signs=(-1, 1, -1)))
    found = register_affine(FIXED, moving, replace(AFFINE, iterations=30))
    error = end_point_errors_mm(affine_displacement(found, FIXED.geometry), affine_displacement(MATRIX, FIXED.geometry))
    assert error[FIXED.voxels[0] > 0.3].mean() < 0.2


@pytest.mark.parametrize("metric", ["correlation", "mutual_information"])
def test_a_known_affine_map_of_a_brain_is_found_also_in_another_contrast(real_data, metric):
    image = read_image([real_data / "Dataset004_Hippocampus" / "imagesTr" / "hippocampus_007_0000.nii.gz"])
    middle = np.array(image.geometry.position_mm(tuple((size - 1) / 2 for size in image.geometry.shape)))
    known = np.concatenate([MATRIX[:, :3], (middle - MATRIX[:, :3] @ middle + MATRIX[:, 3])[:, None]], axis=1)
    back = np.linalg.inv(known[:, :3])
    inverse = np.concatenate([back, (-back @ known[:, 3])[:, None]], axis=1)
    voxels = warp(image.voxels, image.geometry, affine_displacement(inverse, image.geometry), image.geometry,
                  interpolation="linear", outside=None)
    if metric == "mutual_information":
        voxels = (1 - voxels / voxels.max()) ** 2
    quick = replace(AFFINE, start="centres", metric=metric, iterations=30, shrink_factors=(2,), smoothing_voxels=(1.0,))
    found = register_affine(image, replace(image, voxels=voxels), quick)
    wrong = end_point_errors_mm(affine_displacement(found, image.geometry), affine_displacement(known, image.geometry))
    assert wrong.mean() < 0.2  # of a start that is 3.9 mm away


def test_what_lies_together_in_the_world_stays_when_positions_are_the_start():
    far = centred((24, 28, 26), (1.8, 2.1, 1.7), (-12, 8, 20), shift=(300, -200, 100))
    here = centred((22, 26, 30), (2.2, 2.0, 1.5), (10, -15, 5), shift=(300, -200, 100))
    nothing = replace(AFFINE, start="positions", iterations=0, shrink_factors=(1,), smoothing_voxels=(0.0,))
    still = register_affine(here, far, nothing)
    np.testing.assert_allclose(still, np.eye(3, 4), atol=1e-9)


def difference(fixed: Image, moving: Image, displacement: np.ndarray) -> float:
    """Mean difference inside the bodies; at the border of a grid there may be nothing to compare."""
    warped = warp(moving.voxels, moving.geometry, displacement, fixed.geometry, interpolation="linear", outside=None)[0]
    inside = np.linalg.norm(world(fixed.geometry) / (15, 18, 14), axis=-1) < 1
    return float(np.abs(fixed.voxels[0] - warped)[inside].mean())


@pytest.fixture(scope="module")
def curved() -> tuple[Image, np.ndarray]:
    """The bodies after a curved map on a turned grid, and the affine map that is found."""
    grid = centred((26, 30, 28), (1.8, 1.9, 1.7), (-12, 8, 20), axes=(1, 2, 0), signs=(-1, 1, -1))
    known = smooth_displacement(grid.geometry, 4.0, sigma=4.0)
    moving = replace(grid, voxels=warp(grid.voxels, grid.geometry, known, grid.geometry, interpolation="linear", outside=None))
    return moving, register_affine(FIXED, moving, replace(AFFINE, iterations=10))


@pytest.mark.parametrize("method", ["diffeomorphic", "fast_symmetric", "symmetric", "bspline"])
def test_a_curved_map_is_refined_on_a_turned_grid(curved, method):
    moving, affine = curved
    if method == "bspline":
        displacement = register_bspline(FIXED, moving, affine, replace(BSPLINE, sampled_share=0.15))
    else:
        displacement = register_demons(FIXED, moving, affine, replace(DEMONS, forces=method))
    before, after = (difference(FIXED, moving, u) for u in (affine_displacement(affine, FIXED.geometry), displacement))
    assert displacement.dtype == np.float32 and after < 0.8 * before


@pytest.mark.parametrize("flat", [0, 1, 2])
def test_slices_are_registered_in_their_plane(flat):
    shape, spacing = [40, 44, 48], [1.2, 1.0, 0.9]
    shape[flat] = 1
    grid = centred(tuple(shape), tuple(spacing), (5, -4, 3))
    known = smooth_displacement(grid.geometry, 4.0, sigma=6.0)
    normal = np.array(grid.geometry.direction)[:, flat]
    known -= np.einsum("i,jzyx->ijzyx", normal, np.einsum("i,izyx->zyx", normal, known)[None])[:, 0]
    moving = replace(grid, voxels=warp(grid.voxels, grid.geometry, known, grid.geometry, interpolation="linear", outside=None))
    affine = register_affine(grid, moving, AFFINE)
    before = difference(grid, moving, affine_displacement(affine, grid.geometry))
    for displacement in (register_demons(grid, moving, affine, DEMONS), register_bspline(grid, moving, affine, BSPLINE)):
        assert displacement.shape == (3, *shape)
        assert np.abs(np.einsum("i,izyx->zyx", normal, displacement)).max() < 1e-4  # nothing leaves the plane
        assert difference(grid, moving, displacement) < 0.6 * before


def test_the_same_pair_gives_the_same_maps_to_the_last_bit(curved):
    moving, affine = curved
    np.testing.assert_array_equal(register_affine(FIXED, moving, replace(AFFINE, iterations=10)), affine)
    short = replace(BSPLINE, sampled_share=0.1, iterations=2)
    for register, method in ((register_demons, replace(DEMONS, iterations=(2, 2))), (register_bspline, short)):
        np.testing.assert_array_equal(register(FIXED, moving, affine, method), register(FIXED, moving, affine, method))


def noisy(image: Image, value: float) -> Image:
    voxels = image.voxels.copy()
    voxels[0, 3, 3, 3] = value
    return replace(image, voxels=voxels)


@pytest.mark.parametrize(("fixed", "moving", "start", "code", "message"), [
    (FIXED, centred((1, 26, 30), (2.2, 2.0, 1.5)), "centres", "E_DIMENSIONS", "two volumes, or two slices across the same axis"),
    (centred((1, 26, 30), (2.2, 2.0, 1.5)), centred((22, 1, 30), (2.2, 2.0, 1.5)), "centres", "E_DIMENSIONS", "same axis"),
    (FIXED, replace(FIXED, voxels=np.full_like(FIXED.voxels, 3.0)), "centres", "E_CONSTANT", "moving image has the value 3"),
    (replace(FIXED, voxels=np.zeros_like(FIXED.voxels)), FIXED, "centres", "E_CONSTANT", "fixed image has the value 0"),
    (noisy(FIXED, np.nan), FIXED, "centres", "E_NONFINITE", "the fixed image has voxels that are no finite numbers"),
    (FIXED, noisy(FIXED, np.inf), "moments", "E_NONFINITE", "the moving image"),
    (FIXED, replace(FIXED, voxels=np.repeat(FIXED.voxels, 2, axis=0)), "centres", "E_CHANNELS",
     "1 channels and the moving image 2"),
    (FIXED, centred((22, 26, 30), (2.2, 2.0, 1.5), shift=(500, 0, 0)), "positions", "E_NO_OVERLAP", "start by positions"),
])
def test_pairs_that_cannot_be_registered_are_told(fixed, moving, start, code, message):
    with pytest.raises(AutosegError, match=message) as caught:
        register_affine(fixed, moving, replace(AFFINE, start=start))
    assert caught.value.code == code


def test_two_hippocampi_overlap_more_after_each_step(real_data):
    folder = real_data / "Dataset004_Hippocampus"
    cases = ("hippocampus_007", "hippocampus_006")
    fixed, moving = (read_image([folder / "imagesTr" / f"{case}_0000.nii.gz"]) for case in cases)
    reference, labels = (read_label_map(folder / "labelsTr" / f"{case}.nii.gz").voxels[0] for case in cases)
    affine = register_affine(fixed, moving, replace(AFFINE, iterations=20, shrink_factors=(2,), smoothing_voxels=(1.0,)))
    demons = register_demons(fixed, moving, affine, replace(DEMONS, iterations=(20,), shrink_factors=(1,)))
    start = register_affine(fixed, moving, replace(AFFINE, start="centres", iterations=0))
    found = [dice(warp_labels(labels, moving.geometry, displacement, fixed.geometry, interpolation="linear") > 0, reference > 0)
             for displacement in (*(affine_displacement(matrix, fixed.geometry) for matrix in (start, affine)), demons)]
    assert found[0] < found[1] < found[2] and found[2] > 0.75
