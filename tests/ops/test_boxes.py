"""Boxes between the model's grid, the canonical image and the file: as masks would go the same way."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from autoseg.core.geometry import Geometry, GridRecord, Orientation
from autoseg.ops.boxes import canonical_sides, stored_box

STORED = (5, 7, 9)


def extent(mask):
    return tuple((int(places.min()), int(places.max()) + 1) for places in np.nonzero(mask))


def painted(shape, box):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*side) for side in box)] = True
    return mask


def record_of(orientation, transpose=(0, 1, 2), crop_box=None, model_shape=None):
    canonical = orientation.apply(np.empty(STORED)).shape
    crop_box = crop_box or tuple((0, size) for size in canonical)
    turned = tuple(crop_box[axis][1] - crop_box[axis][0] for axis in transpose)
    # a direction that this orientation makes canonical is not needed: shapes decide where boxes lie
    return GridRecord(Geometry(STORED, (1.0, 1.0, 1.0)), orientation, crop_box, transpose, model_shape or turned, (1.0, 1.0, 1.0))


@pytest.mark.parametrize("axes", list(permutations(range(3))))
def test_a_box_lies_where_its_mask_does_in_all_orientations(axes):
    box = ((1, 2), (0, 3), (2, 4))
    for flips, transpose in product(product((False, True), repeat=3), ((0, 1, 2), (2, 0, 1))):
        orientation = Orientation(axes, flips)
        canonical = np.zeros(orientation.apply(np.empty(STORED)).shape, bool)
        crop_box = ((1, canonical.shape[0]), (0, canonical.shape[1]), (0, canonical.shape[2]))
        inside = canonical[1:].transpose(transpose)
        inside[...] = painted(inside.shape, box)
        record = record_of(orientation, transpose, crop_box)
        expected = extent(orientation.undo(canonical))
        assert stored_box(box, record) == expected
        assert canonical_sides(expected, orientation, STORED) == extent(canonical)


def test_a_box_on_a_coarser_grid_holds_every_voxel_that_it_touches():
    record = record_of(Orientation(), model_shape=(5, 4, 3))
    # of 4 cells over 7 voxels the second reaches from 1.75 to 3.5; of 3 over 9 the last two from 3 to 9
    assert stored_box(((0, 5), (1, 2), (1, 3)), record) == ((0, 5), (1, 4), (3, 9))


def test_sides_may_lie_between_voxels():
    turned = Orientation((0, 1, 2), (False, True, False))
    assert canonical_sides(((0, 1), (1.5, 3), (2, 2.5)), turned, STORED) == ((0, 1), (4, 5.5), (2, 2.5))
