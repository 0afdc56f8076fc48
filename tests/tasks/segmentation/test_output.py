from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter

from autoseg.core.budget import Budget
from autoseg.core.geometry import CANONICAL, Geometry, Orientation, as_direction, canonical_orientation
from autoseg.core.image import Image
from autoseg.core.plan import InputPlan, Normalization, Plan
from autoseg.core.spec import DatasetSpec, LabelSpec, LayoutSpec
from autoseg.core.task import Context
from autoseg.io.images import read_image, read_label_map
from autoseg.stages.prepare import prepare_inputs
from autoseg.tasks.segmentation.output import restore, write_prediction
from autoseg.tasks.segmentation.target import (
    Segmentation,
    indices_to_values,
    prepare_target,
    values_to_indices,
)

ALL_48 = [(axes, flips) for axes in permutations(range(3)) for flips in product((False, True), repeat=3)]
SPEC = DatasetSpec("Toy", "segmentation", (LayoutSpec("flat", {"image": ("{case}.nii.gz",)}),),
                   labels=(LabelSpec("far", 90), LabelSpec("near", 4)))
STORED_SHAPE, STORED_SPACING = (21, 26, 31), (2.0, 1.3, 0.9)


def stored_image(axes, flips):
    """A label map and its image as a scanner stored them: with a zero border, axes turned, nothing symmetric."""
    rng = np.random.default_rng(5)
    field = gaussian_filter(rng.normal(size=STORED_SHAPE), 3)
    label = np.where(field > np.quantile(field, 0.8), 1, np.where(field < np.quantile(field, 0.15), 2, 0)).astype(np.uint8)
    voxels = (field / field.std() + 9).astype(np.float32)
    border = np.zeros(STORED_SHAPE, bool)
    border[2:-3, 3:-1, 4:-2] = True
    label, voxels = np.where(border, label, 0), np.where(border, voxels, 0)
    matrix = np.zeros((3, 3))
    for axis, (world, flip) in enumerate(zip(axes, flips, strict=True)):
        matrix[world, axis] = -1.0 if flip else 1.0
    stored = Geometry(STORED_SHAPE, STORED_SPACING, (3.0, -8.0, 21.0), as_direction(matrix))
    orientation = canonical_orientation(stored.direction)
    image = Image(orientation.apply(voxels)[None], orientation.apply_to_geometry(stored), orientation, stored)
    return image, orientation.apply(label), label


def plan_with(configuration, transpose, spacing):
    changed = replace(configuration, spacing_mm=spacing)
    inputs = (InputPlan("image", (Normalization("none"),)),)
    return Plan("p", "Toy", "segmentation", transpose, inputs, {"c": changed}, Budget("cpu", 10**9), {}), changed


@pytest.fixture(scope="module")
def configuration(toy):
    return toy.configuration


@pytest.mark.parametrize(("axes", "flips"), ALL_48)
def test_a_label_map_comes_back_within_one_voxel_from_a_finer_turned_grid(configuration, axes, flips):
    image, canonical, _ = stored_image(axes, flips)
    plan, changed = plan_with(configuration, (2, 0, 1), (0.8, 0.7, 0.6))
    _, record = prepare_inputs({"image": image}, plan, changed)
    on_grid = prepare_target(Segmentation(canonical), record, changed)["label"]
    logits = (on_grid[None] == np.arange(3)[:, None, None, None]).astype(np.float32)
    back = restore(logits, record, changed, Context(probabilities=True))
    for index in (1, 2):
        truth = canonical == index
        cube = np.ones((3, 3, 3))
        assert not (back.label == index)[~binary_dilation(truth, cube)].any()
        assert (back.label == index)[binary_erosion(truth, cube)].all()
    assert back.probabilities.sum(axis=0) == pytest.approx(np.ones(canonical.shape), abs=1e-5)
    assert (back.label[image.voxels[0] == 0] == 0).all()


@pytest.mark.parametrize(("axes", "flips"), ALL_48)
def test_the_file_holds_the_stored_array_with_the_original_values(axes, flips, tmp_path):
    image, canonical, stored_label = stored_image(axes, flips)
    path, = write_prediction(Segmentation(canonical), SPEC, image, tmp_path / "case.nii.gz")
    written = read_label_map(path)
    values = np.array([0, 90, 4])[stored_label]
    assert np.array_equal(written.orientation.undo(written.voxels[0]), values)
    assert written.stored.agrees_with(image.stored)


def test_a_constant_image_stays_constant_on_every_grid(configuration):
    geometry = Geometry((9, 14, 12), (3.0, 1.1, 0.7))
    image = Image(np.full((1, 9, 14, 12), 7.5, np.float32), geometry, Orientation(), geometry)
    plan, changed = plan_with(configuration, (1, 2, 0), (0.9, 0.8, 1.7))
    arrays, record = prepare_inputs({"image": image}, plan, changed)
    assert arrays["image"] == pytest.approx(np.full((1, *record.model_shape), 7.5), abs=1e-4)
    assert record.canonical.direction == CANONICAL


def test_where_labels_tie_the_first_wins_and_outside_the_crop_is_background(configuration):
    geometry = Geometry((4, 5, 6), (1.0, 1.0, 1.0))
    voxels = np.zeros((1, 4, 5, 6), np.float32)
    voxels[0, 1:3, 1:4, 2:5] = 1
    plan, changed = plan_with(configuration, (0, 1, 2), (1.0, 1.0, 1.0))
    _, record = prepare_inputs({"image": Image(voxels, geometry, Orientation(), geometry)}, plan, changed)
    logits = np.zeros((3, *record.model_shape), np.float32)
    logits[1:] = 1
    label = restore(logits, record, changed, Context()).label
    assert np.array_equal(label, voxels[0].astype(np.uint8))


def test_values_that_are_not_consecutive_become_indices_and_come_back():
    values = np.array([[0, 90, 4], [4, 0, 90]])
    indices = values_to_indices(values, SPEC)
    assert indices.tolist() == [[0, 1, 2], [2, 0, 1]]
    assert np.array_equal(indices_to_values(indices, SPEC), values)


def test_a_value_that_is_not_listed_is_refused_with_its_count():
    with pytest.raises(Exception, match=r"label values 5 \(2 voxels\).*90 far, 4 near"):
        values_to_indices(np.array([0, 5, 5, 4]), SPEC)


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_a_picture_gets_a_label_map_of_its_own_format_and_probabilities_as_float_tiff(tmp_path, ending):
    label = np.array([[[0, 1, 2], [2, 0, 1]]], np.uint8)
    probabilities = np.random.default_rng(0).random((3, 1, 2, 3)).astype(np.float32)
    image = Image.canonical(probabilities[:1], Geometry((1, 2, 3), (1.0, 1.0, 1.0)))
    written = write_prediction(Segmentation(label, probabilities), SPEC, image, tmp_path / f"a{ending}")
    assert [path.name for path in written] == [f"a{ending}", "a_probabilities.tif"]
    assert read_label_map(written[0]).voxels.tolist() == [[[[0, 90, 4], [4, 0, 90]]]]
    np.testing.assert_array_equal(read_image([written[1]]).voxels, probabilities)
