from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from autoseg.core.errors import GeometryError
from autoseg.metrics.overlap import dice, iou, volume_ml

EMPTY = np.zeros((5, 6, 7), bool)
MASKS = hnp.arrays(bool, (2, 3, 4))


def cube(z: int) -> np.ndarray:
    mask = EMPTY.copy()
    mask[z:z + 2, 1:3, 2:4] = True
    return mask


def test_cubes_that_share_half_have_dice_one_half_and_iou_one_third():
    assert dice(cube(0), cube(1)) == 0.5
    assert iou(cube(0), cube(1)) == pytest.approx(1 / 3)


@pytest.mark.parametrize("score", [dice, iou])
def test_both_empty_is_undefined_and_one_empty_is_zero(score):
    assert math.isnan(score(EMPTY, EMPTY))
    assert score(EMPTY, cube(0)) == 0
    assert score(cube(0), EMPTY) == 0


@pytest.mark.parametrize("score", [dice, iou])
def test_equal_masks_score_one(score):
    one_voxel = EMPTY.copy()
    one_voxel[4, 5, 6] = True
    for mask in (cube(2), one_voxel, ~EMPTY):
        assert score(mask, mask) == 1


@settings(deadline=None)
@given(MASKS, MASKS)
def test_scores_are_symmetric_and_dice_follows_from_iou(first, second):
    assert dice(first, second) == dice(second, first) or not (first | second).any()
    if (first | second).any():
        overlap = iou(first, second)
        assert dice(first, second) == pytest.approx(2 * overlap / (1 + overlap))


def test_volume_counts_millilitres():
    assert volume_ml(cube(0), (3.0, 2.0, 0.5)) == pytest.approx(8 * 3 / 1000)
    assert volume_ml(EMPTY, (3.0, 2.0, 0.5)) == 0


def test_other_shape_is_refused_with_both_shapes():
    with pytest.raises(GeometryError, match=r"\(5, 6, 7\).*\(1, 2, 3\)"):
        dice(EMPTY, np.zeros((1, 2, 3), bool))
