from __future__ import annotations

import math

import numpy as np
import pytest

from autoseg.core.errors import GeometryError
from autoseg.metrics.lesions import PENALTY_MM, compare_lesions

SHAPE, SPACING = (30, 34, 38), (1.0, 1.0, 1.0)


def boxes(*starts, side=4):
    mask = np.zeros(SHAPE, bool)
    for z, y, x in starts:
        mask[z:z + side, y:y + side, x:x + side] = True
    return mask


def test_a_found_a_missed_and_a_false_lesion_by_hand():
    reference = boxes((2, 2, 2), (20, 20, 20))
    prediction = boxes((4, 2, 2), (2, 20, 30))  # the first moved by half of its side, and one where nothing is

    scores = compare_lesions(prediction, reference, SPACING)

    assert (scores.found, scores.missed, scores.false) == (1, 1, 1)
    assert scores.dice == pytest.approx((0.5 + 0 + 0) / 3)
    assert scores.hd95_mm == pytest.approx((2.0 + 374 + 374) / 3)


def test_parts_that_lie_close_are_one_lesion_and_a_prediction_of_one_of_them_scores_against_both():
    reference = boxes((2, 2, 2), (2, 2, 10))  # four voxels between them: dilated by 3 they touch
    prediction = boxes((2, 2, 2))

    near = compare_lesions(prediction, reference, SPACING)
    apart = compare_lesions(prediction, reference, SPACING, dilation_voxels=1)

    assert (near.found, near.missed, near.dice) == (1, 0, pytest.approx(2 * 64 / 192))
    assert (apart.found, apart.missed, apart.dice) == (1, 1, pytest.approx(0.5))


def test_all_components_that_meet_the_dilated_lesion_are_compared_with_it_together():
    reference = boxes((10, 10, 10), side=6)
    prediction = boxes((10, 10, 10), side=2) | boxes((14, 14, 14), side=2) | boxes((17, 10, 10), side=2)  # the last is beside it

    scores = compare_lesions(prediction, reference, SPACING)

    assert (scores.found, scores.false) == (1, 0)
    assert scores.dice == pytest.approx(2 * 16 / (24 + 216))


def test_one_component_over_two_lesions_is_compared_with_each():
    reference = boxes((2, 2, 2), (2, 2, 18))
    prediction = np.zeros(SHAPE, bool)
    prediction[2:6, 2:6, 2:22] = True

    scores = compare_lesions(prediction, reference, SPACING)

    assert (scores.found, scores.false) == (2, 0)
    assert scores.dice == pytest.approx(2 * 64 / (64 + 320))


def test_small_lesions_do_not_count_nor_does_what_is_predicted_there():
    reference = boxes((2, 2, 2)) | boxes((20, 20, 20), side=3)  # 64 and 27 mm3
    hit = compare_lesions(boxes((2, 2, 2)) | boxes((20, 20, 20), side=3), reference, SPACING)
    missed = compare_lesions(boxes((2, 2, 2)), reference, SPACING)
    assert hit == missed and (hit.dice, hit.found, hit.missed, hit.false) == (1.0, 1, 0, 0)


def test_a_lesion_of_exactly_the_smallest_volume_does_not_count_and_the_volume_is_in_mm3():
    reference = boxes((2, 2, 2))  # 64 voxels
    empty = np.zeros(SHAPE, bool)
    assert compare_lesions(empty, reference, SPACING, smallest_mm3=64).missed == 0
    assert compare_lesions(empty, reference, SPACING, smallest_mm3=63.9).missed == 1
    assert compare_lesions(empty, reference, (0.5, 1.0, 1.0), smallest_mm3=50).missed == 0


def test_components_that_touch_by_a_corner_are_one():
    prediction = boxes((10, 10, 10), (14, 14, 14))
    assert compare_lesions(prediction, np.zeros(SHAPE, bool), SPACING).false == 1


@pytest.mark.parametrize(("prediction", "reference", "dice", "hd95_mm"), [
    (boxes(), boxes(), 1.0, 0.0), (boxes((2, 2, 2)), boxes(), 0.0, PENALTY_MM), (boxes(), boxes((2, 2, 2)), 0.0, PENALTY_MM),
    (np.ones(SHAPE, bool), np.ones(SHAPE, bool), 1.0, 0.0),
    (boxes((2, 2, 2), side=1), boxes((2, 2, 2), side=1), 1.0, 0.0),
])
def test_empty_whole_and_one_voxel_masks(prediction, reference, dice, hd95_mm):
    scores = compare_lesions(prediction, reference, SPACING, smallest_mm3=0)
    assert (scores.dice, scores.hd95_mm) == (dice, hd95_mm)


def test_distances_are_in_millimetres_along_every_axis():
    for axis, spacing in enumerate((2.0, 3.0, 0.5)):
        start = [10, 10, 10]
        start[axis] += 1
        scores = compare_lesions(boxes(tuple(start)), boxes((10, 10, 10)), (2.0, 3.0, 0.5))
        assert scores.hd95_mm == pytest.approx(spacing)


def test_shapes_must_agree():
    with pytest.raises(GeometryError):
        compare_lesions(np.zeros((2, 2, 2), bool), np.zeros((2, 2, 3), bool), SPACING)
    assert not math.isnan(PENALTY_MM)


def test_numbers_are_those_of_the_definition_written_out_over_the_whole_image():
    """The challenge's procedure, step by step, on random blobs."""
    from scipy import ndimage

    from autoseg.metrics.overlap import dice
    from autoseg.metrics.surface import hausdorff_mm, surface_distances

    rng = np.random.default_rng(3)
    fields = [ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.5) for _ in range(2)]
    reference, prediction = (field > np.quantile(field, 0.97) for field in (fields[0], fields[0] + 0.8 * fields[1]))
    grow, touch = ndimage.generate_binary_structure(3, 2), np.ones((3, 3, 3))
    groups, count = ndimage.label(ndimage.binary_dilation(reference, grow, iterations=1), touch)
    components, total = ndimage.label(prediction, touch)
    scores, hit = [], set()
    for lesion in (reference & (groups == number) for number in range(1, count + 1)):
        meeting = set(components[ndimage.binary_dilation(lesion, grow, iterations=1)]) - {0}
        hit |= meeting
        if lesion.sum() > 10:
            part = np.isin(components, list(meeting))
            distance = hausdorff_mm(surface_distances(part, lesion, SPACING))
            scores.append((dice(part, lesion), 374 if math.isinf(distance) else distance))
    false = total - len(hit)
    expected = [(sum(values) + false * penalty) / (len(scores) + false)
                for values, penalty in zip(zip(*scores, strict=True), (0, 374), strict=True)]

    found = compare_lesions(prediction, reference, SPACING, dilation_voxels=1, smallest_mm3=10)

    assert len(scores) > 5 and false > 0
    assert [found.dice, found.hd95_mm] == pytest.approx(expected)
