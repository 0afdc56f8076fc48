from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.ops.crop import crop
from autoseg.ops.patches import grow_box, patch_box, random_box, read_padded, start_range

SIZES = st.tuples(*(st.integers(1, 9) for _ in range(3)))


@pytest.mark.parametrize(("size", "patch", "expected"), [
    (10, 4, (0, 6)),
    (4, 4, (0, 0)),
    (4, 6, (-1, -1)),
    (4, 7, (-2, -1)),  # 3 missing: two before and one behind, or one and two
    (1, 4, (-2, -1)),
])
def test_starts_of_a_patch_by_hand(size, patch, expected):
    assert start_range(size, patch) == expected


@settings(max_examples=100, deadline=None)
@given(SIZES, SIZES, st.integers(0, 99))
def test_random_box_leaves_the_image_only_where_it_must(shape, patch, seed):
    box = random_box(shape, patch, np.random.default_rng(seed))
    for (start, stop), size, width in zip(box, shape, patch, strict=True):
        assert stop - start == width
        assert (start >= 0 and stop <= size) or (start <= 0 and stop >= size)


def test_random_boxes_reach_every_start():
    rng = np.random.default_rng(0)
    starts = {random_box((5, 4, 9), (3, 4, 8), rng)[0][0] for _ in range(100)}
    assert starts == {0, 1, 2}


def test_centre_is_the_middle_voxel_away_from_the_border():
    assert patch_box((20, 21, 22), (4, 5, 6), (10, 10, 10)) == ((8, 12), (8, 13), (7, 13))


@settings(max_examples=100, deadline=None)
@given(SIZES, SIZES, st.data())
def test_patch_around_any_voxel_holds_it(shape, patch, data):
    centre = [data.draw(st.integers(0, size - 1)) for size in shape]
    box = patch_box(shape, patch, centre)
    assert all(start <= middle < stop for (start, stop), middle in zip(box, centre, strict=True))


@settings(max_examples=100, deadline=None)
@given(SIZES, st.tuples(*(st.tuples(st.integers(-6, 6), st.integers(1, 9)) for _ in range(3))))
def test_padded_reading_equals_reading_from_a_padded_image(shape, places):
    box = tuple((start, start + width) for start, width in places)
    voxels = np.arange(2 * np.prod(shape)).reshape(2, *shape) + 1
    padded = np.pad(voxels, ((0, 0), *((6, 15),) * 3), constant_values=-1)
    expected = crop(padded, tuple((start + 6, stop + 6) for start, stop in box))
    result = read_padded(lambda inside: crop(voxels, inside), box, shape, fill=-1)
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == voxels.dtype


def test_grown_box_keeps_its_middle():
    assert grow_box(((2, 6), (0, 3), (5, 6)), (6, 6, 1)) == ((1, 7), (-1, 5), (5, 6))
