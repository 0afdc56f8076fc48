"""`autoseg register` on a pair whose displacement is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
from pair_cases import shifted_pair

from autoseg.cli.app import run as command
from autoseg.io.images import read_image
from autoseg.io.transforms import read_displacement


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    from autoseg.tasks.registration import recipes

    folder = tmp_path_factory.mktemp("register")
    levels, recipes.PAIR_LEVELS = recipes.PAIR_LEVELS, ((2, 4, 40), (1, 2, 30))  # enough for a shift, in a quarter of the time
    shifted_pair(folder, steps=(0, 1, 2), origin=(300.0, 0.0, 0.0))
    (folder / "fixed.csv").write_text("name,l,p,s\na,10,12,14\n")
    (folder / "moving.csv").write_text("name,l,p,s\na,12,13.5,314\n")
    code = command(["register", "--fixed", str(folder / "fixed.nii.gz"), "--moving", str(folder / "moving.nii.gz"), "-o",
                    str(folder / "out"), "--labels", str(folder / "moving_label.nii.gz"), "--fixed-labels",
                    str(folder / "fixed_label.nii.gz"), "--fixed-landmarks", str(folder / "fixed.csv"), "--moving-landmarks",
                    str(folder / "moving.csv"), "--memory", "1GB", "--device", "cpu", "--json"])
    recipes.PAIR_LEVELS = levels
    assert code == 0
    return folder


def test_the_known_shift_is_found(registered):
    field, _ = read_displacement(registered / "out" / "moving_to_fixed.nii.gz")
    inner = field[:, 4:-4, 5:-5, 6:-6]
    error = np.linalg.norm(inner - np.array([300.0, 1.5, 2.0])[:, None, None, None], axis=0)
    assert error.mean() < 0.5  # mm; voxels are 2 x 1.5 x 1 mm
    scores = json.loads((registered / "out" / "scores.json").read_text())
    assert scores["mean.dice"] > 0.85 and scores["landmarks.before_mm"] == pytest.approx(np.hypot(300, 2.5), abs=0.1)
    assert scores["landmarks.tre_mm"] < 0.7 and scores["field.folded_percent"] == 0


def test_itk_applies_the_transform_file_as_we_do(registered):
    fixed, moving = (sitk.ReadImage(str(registered / f"{name}.nii.gz"), sitk.sitkFloat32) for name in ("fixed", "moving"))
    transform = sitk.ReadTransform(str(registered / "out" / "moving_to_fixed_transform.h5"))
    theirs = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear, 0.0))
    ours = sitk.GetArrayFromImage(sitk.ReadImage(str(registered / "out" / "moving_to_fixed_warped.nii.gz")))
    span = float(np.ptp(sitk.GetArrayFromImage(moving)))
    assert np.abs(theirs - ours)[3:-3, 3:-3, 3:-3].max() < 1e-3 * span


def test_labels_are_warped_and_the_page_has_pictures(registered):
    labels = read_image([registered / "out" / "moving_to_fixed_warped_labels.nii.gz"]).voxels
    assert set(np.unique(labels)) == {0, 2}
    page = (registered / "out" / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 4 and "moving_to_fixed" in page
