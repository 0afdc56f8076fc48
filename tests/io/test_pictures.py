"""Datasets of PNG, BMP and TIFF files: scanning, checking, and finding what to predict."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import tifffile
from PIL import Image as PillowImage

from autoseg.core.case import Unit
from autoseg.core.spec import ChannelSpec, DatasetSpec, InputSpec, LabelSpec, LayoutSpec
from autoseg.io.dataset import check_case, list_inputs, scan
from autoseg.io.foreign import read_dataset_json
from autoseg.io.images import files_by_case
from autoseg.stages.fingerprint import digest_unit

GREY = np.arange(15, dtype=np.uint8).reshape(3, 5)
COLOUR = np.arange(45, dtype=np.uint8).reshape(3, 5, 3)
MASK = (GREY > 7).astype(np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels, photometric="rgb" if pixels.shape[-1] == 3 else "minisblack")
    else:
        PillowImage.fromarray(pixels).save(path)


def nnunet_folder(folder, channels, ending):
    document = {"channel_names": {str(i): name for i, name in enumerate(channels)}, "numTraining": 2, "file_ending": ending,
                "labels": {"background": 0, "cell": 1}}
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(document))
    return folder


def grey_spec(ending=".png", channels=("grey",), values=(1,)):
    patterns = (f"images/{{case}}{ending}",) if len(channels) != 2 else tuple(f"images/{{case}}_{c}{ending}" for c in channels)
    return DatasetSpec("Cells", "segmentation", (LayoutSpec("flat", {"image": patterns}, {"label": f"masks/{{case}}{ending}"}),),
                       (InputSpec(channels=tuple(ChannelSpec(name) for name in channels)),),
                       tuple(LabelSpec(f"label_{value}", value) for value in values))


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_nnunets_colour_files_are_one_file_of_three_channels(tmp_path, ending):
    folder = nnunet_folder(tmp_path / "Dataset001_Cells", ("R", "G", "B"), ending)
    for case in ("a", "b"):
        save(folder / f"imagesTr/{case}_0000{ending}", COLOUR)
        save(folder / f"labelsTr/{case}{ending}", MASK)
    spec = read_dataset_json(folder)
    assert spec.layouts[0].inputs == {"image": (f"imagesTr/{{case}}_0000{ending}",)}
    found = scan(spec, folder)
    assert [case.id for case in found.cases] == ["a", "b"] and found.problems == () and found.ignored == ()
    assert [problem for case in found.cases for problem in check_case(spec, case)] == []
    assert [case.id for case in list_inputs(spec, folder / "imagesTr").cases] == ["a", "b"]


def test_one_file_per_channel_stays_one_file_per_channel(tmp_path):
    folder = nnunet_folder(tmp_path / "Dataset001_Cells", ("DAPI", "FITC", "TRITC"), ".png")
    for channel in range(3):
        save(folder / f"imagesTr/a_000{channel}.png", GREY + channel)
    save(folder / "imagesTr/b_0000.png", GREY)
    save(folder / "labelsTr/a.png", MASK)
    save(folder / "labelsTr/b.png", MASK)
    found = scan(read_dataset_json(folder), folder)
    assert [case.id for case in found.cases] == ["a"]
    assert {(problem.case, problem.code) for problem in found.problems} == {("b", "E_CHANNEL_MISSING")}


def test_colour_files_are_found_for_prediction_whatever_they_are_called(tmp_path):
    spec = grey_spec(channels=("red", "green", "blue"))
    save(tmp_path / "new/one.bmp", COLOUR)
    save(tmp_path / "new/two.tif", COLOUR)
    assert [case.id for case in list_inputs(spec, tmp_path / "new").cases] == ["one", "two"]
    assert list_inputs(spec, tmp_path / "new/one.bmp").cases[0].id == "one"


def test_a_preview_beside_a_volume_is_not_a_case(tmp_path):
    for name in ("a.nii.gz", "a.png", "b.nii.gz"):
        (tmp_path / name).touch()
    volumes = DatasetSpec("V", "segmentation", (LayoutSpec("v", {"image": ("ct/{case}_ct.nii.gz",)}),))
    found = list_inputs(volumes, tmp_path)
    assert [case.id for case in found.cases] == ["a", "b"] and found.problems == ()
    assert [case.id for case in list_inputs(grey_spec(), tmp_path).cases] == ["a"]


@pytest.mark.parametrize(("mask", "values", "words"), [
    (MASK * 255, (1,), None),
    (MASK * 255, (255,), None),
    (MASK * 255, (1, 2), r"label values 255 \(\d+ voxels\) are not in the specification"),
    (MASK * 200, (1,), r"label values 200 \(\d+ voxels\) are not in the specification"),
    (np.repeat(MASK[:, :, None], 3, axis=2) * 255, (1,), None),
    (COLOUR, (1,), "colour image.*8-bit greyscale"),
])
def test_check_understands_masks_of_white_and_lists_other_values(tmp_path, mask, values, words):
    spec = grey_spec(values=values)
    save(tmp_path / "images/a.png", GREY)
    save(tmp_path / "masks/a.png", mask)
    problems = check_case(spec, scan(spec, tmp_path).cases[0])
    if words is None:
        assert problems == ()
    else:
        [problem] = problems
        assert re.search(words, problem.message), problem.message


def test_spacing_files_belong_to_the_cases(tmp_path):
    save(tmp_path / "images/a.tif", GREY)
    save(tmp_path / "masks/a.tif", MASK)
    for name in ("images/a.json", "masks/a.json"):
        (tmp_path / name).write_text('{"spacing": [1, 0.2, 0.3]}')
    (tmp_path / "images/other.json").write_text("{}")
    spec = grey_spec(".tif")
    found = scan(spec, tmp_path)
    assert found.ignored == ("images/other.json: matches no pattern of layout flat",)
    assert check_case(spec, found.cases[0]) == ()


def test_a_folder_of_jpeg_files_says_why_it_is_not_read(tmp_path):
    (tmp_path / "a.jpg").touch()
    with pytest.raises(Exception, match="compressed with loss"):
        list_inputs(grey_spec(), tmp_path)


@pytest.mark.parametrize(("name", "cases"), [("Dataset202_SunnybrookLV", 526), ("Dataset203_DSB2018Nuclei", 250)])
def test_real_pictures_are_understood(real_data, name, cases):
    spec = read_dataset_json(real_data / name)
    found = scan(spec, real_data / name)
    assert len(found.cases) == cases and found.problems == ()
    assert [problem for case in found.cases[:20] for problem in check_case(spec, case)] == []


def test_a_changed_spacing_file_changes_the_digest_of_its_case(tmp_path):
    save(tmp_path / "images/a.tif", GREY)
    save(tmp_path / "masks/a.tif", MASK)
    spec = grey_spec(".tif")
    case = scan(spec, tmp_path).cases[0]
    unit = Unit("a", (case,), "a")
    digests = [digest_unit(unit)]
    for spacing in ("[1, 0.2, 0.3]", "[1, 0.2, 0.4]"):
        (tmp_path / "images/a.json").write_text(f'{{"spacing": {spacing}}}')
        digests.append(digest_unit(unit))
    assert len(set(digests)) == 3


def test_a_folder_of_pictures_is_evaluated_and_previews_beside_volumes_are_not(tmp_path):
    for folder in ("predictions", "references"):
        save(tmp_path / folder / "a.png", MASK)
    assert list(files_by_case(tmp_path / "references")) == ["a"]
    (tmp_path / "references/a.nii.gz").touch()
    assert files_by_case(tmp_path / "references") == {"a": tmp_path / "references/a.nii.gz"}
