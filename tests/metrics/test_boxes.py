from __future__ import annotations

import math

import numpy as np
import pytest

from autoseg.metrics.boxes import Localisation, heat_boxes, iobb, iou, localisation, points_into

DRAWN = ((2, 6), (3, 9))  # 4 rows, 6 columns


def test_boxes_surround_the_regions_above_both_thresholds():
    heat = np.full((12, 20), -5.0)  # becomes 0 to 255
    heat[1:4, 2:7] = -5.0 + 100 / 255  # above 60
    heat[2, 3] = -4.0  # 255, above 180
    heat[8:10, 10:12] = -5.0 + 70 / 255
    assert set(heat_boxes(heat)) == {((1, 4), (2, 7)), ((8, 10), (10, 12)), ((2, 3), (3, 4))}
    assert heat_boxes(heat, (180,)) == (((2, 3), (3, 4)),)


def test_regions_that_touch_at_a_corner_are_one_and_equal_boxes_stand_once():
    heat = np.zeros((5, 7))
    heat[1, 1] = heat[2, 2] = 1.0
    assert heat_boxes(heat) == (((1, 3), (1, 3)),)


def test_boxes_of_a_volume_have_three_sides_and_a_flat_map_has_none():
    heat = np.zeros((4, 5, 6))
    heat[1, 2:4, 3:6] = 2.0
    assert heat_boxes(heat) == (((1, 2), (2, 4), (3, 6)),)
    assert heat_boxes(np.full((3, 4), 0.7)) == ()


@pytest.mark.parametrize(("found", "over_union", "over_found"), [
    (DRAWN, 1.0, 1.0), (((3, 5), (4, 6)), 4 / 24, 1.0), (((4, 8), (3, 9)), 12 / 36, 0.5), (((6, 8), (3, 9)), 0.0, 0.0),
    (((0, 12), (0, 10)), 24 / 120, 24 / 120)])
def test_overlaps_by_hand(found, over_union, over_found):
    assert (iou(found, DRAWN), iobb(found, DRAWN)) == pytest.approx((over_union, over_found))


def test_overlaps_of_random_boxes_are_those_of_their_masks():
    rng = np.random.default_rng(0)
    for _ in range(50):
        boxes = [tuple(tuple(sorted(rng.choice(9, 2, replace=False))) for _ in range(3)) for _ in range(2)]
        masks = [np.zeros((9, 9, 9), bool) for _ in boxes]
        for mask, box in zip(masks, boxes, strict=True):
            mask[tuple(slice(*side) for side in box)] = True
        both = (masks[0] & masks[1]).sum()
        assert iou(*boxes) == pytest.approx(both / (masks[0] | masks[1]).sum())
        assert iobb(*boxes) == pytest.approx(both / masks[0].sum())


def test_localisation_counts_cases_found_and_boxes_that_hit_nothing():
    inside, half, outside = ((3, 5), (4, 6)), ((4, 8), (3, 9)), ((8, 9), (0, 1))
    found = [[inside, outside, outside], [half], [], [outside]]
    drawn = [[DRAWN], [((0, 1), (0, 1)), DRAWN], [DRAWN], []]  # nobody drew in the last case
    assert localisation(found, drawn, threshold=0.4) == Localisation(2 / 3, 2 / 3, 3)
    assert localisation(found, drawn, threshold=0.5) == Localisation(1 / 3, 1.0, 3)
    assert localisation(found, drawn, threshold=0.5, overlap=iou) == Localisation(0.0, 4 / 3, 3)
    nothing = localisation([[inside]], [[]], threshold=0.1)
    assert math.isnan(nothing.accuracy) and math.isnan(nothing.false_positives) and nothing.cases == 0


def test_pointing_game_asks_for_the_largest_value():
    region = np.zeros((4, 5), bool)
    region[1:3, 1:3] = True
    heat = np.zeros((4, 5))
    heat[1, 2] = 2.0
    assert points_into(heat, region) == 1.0
    heat[3, 4] = 2.0
    assert points_into(heat, region) == 0.5
    heat[3, 4] = 3.0
    assert points_into(heat, region) == 0.0
    assert math.isnan(points_into(np.zeros((4, 5)), region))
