"""What the command `explain` makes of a unit, with networks whose explanation is known."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from tasks.classification.configurations import make_configuration
from tasks.classification.sets import binary, make_spec
from torch import nn

from autoseg.core.case import Case, Unit
from autoseg.core.errors import UsageError
from autoseg.core.geometry import Geometry, GridRecord, Orientation
from autoseg.core.report import Record
from autoseg.core.spec import ChannelSpec, InputSpec
from autoseg.core.verb import Opened
from autoseg.inference.explain import Ensemble
from autoseg.io.images import read_image
from autoseg.tasks.classification.evidence import chosen_method, explain_of, on_case_grid
from autoseg.tasks.classification.explain import begin, tell
from autoseg.tasks.classification.heat import WARNING, chosen_units
from autoseg.tasks.classification.kinds import Kind
from autoseg.tasks.classification.network import build_network

SPEC = replace(make_spec("ill"), inputs=(InputSpec(channels=(ChannelSpec("MRI"),)),))
TRANSPOSE = (1, 0, 2)


class Itself(nn.Module):
    """The logit is the mean of the image, so that the image is its own map, whatever was learnt: nothing was."""

    has_maps = True

    def features(self, image):
        return image

    def maps(self, image):
        return image

    def forward(self, image):
        return self.features(image).flatten(2).mean(2)


def stored(folder: Path, name: str, shape=(9, 8, 1)) -> Path:
    """A NIfTI file whose axes run to the front, the left and below."""
    voxels = np.random.default_rng(len(name)).normal(0, 1, shape).astype(np.float32)
    affine = np.zeros((4, 4))
    affine[1, 0], affine[0, 1], affine[2, 2], affine[:, 3] = 2.0, -3.0, -4.0, (10, 20, 30, 1)
    nib.save(nib.Nifti1Image(voxels, affine), folder / f"{name}.nii.gz")
    return folder / f"{name}.nii.gz"


def opened_with(networks, images, *, answer=None, configuration=None, refinements=()):
    """Networks whose model grid is that of the images, with two of the axes exchanged."""
    shape = tuple(images[0].geometry.shape[axis] for axis in TRANSPOSE)
    configuration = configuration or make_configuration(("ill", Kind.BINARY, ("no", "yes")), size=shape)

    def prepare(inputs):
        image = inputs["image"]
        whole = tuple((0, size) for size in image.geometry.shape)
        record = GridRecord(image.stored, image.orientation, whole, TRANSPOSE, shape, (1.0, 1.0, 1.0))
        return {"image": image.voxels.transpose(0, *(1 + axis for axis in TRANSPOSE))}, record

    return Opened(SPEC, configuration, networks, "cpu", prepare, lambda inputs: answer or binary(0.8), refinements)


def unit_of(*paths):
    cases = tuple(Case(path.name.removesuffix(".nii.gz"), "p", {"image": (path,)}) for path in paths)
    return Unit("exam" if len(cases) > 1 else cases[0].id, cases, "p")


def made_of(folder, paths, networks, answer=None, **options):
    images = {"image" if place == 0 else f"image@{place}": read_image([path]) for place, path in enumerate(paths)}
    work = begin(**options)(opened_with(networks, list(images.values()), answer=answer))
    unit = unit_of(*paths)
    return work(unit, images, folder / "out" / unit.id)


@pytest.mark.parametrize("shape", [(5, 6, 7), (9, 8, 1)])
def test_a_map_lies_voxel_by_voxel_on_its_file(tmp_path, shape):
    path = stored(tmp_path, "a", shape)
    made = made_of(tmp_path, [path], [Itself()], faithfulness=False)
    heat, image = nib.load(next(file for file in made.files if file.name.endswith(".nii.gz"))), nib.load(path)
    np.testing.assert_allclose(heat.get_fdata(), image.get_fdata(), atol=1e-6)
    np.testing.assert_allclose(heat.affine, image.affine, atol=1e-5)
    assert sum(file.suffix == ".png" for file in made.files) == (1 if 1 in shape else 3)


def test_evidence_for_the_first_of_two_classes_is_the_map_turned_over(tmp_path):
    path = stored(tmp_path, "a")
    made = made_of(tmp_path, [path], [Itself()], answer=binary(0.1), faithfulness=False)
    heat = nib.load(next(file for file in made.files if file.name.endswith(".nii.gz")))
    np.testing.assert_allclose(heat.get_fdata(), -nib.load(path).get_fdata(), atol=1e-6)
    (row,) = made.rows
    assert (row["class"], row["probability"], row["verdict"], row["method"]) == ("no", 0.9, "not checked", "activation_map")
    assert math.isnan(row["similarity"])


def test_members_are_averaged(tmp_path):
    class Twice(Itself):
        def maps(self, image):
            return 3 * image

        def forward(self, image):
            return 3 * super().forward(image)

    path = stored(tmp_path, "a")
    made = made_of(tmp_path, [path], [Itself(), Twice()], faithfulness=False)
    np.testing.assert_allclose(nib.load(made.files[0]).get_fdata(), 2 * nib.load(path).get_fdata(), rtol=1e-5, atol=1e-6)


def test_what_does_not_depend_on_the_network_is_said_not_to_be_faithful_everywhere(tmp_path):
    made = made_of(tmp_path, [stored(tmp_path, "a")], [Itself()])
    (row,) = made.rows
    assert row["verdict"] == "not faithful" and row["similarity"] == pytest.approx(1.0)
    assert 0 < row["deletion"] < row["insertion"] < 1
    written = json.loads((tmp_path / "out" / "a" / "explanation.json").read_text())["explanations"]
    assert [entry["verdict"] for entry in written] == ["not faithful"]
    text = tell([{"case": "a", **{name: str(value) for name, value in row.items()}}])
    assert "1 heat map(s) by activation_map: 1 not faithful" in text and "NOT FAITHFUL  a, ill: yes" in text
    pictures = [np.asarray(PillowImage.open(file)) for file in made.files if file.suffix == ".png"]
    assert len(pictures) == 1
    assert all((picture == WARNING).all(axis=2).any() for picture in pictures)
    plain = made_of(tmp_path, [stored(tmp_path, "b")], [Itself()], faithfulness=False)
    calm = [np.asarray(PillowImage.open(file)) for file in plain.files if file.suffix == ".png"]
    assert not any((picture == WARNING).all(axis=2).any() for picture in calm)


def test_every_image_of_an_exam_has_its_own_map(tmp_path):
    paths = [stored(tmp_path, "a"), stored(tmp_path, "bb")]
    made = made_of(tmp_path, paths, [Itself()], faithfulness=False)
    assert [row["image"] for row in made.rows] == ["a", "bb"]
    for row, path in zip(made.rows, paths, strict=True):
        found = nib.load(tmp_path / "out" / "exam" / row["file"]).get_fdata()
        np.testing.assert_allclose(found, nib.load(path).get_fdata(), atol=1e-6)
    assert len(made.files) == len(set(made.files)) == 2 * 2 + 1


@pytest.mark.parametrize("method", ["auto", "grad_cam", "integrated_gradients", "occlusion"])
@pytest.mark.parametrize(("size", "slices"), [((1, 16, 12), False), ((4, 16, 12), True), ((8, 12, 10), False)])
def test_every_method_explains_pictures_slices_and_volumes(method, size, slices):
    configuration = make_configuration(("ill", Kind.BINARY, ("no", "yes")), size=size, slices=slices)
    torch.manual_seed(1)
    network = build_network(configuration).eval()
    opened = Opened(SPEC, configuration, [network], "cpu", None, None)
    image = torch.randn(1, 1, *(size[1:] if size[0] == 1 else size))
    chosen = chosen_method(method, opened)
    found = explain_of(chosen, configuration, against=False)(Ensemble([network]), image, 0)
    assert found.shape == image.shape[2:] and on_case_grid(found, record_of(size)).shape == size and np.isfinite(found).all()
    assert np.ptp(found) > 0 and chosen == ("activation_map" if method == "auto" else method)


def record_of(size, model=None, crop_box=None):
    whole, ones = tuple((0, side) for side in size), (1.0, 1.0, 1.0)
    return GridRecord(Geometry(size, ones), Orientation(), crop_box or whole, (0, 1, 2), model or size, ones)


def test_a_map_of_a_coarser_grid_is_interpolated_and_outside_of_the_crop_there_is_none():
    record = record_of((2, 6, 8), (2, 3, 2), ((0, 2), (0, 6), (4, 8)))
    heat = on_case_grid(np.ones((2, 3, 2), np.float32), record)
    assert (heat[..., 4:] == 1).all() and (heat[..., :4] == 0).all()


def test_a_network_without_places_is_explained_by_grad_cam():
    network = Itself()
    network.has_maps = False
    opened = Opened(SPEC, make_configuration(("ill", Kind.BINARY, ("no", "yes"))), [network], "cpu", None, None)
    assert chosen_method("auto", opened) == "grad_cam"
    with pytest.raises(UsageError, match="has no class activation maps") as error:
        chosen_method("activation_map", opened)
    assert "--method grad_cam" in error.value.hint
    with pytest.raises(UsageError, match="method 'gradcam' is not known.*Did you mean 'grad_cam'"):
        chosen_method("gradcam", opened)


@pytest.mark.parametrize(("options", "message"), [
    ({"target": "sick"}, "target 'sick' is not known"), ({"class_": "maybe"}, "class 'maybe' is not known; known are no, yes"),
    ({"method": "magic"}, "method 'magic' is not known")])
def test_names_that_do_not_exist_are_refused_before_any_image_is_read(tmp_path, options, message):
    opened = opened_with([Itself()], [read_image([stored(tmp_path, "a")])])
    with pytest.raises(UsageError, match=message):
        begin(**options)(opened)


def test_odd_names_of_classes_give_plain_names_of_files(tmp_path):
    image = read_image([stored(tmp_path, "a")])
    names = ("../no", "=2+5|'")
    size = tuple(image.geometry.shape[axis] for axis in TRANSPOSE)
    configuration = make_configuration(("ill/er", Kind.BINARY, names), size=size)
    answer = replace(binary(0.9, "ill/er"), readings=(replace(binary(0.9, "ill/er").readings[0], classes=names),))
    work = begin(faithfulness=False)(opened_with([Itself()], [image], answer=answer, configuration=configuration))
    made = work(unit_of(tmp_path / "a.nii.gz"), {"image": image}, tmp_path / "out")
    assert {file.parent for file in made.files} == {tmp_path / "out"} and made.rows[0]["file"] == "ill-er_1_2-5.nii.gz"


def test_the_report_shows_the_worst_the_median_and_the_best_units():
    scores = (3.0, 1.0, 2.0, 7.0, 6.0, 5.0, 4.0, 0.0, math.nan)
    records = [Record(f"c{place}", {"mean.log_score": score}) for place, score in enumerate(scores)]
    assert chosen_units(records) == ["c7", "c1", "c2", "c0", "c6", "c3"]
    assert chosen_units(records[:1]) == ["c0"] and chosen_units([]) == []
    boxed = [*records, *(Record(name, {"mean.log_score": 9.0, "ill.yes.iobb": overlap}) for name, overlap in
                         (("d0", 0.4), ("d1", 0.1)))]
    assert chosen_units(boxed) == ["d1", "d0"]


def test_the_cheap_model_is_not_explained(tmp_path):
    images = [read_image([stored(tmp_path, "a")])]
    with pytest.raises(UsageError, match="predicts with the cheap model alone"):
        begin()(opened_with([Itself()], images, refinements=("baseline_alone",)))
    work = begin(faithfulness=False)(opened_with([Itself()], images, refinements=("average_with_baseline", "temperature")))
    made = work(unit_of(tmp_path / "a.nii.gz"), {"image": images[0]}, tmp_path / "out")
    text = tell([{"case": "a", **{name: str(value) for name, value in made.rows[0].items()}}])
    assert made.rows[0]["answered_by"] == "mean of network and cheap model" and "the maps explain the network" in text


def test_nothing_is_told_of_no_map():
    assert tell([]) == "0 heat map(s)"
