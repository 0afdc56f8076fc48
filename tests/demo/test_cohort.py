"""The synthetic cohort of the demo."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

pytest.importorskip("nilearn", reason="the cohort is made from nilearn's template; pip install 'autoseg[demo]'")

from demo import cohort

SUBJECTS, TESTS = 4, 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cohort.make_cohort(tmp_path_factory.mktemp("cohort"), subjects=SUBJECTS, tests=TESTS, seed=3)


@pytest.fixture(scope="module")
def images(folder: Path) -> list[nibabel.Nifti1Image]:
    return [nibabel.load(path) for path in sorted(folder.glob("imagesT[rs]/*.nii.gz"))]


@pytest.fixture(scope="module")
def labels(folder: Path) -> list[nibabel.Nifti1Image]:
    return [nibabel.load(path) for path in sorted(folder.glob("labelsT[rs]/*.nii.gz"))]


@pytest.fixture(scope="module")
def toy() -> cohort.Template:
    """A ball of white matter in a shell of grey matter."""
    distance = np.linalg.norm(np.stack(np.indices((30, 34, 28))) - np.array([15, 17, 14])[:, None, None, None], axis=0)
    white, grey = (distance < 7).astype(np.float32), ((distance >= 7) & (distance < 11)).astype(np.float32)
    return cohort.Template(0.8 * white + 0.5 * grey, grey, white)


def digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def test_same_seed_gives_the_same_bytes_and_another_seed_other_subjects(tmp_path, monkeypatch, toy):
    monkeypatch.setattr(cohort, "load_template", lambda: toy)
    first, second, other = (cohort.make_cohort(tmp_path / name, subjects=2, tests=1, seed=seed)
                            for name, seed in (("first", 3), ("second", 3), ("other", 4)))
    assert digests(first) == digests(second)
    different = {name for name, digest in digests(first).items() if digests(other)[name] != digest}
    assert different == set(digests(first))


def test_more_subjects_leave_the_first_ones_as_they_were(tmp_path, monkeypatch, toy):
    monkeypatch.setattr(cohort, "load_template", lambda: toy)
    few = digests(cohort.make_cohort(tmp_path / "few", subjects=2, tests=0, seed=3))
    many = digests(cohort.make_cohort(tmp_path / "many", subjects=3, tests=0, seed=3))
    assert {name: many[name] for name in few if name != "dataset.json"} == {
        name: digest for name, digest in few.items() if name != "dataset.json"}


def test_cohort_that_is_there_is_not_made_again(folder, monkeypatch):
    def fail():
        raise AssertionError("the template was loaded")

    monkeypatch.setattr(cohort, "load_template", fail)
    assert cohort.make_cohort(folder, subjects=SUBJECTS, tests=TESTS, seed=3) == folder


def test_folder_is_in_nnunet_raw_layout(folder):
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert names == sorted(
        ["dataset.json", *(f"imagesTr/synthetic_{n:03d}_0000.nii.gz" for n in (1, 2, 3, 4)),
         *(f"labelsTr/synthetic_{n:03d}.nii.gz" for n in (1, 2, 3, 4)), "imagesTs/synthetic_005_0000.nii.gz",
         "labelsTs/synthetic_005.nii.gz"])
    content = json.loads((folder / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "T1"} and content["numTraining"] == SUBJECTS
    assert content["labels"] == {"background": 0, "grey_matter": 1, "white_matter": 2}
    assert content["file_ending"] == ".nii.gz"


def test_description_says_plainly_that_the_cohort_is_synthetic(folder):
    content = json.loads((folder / "dataset.json").read_text())
    assert content["description"].startswith("SYNTHETIC cohort, not patient data") and content["synthetic"] is True


def test_labels_are_grey_matter_one_and_white_matter_two_and_both_are_large(labels):
    for label in labels:
        values, counts = np.unique(np.asarray(label.dataobj), return_counts=True)
        assert values.tolist() == [0, 1, 2]
        litres = counts[1:] * np.prod(label.header.get_zooms()) / 1e6
        # An adult brain holds some 0.5 to 0.8 l of each (Luders et al. 2002 and others); thresholds of a template cut both.
        assert ((litres > 0.3) & (litres < 1.3)).all()


def test_white_matter_is_brighter_than_grey_matter_in_t1(images, labels):
    for image, label in zip(images, labels, strict=True):
        voxels, values = np.asarray(image.dataobj), np.asarray(label.dataobj)
        assert np.median(voxels[values == 2]) > np.median(voxels[values == 1]) > np.median(voxels[values == 0])


def test_image_and_label_map_share_grid_and_orientation(images, labels):
    for image, label in zip(images, labels, strict=True):
        assert image.shape == label.shape
        np.testing.assert_array_equal(image.affine, label.affine)


def test_subjects_differ_in_shape_spacing_orientation_type_and_scale(images):
    assert len({image.shape for image in images}) == len(images)
    assert len({image.header.get_zooms() for image in images}) == len(images)
    assert len({nibabel.aff2axcodes(image.affine) for image in images}) == 4
    assert {image.get_data_dtype().name for image in images} == {"uint8", "int16", "float32"}
    largest = [float(np.asarray(image.dataobj).max()) for image in images]
    assert max(largest) / min(largest) == pytest.approx(250000.0)


def test_voxels_are_between_three_and_four_millimetres_and_shapes_are_small(images):
    for image in images:
        assert all(3.0 <= size <= 4.0 for size in image.header.get_zooms())
        assert max(image.shape) <= 72 and min(image.shape) >= 36


def test_orientation_and_scale_follow_the_number_and_leave_the_anatomy_as_it_is(toy):
    first, second = (cohort.make_subject(toy, np.random.default_rng(1), number) for number in (4, 7))
    np.testing.assert_array_equal(first.labels, second.labels)
    assert (first.orientation, second.orientation) == ("RAS", "PIR")
    assert (first.voxels.dtype, second.voxels.dtype) == (np.uint8, np.float32)
    np.testing.assert_allclose(first.voxels / 255.0, second.voxels / 250000.0, atol=0.5 / 255 + 1e-6)


def test_halving_takes_the_mean_of_eight_voxels_and_drops_an_odd_plane():
    volume = np.arange(3 * 2 * 4, dtype=np.float32).reshape(3, 2, 4)
    expected = np.array([[[np.mean([0, 1, 4, 5, 8, 9, 12, 13]), np.mean([2, 3, 6, 7, 10, 11, 14, 15])]]])
    np.testing.assert_allclose(cohort.halve(volume), expected)


def test_smooth_field_is_standardised_and_continues_across_the_border():
    field = cohort.smooth_field((40, 42, 44), 3.0, np.random.default_rng(0))
    assert abs(field.mean()) < 1e-9 and field.std() == pytest.approx(1.0)
    across = np.abs(field[0] - field[-1]).mean()
    assert across < 2 * np.abs(np.diff(field, axis=0)).mean()


@pytest.mark.parametrize("orientation", cohort.ORIENTATIONS)
def test_saved_file_has_the_orientation_and_every_voxel_at_its_place(tmp_path, orientation):
    labels = np.zeros((3, 5, 4), dtype=np.uint8)
    labels[2, 1, 3] = 1
    affine = np.array([[3.0, 0, 0, -70.0], [0, 3.5, 0, -80.0], [0, 0, 4.0, -60.0], [0, 0, 0, 1.0]])
    cohort.save(tmp_path / "case.nii.gz", labels, cohort.Subject(labels, labels, affine, orientation))
    stored = nibabel.load(tmp_path / "case.nii.gz")
    assert "".join(nibabel.aff2axcodes(stored.affine)) == orientation
    (index,) = np.argwhere(np.asarray(stored.dataobj) == 1)
    np.testing.assert_allclose(stored.affine @ [*index, 1.0], [-64.0, -76.5, -48.0, 1.0], atol=1e-4)


def test_deformation_never_folds(toy):
    spacing_mm = np.array([3.0, 3.4, 3.8])
    for seed in range(5):
        places = cohort.deformed_places(np.array([90, 100, 85]), spacing_mm, np.random.default_rng(seed))
        jacobian = np.stack([np.stack(np.gradient(axis)) for axis in places]).transpose(2, 3, 4, 0, 1)
        assert np.linalg.det(jacobian).min() > 0
