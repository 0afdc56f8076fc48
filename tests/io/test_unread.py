"""Images of formats that are not read are refused by name, one problem each; other files are no images."""

from __future__ import annotations

import pytest

from autoseg.core.errors import DatasetError
from autoseg.core.spec import ChannelSpec, DatasetSpec, InputSpec, LayoutSpec
from autoseg.io.dataset import list_inputs

SPEC = DatasetSpec("Toy", "segmentation", (LayoutSpec("l", {"image": ("images/{case}.nii.gz",)}),))


def listed(folder, *names, spec=SPEC):
    """Cases, and problems as (case, code, files said), of a folder with empty files of these names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    found = list_inputs(spec, folder)
    assert all(str(folder) in problem.message and " is not an image file" in problem.message for problem in found.problems)
    return [case.id for case in found.cases], [(problem.case, problem.code) for problem in found.problems]


STRAY = ("README.txt", "dataset.json", "a.json", "notes.pdf", "b.xlsx", "bval", "a.png", ".DS_Store", "._c.img")


def test_each_image_is_one_problem_and_other_files_are_none(tmp_path):
    names = ["a.nii.gz", "pair.img", "pair.hdr", "surfer.mgz", "SURFER2.MGH", "detached.mhd", "other.nhdr"]
    cases, problems = listed(tmp_path, *names, *STRAY)
    assert cases == ["a"]
    assert sorted(problems) == [(name, "E_FORMAT") for name in ("SURFER2", "detached", "other", "pair", "surfer")]


def test_the_slices_of_a_folder_are_one_image(tmp_path):
    slices = [f"{folder}/{number:03d}.dcm" for folder in ("first", "second/series") for number in range(30)]
    cases, problems = listed(tmp_path, "a.nii.gz", *slices)
    assert cases == ["a"] and problems == [("first", "E_FORMAT"), ("series", "E_FORMAT")]
    message = list_inputs(SPEC, tmp_path).problems[0].message
    assert "000.dcm (and 29 more of it)" in message and "dcm2niix" in message


def test_a_copy_in_another_format_beside_an_image_that_is_read_is_no_problem(tmp_path):
    assert listed(tmp_path, "a_0000.nii.gz", "a.mgz", "a.img", "a.hdr", "labels/a.mgz") == (["a_0000"], [])


def test_channels_of_one_image_are_one_problem(tmp_path):
    two = DatasetSpec("Two", "segmentation", (LayoutSpec("l", {"image": ("{case}_0000.nii.gz", "{case}_0001.nii.gz")}),),
                      (InputSpec("image", channels=(ChannelSpec("T1"), ChannelSpec("T2"))),))
    names = ["a_0000.nii.gz", "a_0001.nii.gz", "b_0000.mgz", "b_0001.mgz"]
    assert listed(tmp_path, *names, spec=two) == (["a"], [("b", "E_FORMAT")])


def test_a_folder_of_such_images_alone_is_listed_and_one_of_other_files_is_no_folder_of_images(tmp_path):
    assert listed(tmp_path / "mgz", "b.mgz", "c.mgz", *STRAY[:4]) == ([], [("b", "E_FORMAT"), ("c", "E_FORMAT")])
    with pytest.raises(DatasetError) as caught:
        listed(tmp_path / "texts", *STRAY[:5])
    assert caught.value.code == "E_NO_CASES"
