from __future__ import annotations

import tracemalloc
from dataclasses import replace
from itertools import combinations, permutations, product

import numpy as np
import pytest
import torch
from naive import margin, naive_case_logits, naive_logits, naive_restore
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter
from scipy.special import softmax

from autoseg.core.budget import Budget
from autoseg.core.geometry import CANONICAL, Geometry, Orientation, as_direction, canonical_orientation
from autoseg.core.image import Image
from autoseg.core.plan import InputPlan, Normalization, Plan
from autoseg.core.spec import DatasetSpec, LabelSpec, LayoutSpec
from autoseg.core.task import Context
from autoseg.io.images import read_image, read_label_map
from autoseg.ops.crop import crop
from autoseg.ops.slabs import LogitSlabs
from autoseg.stages.prepare import prepare_inputs
from autoseg.tasks.segmentation.output import infer, restore, write_prediction
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


@pytest.mark.parametrize(("value", "dtype"), [
    (90, np.uint8), (300, np.int16), (60_000, np.uint16), (-2, np.int16), (70_000, np.int32)])
def test_a_label_map_is_written_in_the_smallest_type_that_holds_its_values(tmp_path, value, dtype):
    geometry = Geometry((2, 3, 4), (1.0, 1.0, 1.0))
    label = np.zeros(geometry.shape, np.uint8)
    label[1, 2, 3] = 1
    spec = replace(SPEC, labels=(LabelSpec("far", value), LabelSpec("near", 4)))
    path, = write_prediction(Segmentation(label), spec, Image.canonical(label[None], geometry), tmp_path / "case.nii.gz")
    read = read_label_map(path)
    assert read.voxels[0, 1, 2, 3] == value
    assert np.count_nonzero(read.voxels) == 1
    assert read.voxels.dtype == dtype


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


GRIDS = {  # transpose, model spacing mm; the case has 2.0, 1.3, 0.9 mm
    "model grid is case grid": ((0, 1, 2), (2.0, 1.3, 0.9)),
    "the same, turned": ((2, 0, 1), (0.9, 2.0, 1.3)),
    "coarser": ((0, 1, 2), (2.6, 2.4, 2.2)),
    "finer, turned": ((1, 2, 0), (0.8, 0.7, 1.2)),
    "separate z, up and down": ((0, 1, 2), (3.9, 0.9, 1.1)),
    "separate y": ((2, 0, 1), (0.9, 4.1, 1.3)),
}


def random_networks(count, dims):
    convolution = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[dims]
    torch.manual_seed(7)
    return [convolution(1, 4, 3, padding=1) for _ in range(count)]


def planned(configuration, *, dims=3, patch=(8, 12, 10), mirror_axes=(), tiles_per_batch=3):
    patch = (1, *patch[1:]) if dims == 2 else patch
    return replace(configuration, patch_size=patch, network=replace(configuration.network, dims=dims, out_channels=4),
                   inference=replace(configuration.inference, mirror_axes=mirror_axes, mirror=bool(mirror_axes),
                                     tiles_per_batch=tiles_per_batch, precision="fp32"))


def naive_label(networks, arrays, record, changed, mirror_axes):
    """Everything at once: all windows, all logits on the case grid."""
    rules = changed.inference

    def forward(windows):
        flips = [flip for count in range(len(mirror_axes) + 1) for flip in combinations([a - 3 for a in mirror_axes], count)]
        return torch.stack([torch.stack([net(windows.flip(f)).flip(f) for f in flips]).mean(0) for net in networks]).mean(0)

    logits = naive_logits(forward, arrays["image"], patch_size=changed.patch_size, tile_step=rules.tile_step,
                          gaussian_sigma=rules.gaussian_sigma, tiles_per_batch=rules.tiles_per_batch, out_channels=4,
                          dims=changed.network.dims)
    return naive_restore(logits, record, changed.resampling), margin(naive_case_logits(logits, record, changed.resampling))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("members", "setting"), [
    (1, {}), (3, {"dims": 2}), (1, {"patch": (30, 40, 50)}), (2, {"mirror_axes": (1, 2)}),
    (1, {"dims": 2, "mirror_axes": (1,), "tiles_per_batch": 1})])
def test_labels_of_slabs_are_those_of_everything_at_once(configuration, grid, setting, members):
    image, *_ = stored_image((1, 0, 2), (False, True, False))
    transpose, spacing = GRIDS[grid]
    plan, changed = plan_with(planned(configuration, **setting), transpose, spacing)
    _, record = prepare_inputs({"image": image}, plan, changed)
    arrays = {"image": gaussian_filter(np.random.default_rng(1).normal(size=(1, *record.model_shape)), 0.8).astype(np.float32)}
    networks = random_networks(members, changed.network.dims)
    label = restore(infer(networks, arrays, changed, Context()), record, changed, Context()).label
    expected, two_largest = naive_label(networks, arrays, record, changed, changed.inference.mirror_axes)
    assert len(np.unique(expected)) > 2
    differs = crop(label != expected, record.crop_box).transpose(record.transpose)
    assert np.count_nonzero(differs) <= 1
    assert two_largest[differs].max(initial=0) < 1e-6


def test_probabilities_are_those_of_whole_logits_and_go_with_the_label(configuration):
    image, *_ = stored_image((1, 0, 2), (False, True, False))
    plan, changed = plan_with(planned(configuration), (1, 2, 0), (0.8, 0.7, 1.2))
    arrays, record = prepare_inputs({"image": image}, plan, changed)
    logits = infer(random_networks(1, 3), arrays, changed, Context()).whole()
    prediction = restore(logits, record, changed, Context(probabilities=True))
    expected = softmax(naive_case_logits(logits, record, changed.resampling), axis=0).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(crop(prediction.probabilities, record.crop_box), expected, atol=1e-5)
    assert prediction.probabilities.dtype == np.float32
    assert (prediction.probabilities.argmax(axis=0) == prediction.label).all()
    outside = np.ones(record.canonical.shape, bool)
    crop(outside, record.crop_box)[...] = False
    assert (prediction.probabilities[:, outside] == np.eye(1, 4).T).all()


def test_splines_of_higher_order_are_taken_where_the_plan_asks_for_them(configuration):
    image, *_ = stored_image((1, 0, 2), (False, True, False))
    changed = replace(planned(configuration), resampling=replace(configuration.resampling, output_order=3))
    plan, changed = plan_with(changed, (1, 2, 0), (0.8, 0.7, 1.2))
    _, record = prepare_inputs({"image": image}, plan, changed)
    logits = np.random.default_rng(0).normal(size=(4, *record.model_shape)).astype(np.float32)
    label = restore(LogitSlabs.of(logits), record, changed, Context()).label
    np.testing.assert_array_equal(label, naive_restore(logits, record, changed.resampling))


def test_no_array_of_all_classes_on_the_case_grid_is_made(configuration):
    geometry = Geometry((60, 110, 120), (1.0, 1.0, 1.0))
    image = Image.canonical(np.ones((1, *geometry.shape), np.float32), geometry)
    plan, changed = plan_with(configuration, (0, 1, 2), (1.5, 1.4, 1.6))
    _, record = prepare_inputs({"image": image}, plan, changed)
    classes, field = 40, gaussian_filter(np.random.default_rng(0).normal(size=(40, 1, 9, 9)), (0, 0, 1, 1))
    shape = (classes, *record.model_shape)

    def parts():
        for _ in range(shape[1]):
            yield np.ascontiguousarray(np.resize(field, (classes, 1, *shape[2:])), np.float32)

    tracemalloc.start()
    restore(LogitSlabs(shape, parts()), record, changed, Context())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.4 * 4 * classes * np.prod(shape[1:])  # a fraction even of the logits on the model grid
