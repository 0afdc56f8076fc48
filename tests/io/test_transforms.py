"""Files that SimpleITK reads, applies and composes: it finds the same warped image."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from fields import image_on, smooth_displacement, stored_grid, turned

from autoseg.core.errors import GeometryError, ReadError
from autoseg.io.images import read_image, write_volume
from autoseg.io.itk import geometry_of_itk
from autoseg.io.transforms import read_affine, read_displacement, read_transform_onto, write_affine, write_displacement
from autoseg.ops.displacement import affine_displacement, compose, warp
from autoseg.ops.inversion import invert

# Unequal spacings; then oblique, flipped, permuted, and all of these.
STORED = {
    "plain": stored_grid(),
    "oblique": stored_grid(angles_deg=(12, -18, 33)),
    "flipped": stored_grid(signs=(-1, 1, -1)),
    "permuted": stored_grid(axes=(2, 0, 1)),
    "everything": stored_grid(angles_deg=(-20, 9, 41), axes=(1, 2, 0), signs=(1, -1, -1)),
}
ENDINGS = (".nii.gz", ".nii", ".mha", ".h5")
MATRIX = np.concatenate([np.array(turned((5, -8, 12))) * 1.05, [[3.0], [-2.0], [1.0]]], axis=1)


def moving_like(fixed):
    """An image on another oblique grid around the same place."""
    middle = np.array(fixed.geometry.position_mm(tuple((size - 1) / 2 for size in fixed.geometry.shape)))
    direction = np.array(turned((-10, 25, 5)))
    shape, spacing = (17, 15, 19), (1.7, 1.9, 1.2)
    origin = middle - direction @ ((np.array(shape) - 1) / 2 * spacing)
    return image_on(stored_grid(shape, spacing, tuple(origin), (-10, 25, 5), signs=(1, 1, 1)), seed=7)


def transform_of(path) -> sitk.Transform:
    if path.suffix in (".h5", ".tfm"):
        return sitk.ReadTransform(str(path))
    return sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))


def itk_warped(moving_path, transform, fixed_path) -> np.ndarray:
    """(Z, Y, X) on the stored grid of the fixed image."""
    moving, fixed = (sitk.ReadImage(str(path), sitk.sitkFloat32) for path in (moving_path, fixed_path))
    return sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear, 0.0))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", STORED)
def test_simpleitk_reads_the_file_and_makes_the_same_warped_image(tmp_path, name, ending):
    fixed = image_on(STORED[name])
    moving = moving_like(fixed)
    displacement = smooth_displacement(fixed.geometry, 4.0)
    write_volume(tmp_path / "f.nii.gz", fixed.voxels, fixed)
    write_volume(tmp_path / "m.nii.gz", moving.voxels, moving)
    write_displacement(tmp_path / f"u{ending}", displacement, fixed)
    theirs = itk_warped(tmp_path / "m.nii.gz", transform_of(tmp_path / f"u{ending}"), tmp_path / "f.nii.gz")
    ours = warp(moving.voxels, moving.geometry, displacement, fixed.geometry, interpolation="linear", outside=0.0)
    # Of intensities between 0 and 1; voxels at the very border of the moving image may fall on either side of it.
    wrong = np.abs(fixed.orientation.undo(ours)[0] - theirs)
    assert (wrong > 1e-3).mean() < 1e-3 and (ours > 0).mean() > 0.5
    found, grid = read_displacement(tmp_path / f"u{ending}")
    assert grid.agrees_with(fixed.geometry)
    np.testing.assert_allclose(found, displacement, atol=1e-6)


@pytest.mark.parametrize("name", ["oblique", "everything"])
def test_simpleitk_composes_two_files_to_what_we_compose(tmp_path, name):
    fixed = image_on(STORED[name])
    between, moving = moving_like(fixed), moving_like(fixed)
    first, second = smooth_displacement(fixed.geometry, 4.0), smooth_displacement(between.geometry, 3.0, seed=5)
    write_displacement(tmp_path / "first.nii.gz", first, fixed)
    write_displacement(tmp_path / "second.h5", second, between)
    for path, image in ((tmp_path / "f.nii.gz", fixed), (tmp_path / "m.nii.gz", moving)):
        write_volume(path, image.voxels, image)
    # ITK applies the transform that was added last first.
    both = sitk.CompositeTransform([transform_of(tmp_path / "second.h5"), transform_of(tmp_path / "first.nii.gz")])
    theirs = itk_warped(tmp_path / "m.nii.gz", both, tmp_path / "f.nii.gz")
    composed = compose(first, fixed.geometry, second, between.geometry)
    ours = warp(moving.voxels, moving.geometry, composed, fixed.geometry, interpolation="linear", outside=0.0)
    assert (np.abs(fixed.orientation.undo(ours)[0] - theirs) > 1e-3).mean() < 2e-3


@pytest.mark.parametrize("name", STORED)
def test_simpleitk_goes_there_and_back_by_a_field_and_its_inverse(tmp_path, name):
    fixed = image_on(stored_grid(shape=(24, 26, 30), angles_deg=(0, 0, 0)) if name == "plain" else STORED[name])
    displacement = smooth_displacement(fixed.geometry, 2.5)
    inverse = invert(displacement, fixed.geometry, fixed.geometry, tolerance_mm=0.009)
    write_displacement(tmp_path / "there.nii.gz", displacement, fixed)
    write_displacement(tmp_path / "back.h5", inverse.displacement, fixed)
    there, back = transform_of(tmp_path / "there.nii.gz"), transform_of(tmp_path / "back.h5")
    for index in np.random.default_rng(0).integers(4, np.array(fixed.geometry.shape) - 4, (50, 3)):
        point = np.array(fixed.geometry.position_mm(tuple(index)))
        returned = np.array(there.TransformPoint(back.TransformPoint(point[::-1].tolist())))[::-1]
        assert np.linalg.norm(returned - point) < 0.1 * min(fixed.geometry.spacing_mm)


def test_a_nifti_field_has_the_header_that_itk_ants_and_slicer_expect(tmp_path):
    fixed = image_on(STORED["everything"])
    displacement = smooth_displacement(fixed.geometry, 4.0)
    write_displacement(tmp_path / "u.nii.gz", displacement, fixed)
    image = nib.load(tmp_path / "u.nii.gz")
    assert image.shape == (*fixed.stored.shape[::-1], 1, 3) and image.header["intent_code"] == 1007
    left = np.asarray(image.dataobj)[..., 0, 0].transpose(2, 1, 0)
    np.testing.assert_array_equal(fixed.orientation.apply(left), displacement[2])
    field = sitk.ReadImage(str(tmp_path / "u.nii.gz"))
    assert field.GetDimension() == 3 and geometry_of_itk(field, "").agrees_with(fixed.stored)


def test_a_slice_keeps_its_displacement(tmp_path):
    flat = image_on(stored_grid(shape=(1, 9, 8)))
    displacement = smooth_displacement(flat.geometry, 2.0)
    for ending in ENDINGS:
        write_displacement(tmp_path / f"u{ending}", displacement, flat)
        found, grid = read_displacement(tmp_path / f"u{ending}")
        np.testing.assert_array_equal(found, displacement)
        assert grid.shape == flat.geometry.shape


@pytest.mark.parametrize("ending", [".tfm", ".h5"])
def test_an_affine_map_is_written_read_and_applied_by_simpleitk(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    write_affine(path, MATRIX)
    np.testing.assert_allclose(read_affine(path), MATRIX, atol=1e-12)
    point = np.array([5.0, 6.0, 7.0])
    np.testing.assert_allclose(sitk.ReadTransform(str(path)).TransformPoint(point[::-1].tolist())[::-1],
                               MATRIX[:, :3] @ point + MATRIX[:, 3])
    grid = image_on(STORED["everything"]).geometry
    np.testing.assert_allclose(read_transform_onto(path, grid), affine_displacement(MATRIX, grid), atol=1e-4)


def test_several_transforms_in_one_file_become_one_displacement(tmp_path):
    fixed = image_on(STORED["oblique"])
    displacement = smooth_displacement(fixed.geometry, 3.0)
    write_displacement(tmp_path / "u.h5", displacement, fixed)
    write_affine(tmp_path / "a.tfm", MATRIX)
    both = sitk.CompositeTransform([transform_of(tmp_path / "a.tfm"), transform_of(tmp_path / "u.h5")])
    sitk.WriteTransform(both, str(tmp_path / "both.h5"))
    moved = displacement + np.einsum("ij,j...->i...", MATRIX[:, :3] - np.eye(3), displacement)
    np.testing.assert_allclose(read_transform_onto(tmp_path / "both.h5", fixed.geometry),
                               moved + affine_displacement(MATRIX, fixed.geometry), atol=1e-3)
    with pytest.raises(ReadError, match="CompositeTransform") as caught:
        read_displacement(tmp_path / "both.h5")
    assert caught.value.code == "E_TRANSFORM"
    with pytest.raises(ReadError, match="affine map is expected"):
        read_affine(tmp_path / "u.h5")


def test_what_cannot_be_a_displacement_is_not_written_and_leaves_the_old_file(tmp_path):
    fixed = image_on(STORED["plain"])
    path = tmp_path / "u.nii.gz"
    path.write_bytes(b"old")
    with pytest.raises(GeometryError, match="does not lie on the grid"):
        write_displacement(path, np.zeros((3, 2, 2, 2), np.float32), fixed)
    broken = np.zeros((3, *fixed.geometry.shape), np.float32)
    broken[0, 0, 0, 0] = np.nan
    with pytest.raises(ReadError, match="1 of .* not finite"):
        write_displacement(path, broken, fixed)
    with pytest.raises(ReadError, match="ends in"):
        write_displacement(tmp_path / "u.png", np.zeros((3, *fixed.geometry.shape), np.float32), fixed)
    assert path.read_bytes() == b"old" and [file.name for file in tmp_path.iterdir()] == ["u.nii.gz"]


def _image(path):
    fixed = image_on(STORED["plain"])
    write_volume(path, fixed.voxels, fixed)


def _intent(path):
    image = nib.Nifti1Image(np.zeros((4, 5, 6, 1, 3), np.float32), np.eye(4))
    image.header["intent_code"] = 1006
    nib.save(image, path)


def _channels(path):
    fixed = image_on(STORED["plain"], channels=3)
    write_volume(path, fixed.voxels, fixed)


def _cut(path):
    fixed = image_on(STORED["plain"])
    write_displacement(path, np.ones((3, *fixed.geometry.shape), np.float32), fixed)
    path.write_bytes(path.read_bytes()[:-200])


def _nan(path):
    image = nib.Nifti1Image(np.full((4, 5, 6, 1, 3), np.nan, np.float32), np.eye(4))
    image.header["intent_code"] = 1007
    nib.save(image, path)


def _two_dimensions(path):
    sitk.WriteTransform(sitk.AffineTransform(2), str(path))


@pytest.mark.parametrize(("name", "make", "code"), [
    ("u.nii.gz", _image, "E_TRANSFORM"), ("u.nii.gz", _intent, "E_TRANSFORM"), ("u.nii.gz", _channels, "E_TRANSFORM"),
    ("u.mha", _image, "E_TRANSFORM"), ("u.nii.gz", _nan, "E_NONFINITE"), ("u.h5", _two_dimensions, "E_TRANSFORM"),
    ("u.nii.gz", _cut, "E_TRUNCATED"), ("u.nii", _cut, "E_TRUNCATED"), ("u.mha", _cut, None), ("u.h5", _cut, "E_DAMAGED"),
    ("u.h5", lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500)), "E_DAMAGED"),
    ("u.h5", lambda path: path.write_text("text"), "E_FORMAT"), ("u.nii.gz", lambda path: path.write_bytes(b""), "E_EMPTY"),
    ("u.nii.gz", lambda path: path.write_bytes(gzip.compress(b"text" * 200)), "E_FORMAT"),
    ("u.h5", lambda path: None, "E_MISSING"), ("u.nii.gz", lambda path: None, "E_MISSING"),
    ("u.png", lambda path: None, "E_FORMAT"),
])
def test_damaged_and_wrong_fields_are_refused_with_their_name(tmp_path, name, make, code):
    make(tmp_path / name)
    with pytest.raises(ReadError, match=name) as caught:
        read_displacement(tmp_path / name)
    assert code is None or caught.value.code == code


@pytest.mark.parametrize(("content", "code"), [
    (b"", "E_EMPTY"), (b"nothing", "E_FORMAT"), (b"#Insight Transform File V1.0\nTransform: NoSuchTransform\n", "E_DAMAGED"),
    (b"#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTr\xffnsform_double_3_3\nParameters: 1\n", "E_DAMAGED"),
    (b"#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
     b"Parameters: 1 2\nFixedParameters: 0 0 0\n", "E_DAMAGED"),
    (b"#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
     b"Parameters: nan 0 0 0 1 0 0 0 1 0 0 0\nFixedParameters: 0 0 0\n", None),
])
def test_damaged_affine_maps_are_refused(tmp_path, content, code):
    (tmp_path / "a.tfm").write_bytes(content)
    with pytest.raises(ReadError, match=r"a\.tfm") as caught:
        read_affine(tmp_path / "a.tfm")
    assert code is None or caught.value.code == code


def test_a_written_field_can_also_be_read_as_an_image_of_three_channels(tmp_path):
    fixed = image_on(STORED["oblique"])
    write_displacement(tmp_path / "u.nii.gz", smooth_displacement(fixed.geometry, 2.0), fixed)
    assert read_image([tmp_path / "u.nii.gz"]).voxels.shape[0] == 3
