from __future__ import annotations

import numpy as np
import pytest
from pair_cases import SHAPE, blobs

from autoseg.core.errors import GeometryError
from autoseg.core.geometry import Geometry, GridRecord, canonical_orientation
from autoseg.ops.displacement import warp
from autoseg.tasks.registration.frame import cut, frame_of, model_geometry, place_pair, world_displacement


def record(shape=SHAPE, spacing=(2.0, 1.5, 1.0), origin=(0.0, 0.0, 0.0), box=None, transpose=(0, 1, 2), model=None):
    grid = Geometry(shape, spacing, origin)
    box = box or tuple((0, size) for size in shape)
    turned = [box[axis][1] - box[axis][0] for axis in transpose]
    model = model or tuple(turned)
    mm = tuple(spacing[axis] * size / new for axis, size, new in zip(transpose, turned, model, strict=True))
    return GridRecord(grid, canonical_orientation(grid.direction), box, transpose, model, mm)


def test_the_model_grid_lies_where_its_crop_does():
    found = model_geometry(record(box=((3, 15), (0, 20), (4, 24)), transpose=(2, 0, 1), model=(10, 6, 10)))
    # Along model axis 0 (x): 20 voxels of 1 mm from index 4 on become 10 of 2 mm; the first centre lies between 4 and 5.
    assert found.shape == (10, 6, 10) and found.spacing_mm == pytest.approx((2.0, 4.0, 3.0))
    assert found.position_mm((0, 0, 0)) == pytest.approx((3.5 * 2, 0.5 * 1.5, 4.5))
    assert found.position_mm((1, 0, 0)) == pytest.approx((7.0, 0.75, 6.5))


def test_a_frame_takes_the_middle_and_says_where_that_is():
    array = np.arange(5 * 6 * 7, dtype=np.float32).reshape(1, 5, 6, 7)
    inside = cut(array, (3, 8, 7))
    assert inside.shape == (1, 3, 8, 7)
    assert np.array_equal(inside[0, :, 1:7], array[0, 1:4]) and np.array_equal(inside[0, :, 0], inside[0, :, 1])
    labels = cut(np.ones((1, 2, 2, 2), np.uint8), (4, 4, 4))
    assert labels.sum() == 8 and labels[0, 1:3, 1:3, 1:3].all()
    grid = Geometry((5, 6, 7), (2.0, 1.0, 1.0), (10.0, 0.0, 0.0))
    assert frame_of(grid, (3, 8, 7)).origin_mm == (12.0, -1.0, 0.0)


@pytest.mark.parametrize("alignment", ["centres", "positions"])
@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
def test_a_displacement_in_the_frame_brings_the_moving_image_onto_the_fixed_one(alignment, transpose):
    whole = blobs((32, 36, 40))
    fixed, moving = whole[8:24, 8:28, 8:32], whole[9:25, 7:27, 8:32]  # moving voxel v shows what fixed v + (1, -1, 0) shows
    records = (record(transpose=transpose), record(transpose=transpose, origin=(4.0, -3.0, 1.0)))
    turned = [array.transpose(transpose)[None] for array in (fixed, moving)]
    size = tuple(side + 4 for side in turned[0].shape[1:])
    placed = place_pair({"image": turned[0]}, {"image": turned[1]}, records, size, alignment)
    known = np.array([-1.0, 1.0, 0.0]) * (2.0, 1.5, 1.0) + (4.0, -3.0, 1.0)  # mm from a fixed point to the moving one
    step = known if alignment == "positions" else known - (4.0, -3.0, 1.0)
    in_voxels = (step / (2.0, 1.5, 1.0))[list(transpose)].astype(np.float32)
    steps = np.broadcast_to(in_voxels[:, None, None, None], (3, *placed.fixed["image"].shape[1:])).copy()
    found = world_displacement(steps, placed, records[0].canonical)
    assert found == pytest.approx(np.broadcast_to(known[:, None, None, None], found.shape), abs=1e-4)
    warped = warp(moving[None], records[1].canonical, found, records[0].canonical, interpolation="linear", outside=None)
    assert warped[0, 2:-2, 2:-2, 2:-2] == pytest.approx(fixed[2:-2, 2:-2, 2:-2], abs=1e-4)


def test_images_that_have_no_place_in_common_cannot_start_from_positions():
    records = (record(), record(origin=(500.0, 0.0, 0.0)))
    array = {"image": blobs()[None]}
    with pytest.raises(GeometryError, match="do not overlap.*500"):
        place_pair(array, array, records, SHAPE, "positions")
    assert place_pair(array, array, records, SHAPE, "centres").moving["image"].shape == (1, *SHAPE)
