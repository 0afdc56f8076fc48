from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.core.errors import GeometryError, ReadError, ResourceError
from autoseg.core.geometry import Geometry, as_direction, canonical_orientation
from autoseg.core.image import Image
from autoseg.io.images import (
    image_ending,
    read_geometry,
    read_image,
    read_label_map,
    write_label_map,
    write_volume,
)
from autoseg.io.images.endings import VOLUME_ENDINGS

SHAPE = (3, 4, 5)
SPACING = (2.5, 0.7, 1.3)
ORIGIN = (-20.25, 7.5, 113.125)
ALL_48 = [(axes, signs) for axes in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)]


def signed_permutation(axes, signs):
    direction = np.zeros((3, 3))
    for column, (row, sign) in enumerate(zip(axes, signs, strict=True)):
        direction[row, column] = sign
    return as_direction(direction)


def rotation(angle_deg, axis):
    angle = np.deg2rad(angle_deg)
    first, second = [other for other in range(3) if other != axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


OBLIQUE = as_direction(rotation(23.0, 0) @ rotation(-11.0, 1) @ rotation(41.0, 2))
DIRECTIONS = [signed_permutation(*entry) for entry in ALL_48] + [
    OBLIQUE,
    as_direction(np.asarray(OBLIQUE)[:, [2, 0, 1]]),
]


def stored_image(direction=OBLIQUE, voxels=None, shape=SHAPE):
    """A stored array with a different number in every voxel, and the image that it is."""
    stored = Geometry(shape, SPACING, ORIGIN, direction)
    orientation = canonical_orientation(direction)
    array = np.arange(np.prod(shape)).reshape(shape) if voxels is None else voxels
    return array, Image(orientation.apply(array)[None], orientation.apply_to_geometry(stored), orientation, stored)


def stored_array_nifti(path):
    return np.asarray(nib.load(path).dataobj).transpose(2, 1, 0)


def stored_array_itk(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


@pytest.mark.parametrize("ending", VOLUME_ENDINGS)
def test_every_orientation_comes_back_with_equal_stored_array_and_grid(tmp_path, ending):
    read_stored = stored_array_nifti if ".nii" in ending else stored_array_itk
    for index, direction in enumerate(DIRECTIONS):
        array, image = stored_image(direction)
        first, second = tmp_path / f"a{index}{ending}", tmp_path / f"b{index}{ending}"
        write_label_map(first, image.voxels[0], image)
        again = read_label_map(first)
        write_label_map(second, again.voxels[0], again)
        np.testing.assert_array_equal(read_stored(first), array)
        np.testing.assert_array_equal(read_stored(second), array)
        np.testing.assert_array_equal(again.voxels, image.voxels)
        assert again.stored.agrees_with(image.stored, tolerance=1e-6)
        assert again.orientation == image.orientation


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_voxel_keeps_its_place_in_the_patient(tmp_path, direction):
    _, image = stored_image(direction)
    for ending in (".nii", ".nrrd"):
        write_label_map(tmp_path / f"a{ending}", image.voxels[0], image)
    nifti, itk = nib.load(tmp_path / "a.nii"), sitk.ReadImage(str(tmp_path / "a.nrrd"))
    read = read_label_map(tmp_path / "a.nii")
    for value in (0, 1, 5, 20, 59):  # stored (z, y, x) = divmod by hand of a 3 x 4 x 5 array
        z, y, x = value // 20, value // 5 % 4, value % 5
        [canonical] = np.argwhere(read.voxels[0] == value)
        superior, posterior, left = read.geometry.position_mm(tuple(canonical))
        np.testing.assert_allclose(nifti.affine @ [x, y, z, 1], [-left, -posterior, superior, 1], atol=1e-4)
        np.testing.assert_allclose(itk.TransformIndexToPhysicalPoint((x, y, z)), [left, posterior, superior], atol=1e-4)
    cosines = np.asarray(read.geometry.direction)
    assert (np.diag(cosines) > 0).all()
    if not np.array_equal(np.abs(cosines), np.eye(3)):
        assert direction in DIRECTIONS[48:]


@pytest.mark.parametrize("direction", [DIRECTIONS[0], DIRECTIONS[17], DIRECTIONS[-2]])
def test_all_formats_agree_on_the_canonical_image(tmp_path, direction):
    _, image = stored_image(direction)
    for ending in VOLUME_ENDINGS:
        write_volume(tmp_path / f"v{ending}", image.voxels, image)
    images = [read_image([tmp_path / f"v{ending}"]) for ending in VOLUME_ENDINGS]
    for other in images[1:]:
        np.testing.assert_array_equal(other.voxels, images[0].voxels)
        assert other.geometry.agrees_with(images[0].geometry, tolerance=1e-6)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_nifti_affine_comes_back_bit_exact(tmp_path, ending):
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(OBLIQUE) * np.array([1.3, 0.7, 2.5])
    affine[:3, 3] = [-90.123456, 125.98765, -71.7]
    image = nib.Nifti1Image(np.arange(60, dtype=np.uint8).reshape(5, 4, 3), affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    nib.save(image, tmp_path / f"in{ending}")
    label = read_label_map(tmp_path / f"in{ending}")
    write_label_map(tmp_path / f"out{ending}", label.voxels[0], label)
    before, after = nib.load(tmp_path / f"in{ending}"), nib.load(tmp_path / f"out{ending}")
    np.testing.assert_array_equal(after.header.get_sform(), before.header.get_sform())
    np.testing.assert_allclose(after.header.get_qform(), before.header.get_qform(), atol=1e-5)
    assert (after.header["qform_code"], after.header["sform_code"]) == (1, 1)
    assert after.header.get_zooms() == before.header.get_zooms()
    np.testing.assert_array_equal(np.asarray(after.dataobj), np.asarray(before.dataobj))


def test_simpleitk_sees_the_nifti_that_we_wrote_on_the_same_grid(tmp_path):
    array, image = stored_image(OBLIQUE)
    write_label_map(tmp_path / "a.nii.gz", image.voxels[0], image)
    seen = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    assert seen.GetSpacing() == pytest.approx(SPACING[::-1], abs=1e-6)
    assert seen.GetOrigin() == pytest.approx(ORIGIN[::-1], abs=1e-4)
    np.testing.assert_allclose(np.reshape(seen.GetDirection(), (3, 3)), np.asarray(OBLIQUE)[::-1, ::-1], atol=1e-6)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(seen), array)


@pytest.mark.parametrize("ending", VOLUME_ENDINGS)
def test_header_alone_gives_the_stored_grid(tmp_path, ending):
    _, image = stored_image(OBLIQUE)
    write_label_map(tmp_path / f"a{ending}", image.voxels[0], image)
    assert read_geometry(tmp_path / f"a{ending}") == read_label_map(tmp_path / f"a{ending}").stored


@pytest.mark.parametrize("ending", VOLUME_ENDINGS)
def test_channels_of_one_file_come_back_in_order(tmp_path, ending):
    _, image = stored_image(DIRECTIONS[29])
    voxels = np.stack([image.voxels[0] + 0.5, image.voxels[0] * -2.0]).astype(np.float32)
    write_volume(tmp_path / f"v{ending}", voxels, image)
    np.testing.assert_array_equal(read_image([tmp_path / f"v{ending}"], channels=2).voxels, voxels)


def test_several_files_become_channels_in_the_order_given(tmp_path):
    _, image = stored_image()
    for name, factor in (("a", 1), ("b", 3)):
        write_volume(tmp_path / f"{name}.nii.gz", image.voxels * factor, image)
    read = read_image([tmp_path / "b.nii.gz", tmp_path / "a.nii.gz"], channels=2)
    np.testing.assert_array_equal(read.voxels, np.concatenate([image.voxels * 3, image.voxels]).astype(np.float32))
    assert read.voxels.dtype == np.float32 and read.voxels.flags.c_contiguous


def test_digests_are_those_of_the_files(tmp_path):
    _, image = stored_image()
    digests: dict[Path, str] = {}
    paths = [tmp_path / "a.nii.gz", tmp_path / "b.mha"]
    for path in paths:
        write_volume(path, image.voxels, image)
    read_image(paths, digests=digests)
    assert digests == {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_writing_twice_gives_the_same_bytes(tmp_path):
    _, image = stored_image()
    write_label_map(tmp_path / "a.nii.gz", image.voxels[0], image)
    first = (tmp_path / "a.nii.gz").read_bytes()
    write_label_map(tmp_path / "a.nii.gz", image.voxels[0], image)
    assert (tmp_path / "a.nii.gz").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [(0, 255, np.uint8), (-1, 4, np.int16), (0, 256, np.int16), (0, 40_000, np.uint16), (-5, 40_000, np.int32)],
)
def test_label_maps_take_the_smallest_type_that_holds_them(tmp_path, low, high, kind):
    _, image = stored_image()
    label = np.full(SHAPE, low, np.int64)
    label[1, 2, 3] = high
    label = image.orientation.apply(label)
    for ending in (".nii.gz", ".mha"):
        write_label_map(tmp_path / f"a{ending}", label, image)
        read = read_label_map(tmp_path / f"a{ending}")
        assert read.voxels.dtype == kind
        np.testing.assert_array_equal(read.voxels[0], label)
    assert nib.load(tmp_path / "a.nii.gz").get_data_dtype() == kind


def test_label_values_beyond_32_bits_are_refused(tmp_path):
    _, image = stored_image()
    with pytest.raises(ReadError, match="32 bits"):
        write_label_map(tmp_path / "a.nii.gz", np.full(image.geometry.shape, 2**40), image)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_truncated_file_is_refused(tmp_path, ending):
    rng = np.random.default_rng(0)
    image = Image.canonical(rng.normal(size=(1, 12, 13, 14)).astype(np.float32), Geometry((12, 13, 14), SPACING))
    path = tmp_path / f"a{ending}"
    write_volume(path, image.voxels, image)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ReadError, match="a" + ending) as caught:
        read_image([path])
    assert caught.value.code in ("E_TRUNCATED", "E_DAMAGED")


def test_empty_missing_and_wrongly_named_files_are_refused(tmp_path):
    (tmp_path / "empty.nii.gz").touch()
    (tmp_path / "text.nii.gz").write_text("not gzip")
    for name, code in (("empty.nii.gz", "E_EMPTY"), ("none.nii.gz", "E_MISSING"), ("text.nii.gz", "E_FORMAT")):
        with pytest.raises(ReadError) as caught:
            read_image([tmp_path / name])
        assert caught.value.code == code
    with pytest.raises(ReadError, match=".nrrd"):
        read_image([tmp_path / "a.gif"])


def test_slightly_sheared_grid_is_written_without_a_qform_and_read_again(tmp_path):
    direction = np.eye(3)
    direction[0, 2] = 8e-4
    direction[:, 2] /= np.linalg.norm(direction[:, 2])
    _, image = stored_image(as_direction(direction))
    write_label_map(tmp_path / "a.nii.gz", image.voxels[0], image)
    assert read_label_map(tmp_path / "a.nii.gz").stored.agrees_with(image.stored, tolerance=1e-5)
    assert nib.load(tmp_path / "a.nii.gz").header["qform_code"] == 0


def test_wrong_number_of_channels_is_refused(tmp_path):
    _, image = stored_image()
    write_volume(tmp_path / "a.nii.gz", image.voxels, image)
    with pytest.raises(ReadError, match="1 channels found, 4 expected"):
        read_image([tmp_path / "a.nii.gz"], channels=4)


def test_channels_and_label_maps_on_other_grids_are_refused_with_both_grids(tmp_path):
    _, image = stored_image(DIRECTIONS[0])
    moved = Image(
        image.voxels, image.geometry, image.orientation, Geometry(SHAPE, SPACING, (-20.25, 7.5, 118.125), DIRECTIONS[0])
    )
    write_volume(tmp_path / "a.nii.gz", image.voxels, image)
    write_volume(tmp_path / "b.nii.gz", image.voxels, moved)
    with pytest.raises(GeometryError, match=r"a.nii.gz.*113\.125.*b.nii.gz.*118\.125"):
        read_image([tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"])
    with pytest.raises(GeometryError, match=r"b.nii.gz.*118\.125.*113\.125"):
        read_label_map(tmp_path / "b.nii.gz", reference=image.geometry)


def test_label_map_stored_in_another_orientation_than_its_image_agrees_with_it(tmp_path):
    _, image = stored_image(DIRECTIONS[5])
    other = Image.canonical(image.voxels, image.geometry)
    write_label_map(tmp_path / "turned.nii.gz", image.voxels[0], image)
    write_label_map(tmp_path / "straight.nii.gz", other.voxels[0], other)
    turned = read_label_map(tmp_path / "turned.nii.gz", reference=image.geometry)
    straight = read_label_map(tmp_path / "straight.nii.gz", reference=image.geometry)
    np.testing.assert_array_equal(turned.voxels, straight.voxels)


def test_the_masks_in_a_folder_are_united_and_the_larger_value_counts(tmp_path):
    label = np.zeros((3, *SHAPE), np.uint8)
    label[0, 0, 0, :3] = 1
    label[1, 0, 0, 2:4] = 3
    label[2, 2, 3, 4] = 1
    (tmp_path / "masks").mkdir()
    for place, mask in enumerate(label):
        write_label_map(tmp_path / "masks" / f"{place}.nii.gz", mask, Image.canonical(mask[None], Geometry(SHAPE, SPACING)))
    (tmp_path / "masks" / "notes.txt").touch()
    (tmp_path / "masks" / "._0.nii.gz").touch()
    united = read_label_map(tmp_path / "masks", reference=Geometry(SHAPE, SPACING))
    expected = np.zeros(SHAPE, np.uint8)
    expected[0, 0, :4] = (1, 1, 3, 3)
    expected[2, 3, 4] = 1
    assert np.array_equal(united.voxels[0], expected) and united.geometry.agrees_with(Geometry(SHAPE, SPACING))


def test_masks_of_one_folder_on_another_grid_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(ReadError, match="holds no mask"):
        read_label_map(tmp_path)
    for name, spacing in (("a.nii", SPACING), ("b.nii", (2.5, 0.7, 1.4))):
        mask = np.ones((1, *SHAPE), np.uint8)
        write_label_map(tmp_path / name, mask[0], Image.canonical(mask, Geometry(SHAPE, spacing)))
    with pytest.raises(GeometryError, match="b.nii"):
        read_label_map(tmp_path)


def test_array_of_another_shape_than_its_image_is_refused(tmp_path):
    _, image = stored_image()
    with pytest.raises(GeometryError, match="grid of its image"):
        write_label_map(tmp_path / "a.nii.gz", np.zeros((1, 2, 3), np.uint8), image)


def test_a_refused_label_map_leaves_the_old_file_alone(tmp_path):
    _, image = stored_image()
    write_label_map(tmp_path / "a.mha", image.voxels[0], image)
    before = (tmp_path / "a.mha").read_bytes()
    with pytest.raises(ReadError):
        write_label_map(tmp_path / "a.mha", np.full(image.geometry.shape, 2**40), image)
    assert (tmp_path / "a.mha").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.mha"]


def test_endings_are_found_in_any_letter_case():
    assert image_ending(Path("x/Scan.NII.GZ")) == ".nii.gz"
    assert image_ending(Path("x/scan.nii.txt")) is None


def test_read_only_folder_is_reported_with_the_path(tmp_path, monkeypatch):
    _, image = stored_image()

    def refuse(source, target):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(ResourceError, match=r"a\.nii\.gz.*read-only"):
        write_label_map(tmp_path / "a.nii.gz", image.voxels[0], image)


def test_real_images_come_back_byte_for_byte_on_their_grid(real_data, tmp_path):
    files = sorted(real_data.glob("Dataset*/labelsTr/*.nii.gz"))[::25]
    assert files
    for path in files:
        label = read_label_map(path)
        write_label_map(tmp_path / path.name, label.voxels[0], label)
        before, after = nib.load(path), nib.load(tmp_path / path.name)
        np.testing.assert_array_equal(np.asarray(after.dataobj), np.asarray(before.dataobj))
        np.testing.assert_allclose(after.affine, before.affine, rtol=1e-6, atol=1e-5)
