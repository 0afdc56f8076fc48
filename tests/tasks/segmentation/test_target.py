from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoseg.core.case import Case, Unit
from autoseg.core.errors import DatasetError, GeometryError
from autoseg.core.geometry import Geometry
from autoseg.core.image import Image
from autoseg.io.images import write_label_map
from autoseg.ops.crop import crop
from autoseg.stages.prepare import prepare_inputs, read_inputs
from autoseg.tasks.segmentation.target import prepare_target, read_target


def moved_label(toy, folder, shift_mm):
    """The first unit with its label map stored again on a grid that is shifted."""
    unit = toy.workspace.units[0]
    image = next(iter(read_inputs(unit, toy.workspace.spec).values()))
    z, y, x = image.geometry.origin_mm
    grid = Geometry(image.geometry.shape, image.geometry.spacing_mm, (z + shift_mm, y, x))
    values = np.array([0, 7, 3])[read_target(unit, toy.workspace.spec).label]
    write_label_map(folder / "label.nii.gz", values, Image.canonical(image.voxels, grid))
    case = replace(unit.cases[0], targets={"label": folder / "label.nii.gz"})
    return replace(unit, cases=(case,))


def test_a_label_map_beside_its_image_is_refused_also_when_the_shapes_agree(toy, tmp_path):
    with pytest.raises(GeometryError, match="label.nii.gz"):
        read_target(moved_label(toy, tmp_path, 2.0), toy.workspace.spec)
    assert read_target(moved_label(toy, tmp_path, 0.0), toy.workspace.spec).label.any()


def test_a_reference_without_its_image_can_be_read_for_evaluation(toy):
    path = toy.workspace.units[0].cases[0].targets["label"]
    alone = Unit("a", (Case("a", "a", {}, {"label": path}),), "a")
    expected = read_target(toy.workspace.units[0], toy.workspace.spec).label
    assert np.array_equal(read_target(alone, toy.workspace.spec).label, expected)


def test_a_case_without_reference_has_no_target(toy):
    unit = toy.workspace.units[0]
    assert read_target(replace(unit, cases=(replace(unit.cases[0], targets={}),)), toy.workspace.spec) is None


def test_an_unlisted_value_names_the_file(toy, tmp_path):
    unit = toy.workspace.units[0]
    image = next(iter(read_inputs(unit, toy.workspace.spec).values()))
    write_label_map(tmp_path / "odd.nii.gz", np.full(image.geometry.shape, 9), image)
    odd = replace(unit, cases=(replace(unit.cases[0], targets={"label": tmp_path / "odd.nii.gz"}),))
    with pytest.raises(DatasetError, match=r"odd.nii.gz: label values 9"):
        read_target(odd, toy.workspace.spec)


def test_places_point_at_their_label_on_the_model_grid(toy):
    unit = toy.workspace.units[0]
    configuration = replace(toy.configuration, spacing_mm=(0.7, 1.3, 0.9))
    inputs = read_inputs(unit, toy.workspace.spec)
    _, record = prepare_inputs(inputs, toy.plan, configuration)
    arrays = prepare_target(read_target(unit, toy.workspace.spec), record, configuration)
    assert arrays["label"].shape == record.model_shape
    for index in (1, 2):
        places = arrays[f"places_{index}"]
        assert len(places) == (arrays["label"] == index).sum()
        assert (arrays["label"][tuple(places.T)] == index).all()


def test_on_its_own_grid_the_label_map_is_the_crop_itself(toy):
    unit = toy.workspace.units[0]
    target = read_target(unit, toy.workspace.spec)
    _, record = prepare_inputs(read_inputs(unit, toy.workspace.spec), toy.plan, toy.configuration)
    assert np.array_equal(prepare_target(target, record, toy.configuration)["label"],
                          crop(target.label, record.crop_box).transpose(record.transpose))
