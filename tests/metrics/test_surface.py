from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import cdist

from autoseg.core.errors import GeometryError
from autoseg.metrics.surface import hausdorff_mm, surface_dice, surface_distances

SPACING = (3.0, 2.0, 0.5)
EMPTY = np.zeros((7, 9, 11), bool)
MASKS = hnp.arrays(bool, (4, 3, 5))


def box(z: tuple[int, int], y: tuple[int, int], x: tuple[int, int]) -> np.ndarray:
    mask = EMPTY.copy()
    mask[slice(*z), slice(*y), slice(*x)] = True
    return mask


def area(mask: np.ndarray) -> float:
    return float(surface_distances(mask, mask, SPACING).prediction_areas_mm2.sum())


def elements(mask: np.ndarray, spacing) -> np.ndarray:
    """Middles in mm of all 2 x 2 x 2 blocks that are partly inside, one after the other."""
    padded = np.pad(mask, 1)
    places = [(z, y, x) for z, y, x in np.ndindex(*(size + 1 for size in mask.shape))
              if 0 < padded[z:z + 2, y:y + 2, x:x + 2].sum() < 8]
    return np.array(places).reshape(-1, 3) * spacing


def test_one_voxel_has_the_surface_of_an_octahedron():
    # corners lie half a voxel from the centre: half axes 1.5, 1 and 0.25 mm, eight equal triangles
    distances = surface_distances(box((3, 4), (3, 4), (3, 4)), EMPTY, SPACING)
    triangle = np.linalg.norm(np.cross([-1.5, 1.0, 0], [-1.5, 0, 0.25])) / 2
    np.testing.assert_allclose(distances.prediction_areas_mm2, triangle)
    assert len(distances.prediction_areas_mm2) == 8


def test_faces_of_a_large_box_have_their_area_in_square_millimetres():
    mask = np.ones((8, 9, 12), bool)
    areas = surface_distances(mask, mask, SPACING).prediction_areas_mm2
    for face, mm2 in (((9 - 1) * (12 - 1), 2.0 * 0.5), ((8 - 1) * (12 - 1), 3.0 * 0.5), ((8 - 1) * (9 - 1), 3.0 * 2.0)):
        assert np.count_nonzero(np.isclose(areas, mm2)) == 2 * face


def test_mask_and_its_complement_have_the_same_inner_surface():
    rng = np.random.default_rng(0)
    mask = np.pad(rng.random((6, 5, 7)) > 0.5, 1)
    inverse = np.pad(~mask, 1, constant_values=True)
    assert area(inverse) - area(np.ones_like(inverse)) == pytest.approx(area(mask))


def test_ball_has_nearly_the_surface_of_a_ball():
    grid = np.indices((41, 61, 81)) - np.array([20, 30, 40])[:, None, None, None]
    ball = np.square(grid * np.array([1.0, 0.7, 0.5])[:, None, None, None]).sum(axis=0) <= 15**2
    areas = surface_distances(ball, ball, (1.0, 0.7, 0.5)).prediction_areas_mm2
    assert areas.sum() == pytest.approx(4 * math.pi * 15**2, rel=0.12)  # steps of voxels add some 10 %


def test_shifted_box_by_hand():
    # slabs that leave the image on no side, shifted by two slices of 3 mm
    first, second = box((1, 3), (1, 8), (1, 10)), box((3, 5), (1, 8), (1, 10))
    distances = surface_distances(first, second, SPACING)
    assert hausdorff_mm(distances, 100.0) == 6.0
    assert surface_dice(distances, 6.0) == 1.0
    assert 0.2 < surface_dice(distances, 5.9) < 1.0


def test_equal_masks_agree_everywhere():
    mask = box((1, 3), (2, 8), (0, 11))
    distances = surface_distances(mask, mask, SPACING)
    assert surface_dice(distances, 0.0) == 1.0
    assert hausdorff_mm(distances) == 0.0


def test_both_empty_is_undefined():
    distances = surface_distances(EMPTY, EMPTY, SPACING)
    assert math.isnan(surface_dice(distances, 1.0))
    assert math.isnan(hausdorff_mm(distances))


@pytest.mark.parametrize("swap", [False, True])
def test_one_empty_agrees_nowhere_at_infinite_distance(swap):
    masks = [box((3, 4), (3, 4), (3, 4)), EMPTY]
    distances = surface_distances(*(masks[::-1] if swap else masks), SPACING)
    assert surface_dice(distances, 1000.0) == 0.0
    assert hausdorff_mm(distances) == math.inf


@settings(max_examples=60, deadline=None)
@given(MASKS, MASKS)
def test_distances_are_those_of_all_pairs(first, second):
    distances = surface_distances(first, second, SPACING)
    if not first.any() or not second.any():
        return
    pairs = cdist(elements(first, SPACING), elements(second, SPACING))
    np.testing.assert_allclose(distances.prediction_mm, np.sort(pairs.min(axis=1)), atol=1e-9)
    np.testing.assert_allclose(distances.reference_mm, np.sort(pairs.min(axis=0)), atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(MASKS, MASKS)
def test_scores_do_not_depend_on_the_order_of_the_masks_or_on_empty_space_around(first, second):
    straight = surface_distances(first, second, SPACING)
    swapped = surface_distances(np.pad(second, ((2, 0), (1, 3), (0, 4))), np.pad(first, ((2, 0), (1, 3), (0, 4))), SPACING)
    assert surface_dice(straight, 2.0) == pytest.approx(surface_dice(swapped, 2.0), nan_ok=True)
    assert hausdorff_mm(straight) == pytest.approx(hausdorff_mm(swapped), nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(MASKS, MASKS, st.permutations([0, 1, 2]))
def test_scores_do_not_depend_on_the_order_of_the_axes(first, second, axes):
    straight = surface_distances(first, second, SPACING)
    turned = surface_distances(first.transpose(axes), second.transpose(axes), tuple(SPACING[a] for a in axes))
    np.testing.assert_allclose(straight.prediction_mm, turned.prediction_mm, atol=1e-9)
    # planes that bend are cut into triangles along one diagonal or the other
    assert turned.prediction_areas_mm2.sum() == pytest.approx(straight.prediction_areas_mm2.sum(), rel=0.05)


def test_percentile_is_weighted_by_area():
    # a far bump of a few per cent of the surface does not move the 95th percentile
    plate = np.zeros((9, 30, 40), bool)
    plate[1:3] = True
    bumped = plate.copy()
    bumped[3:8, 10:12, 10:12] = True
    distances = surface_distances(bumped, plate, (1.0, 1.1, 1.2))
    assert hausdorff_mm(distances) == 0.0
    assert hausdorff_mm(distances, 100.0) == pytest.approx(5.0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_slice_has_contours(axis):
    square, shifted = np.zeros((2, 12, 14), bool)
    square[3:7, 4:9] = True
    shifted[3:7, 6:11] = True
    spacing = [2.0, 0.5]
    spacing.insert(axis, 7.0)
    distances = surface_distances(np.expand_dims(square, axis), np.expand_dims(shifted, axis), tuple(spacing))
    # sides of 4 and 3 pixels between pixel centres, and four cut corners
    corner = math.hypot(2.0, 0.5) / 2
    assert distances.prediction_areas_mm2.sum() == pytest.approx(2 * 4 * 0.5 + 2 * 3 * 2.0 + 4 * corner)
    assert hausdorff_mm(distances) == 1.0  # two pixels of 0.5 mm


def test_other_shape_is_refused():
    with pytest.raises(GeometryError, match="on one grid"):
        surface_distances(EMPTY, EMPTY[1:], SPACING)
