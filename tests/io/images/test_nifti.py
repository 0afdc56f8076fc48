from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from autoseg.core.errors import DatasetError, GeometryError, ReadError
from autoseg.core.geometry import Geometry, Orientation
from autoseg.io.images import nifti, read_geometry, read_image, read_label_map


def nifti_bytes(array_xyz, affine=None, dtype=None):
    image = nib.Nifti1Image(array_xyz, np.diag([1.3, 0.7, 2.5, 1.0]) if affine is None else affine, dtype=dtype)
    return image.to_bytes()


def patched(content, offset, layout, *values):
    return content[:offset] + struct.pack(layout, *values) + content[offset + struct.calcsize(layout) :]


def test_nifti_with_a_sform_that_points_right_anterior_superior_is_flipped_to_canonical(tmp_path):
    array = np.zeros((5, 4, 3), np.float32)
    array[0, 0, 0], array[4, 3, 2] = 7, 9
    affine = np.array([[1.3, 0, 0, 10], [0, 0.7, 0, 20], [0, 0, 2.5, 30], [0, 0, 0, 1.0]])
    nib.save(nib.Nifti1Image(array, affine), tmp_path / "ras.nii.gz")
    image = read_image([tmp_path / "ras.nii.gz"])
    assert image.voxels.shape == (1, 3, 4, 5)
    assert image.voxels[0, 0, 3, 4] == 7  # lowest, most anterior is last in y; voxel 0 is most right, last in x
    assert image.voxels[0, 2, 0, 0] == 9
    assert image.geometry.spacing_mm == pytest.approx((2.5, 0.7, 1.3))
    # the first canonical voxel: superior 30, posterior -(20 + 3 * 0.7), left -(10 + 4 * 1.3)
    assert image.geometry.origin_mm == pytest.approx((30, -22.1, -15.2))


def test_label_map_of_nearly_integer_floats_is_rounded(tmp_path):
    array = np.full((5, 4, 3), 2.00001, np.float32)
    (tmp_path / "a.nii").write_bytes(nifti_bytes(array))
    label = read_label_map(tmp_path / "a.nii")
    assert label.voxels.dtype == np.uint8 and np.unique(label.voxels).tolist() == [2]


def test_label_map_with_a_scale_factor_means_scaled_values(tmp_path):
    content = nifti_bytes(np.ones((5, 4, 3), np.uint8))
    (tmp_path / "a.nii").write_bytes(patched(content, 112, "<ff", 2.0, 1.0))
    assert np.unique(read_label_map(tmp_path / "a.nii").voxels).tolist() == [3]


def test_scale_factor_of_zero_or_nan_means_none(tmp_path):
    content = nifti_bytes(np.full((5, 4, 3), 5, np.int16))
    for slope in (0.0, float("nan")):
        (tmp_path / "a.nii").write_bytes(patched(content, 112, "<ff", slope, 3.0))
        assert np.unique(read_image([tmp_path / "a.nii"]).voxels).tolist() == [5]


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.int64, np.float64, np.dtype(">f4"), np.dtype(">i2")])
def test_number_types_keep_their_values(tmp_path, kind):
    array = np.arange(60).reshape(5, 4, 3).astype(kind)
    header = nib.Nifti1Header(endianness=">") if np.dtype(kind).byteorder == ">" else None
    image = nib.Nifti1Image(array, np.diag([-1.3, -0.7, 2.5, 1.0]), header=header, dtype=kind)
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    np.testing.assert_array_equal(
        read_image([tmp_path / "a.nii"]).voxels[0], np.arange(60).reshape(5, 4, 3).transpose(2, 1, 0)
    )


def test_nifti_2_is_read(tmp_path):
    image = nib.Nifti2Image(np.arange(60, dtype=np.int16).reshape(5, 4, 3), np.diag([-1.3, -0.7, 2.5, 1.0]))
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(image.to_bytes()))
    read = read_image([tmp_path / "a.nii.gz"])
    np.testing.assert_array_equal(read.voxels[0], np.arange(60).reshape(5, 4, 3).transpose(2, 1, 0))
    assert read_geometry(tmp_path / "a.nii.gz") == read.stored


@pytest.mark.parametrize(
    ("dims", "shape"),
    [
        ((5, 4), (1, 1, 4, 5)),
        ((5, 4, 1), (1, 1, 4, 5)),
        ((5, 4, 3, 1), (1, 3, 4, 5)),
        ((5, 4, 3, 2), (2, 3, 4, 5)),
        ((5, 4, 3, 1, 2), (2, 3, 4, 5)),
        ((1, 1, 1), (1, 1, 1, 1)),
    ],
)
def test_other_dimensions_become_channels_and_three_axes(tmp_path, dims, shape):
    array = np.arange(np.prod(dims), dtype=np.float32).reshape(dims)
    (tmp_path / "a.nii").write_bytes(nib.Nifti1Image(array, np.diag([-1.3, -0.7, 2.5, 1.0])).to_bytes())
    assert read_image([tmp_path / "a.nii"]).voxels.shape == shape


HEADER = nifti_bytes(np.ones((5, 4, 3), np.uint8))
BAD_HEADERS = {
    "magic": (patched(HEADER, 344, "4s", b"xxxx"), "E_FORMAT"),
    "pair": (patched(HEADER, 344, "4s", b"ni1\0"), "E_FORMAT"),
    "no dimensions": (patched(HEADER, 40, "<h", 0), "E_HEADER"),
    "nine dimensions": (patched(HEADER, 40, "<h", 9), None),
    "zero voxels": (patched(HEADER, 42, "<h", 0), "E_HEADER"),
    "negative voxels": (patched(HEADER, 44, "<h", -4), "E_HEADER"),
    "huge": (patched(HEADER, 42, "<hhh", 32767, 32767, 32767), "E_TRUNCATED"),
    "unknown type": (patched(HEADER, 70, "<h", 9999), "E_DTYPE"),
    "colour": (patched(HEADER, 70, "<hh", 128, 24), "E_DTYPE"),
    "complex": (patched(HEADER, 70, "<hh", 32, 64), "E_DTYPE"),
    "offset too far": (patched(HEADER, 108, "<f", 1e9), "E_TRUNCATED"),
    "offset negative": (patched(HEADER, 108, "<f", -352), "E_HEADER"),
    "offset zero": (patched(HEADER, 108, "<f", 0), "E_HEADER"),
    "offset nan": (patched(HEADER, 108, "<f", float("nan")), "E_HEADER"),
    "affine of zeros": (patched(HEADER, 280, "<12f", *[0.0] * 12), "E_AFFINE"),
    "affine with nan": (patched(HEADER, 280, "<f", float("nan")), "E_AFFINE"),
    "not an image": (b"some text", "E_FORMAT"),
}


def test_image_without_orientation_is_taken_as_right_anterior_superior_with_a_warning(tmp_path, caplog):
    (tmp_path / "a.nii").write_bytes(patched(HEADER, 252, "<hh", 0, 0))
    read = read_image([tmp_path / "a.nii"])
    assert read.orientation == Orientation((0, 1, 2), (False, True, True))
    assert read.stored.spacing_mm == pytest.approx((2.5, 0.7, 1.3))
    assert "orientation" in caplog.text


def test_gzip_with_a_wrong_checksum_is_refused(tmp_path):
    content = bytearray(gzip.compress(nifti_bytes(np.ones((5, 4, 3), np.uint8))))
    content[-8] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(bytes(content))
    with pytest.raises(ReadError, match="CRC") as caught:
        read_image([tmp_path / "a.nii.gz"])
    assert caught.value.code == "E_DAMAGED"


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_damaged_nifti_header_is_refused_with_its_name(tmp_path, name):
    content, code = BAD_HEADERS[name]
    for ending in (".nii", ".nii.gz"):
        path = tmp_path / f"a{ending}"
        path.write_bytes(gzip.compress(content) if ending == ".nii.gz" else content)
        with pytest.raises(DatasetError, match="a" + ending) as caught:
            read_image([path])
        assert code is None or caught.value.code == code


def test_qform_and_sform_that_disagree_are_refused_and_both_stated(tmp_path):
    image = nib.Nifti1Image(np.ones((5, 4, 3), np.uint8), np.diag([1.3, 0.7, 2.5, 1.0]))
    image.set_sform(np.diag([1.3, 0.7, 2.5, 1.0]), 1)
    shifted = np.diag([1.3, 0.7, 2.5, 1.0])
    shifted[0, 3] = 4.5
    image.set_qform(shifted, 1)
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    with pytest.raises(GeometryError, match=r"sform.*qform.*4\.5") as caught:
        read_image([tmp_path / "a.nii"])
    assert caught.value.code == "E_AFFINE_CONFLICT"


def test_sheared_grid_is_refused(tmp_path):
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[0, 1] = 0.4
    image = nib.Nifti1Image(np.ones((5, 4, 3), np.uint8), None)
    image.set_sform(affine, 1)
    image.set_qform(None, 0)
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    with pytest.raises(GeometryError, match="sheared") as caught:
        read_image([tmp_path / "a.nii"])
    assert caught.value.code == "E_SHEAR"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_voxels_that_are_not_finite_as_float32_are_counted_and_refused(tmp_path, value):
    array = np.zeros((5, 4, 3))
    array[1, 2, 0] = array[0, 0, 0] = value
    (tmp_path / "a.nii").write_bytes(nifti_bytes(array))
    with pytest.raises(ReadError, match="2 of 60 voxels") as caught:
        read_image([tmp_path / "a.nii"])
    assert caught.value.code == "E_NONFINITE"


def test_label_map_of_fractions_is_refused_with_an_example(tmp_path):
    array = np.zeros((5, 4, 3), np.float32)
    array[1, 2, 0] = 0.5
    (tmp_path / "a.nii").write_bytes(nifti_bytes(array))
    with pytest.raises(ReadError, match=r"1 voxels .* 0\.5"):
        read_label_map(tmp_path / "a.nii")


def test_promised_but_missing_voxels_cost_no_memory(tmp_path):
    (tmp_path / "a.nii").write_bytes(BAD_HEADERS["huge"][0])
    tracemalloc.start()
    with pytest.raises(ReadError):
        read_image([tmp_path / "a.nii"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
@pytest.mark.parametrize("shape", [(1, 5, 4, 3), (2, 5, 4, 3), (1, 1, 4, 3)])
def test_files_are_to_the_byte_those_of_nibabel(dtype, shape):
    voxels = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    geometry = Geometry(shape[1:], (2.5, 0.7, 1.3), (3.0, -8.0, 21.0))
    plain = nifti.encode(Path("a.nii"), voxels, geometry)
    image = nib.Nifti1Image.from_bytes(plain)
    again = nib.Nifti1Image(voxels[0].T if shape[0] == 1 else voxels.T, None, header=image.header, dtype=dtype)
    assert plain == again.to_bytes()
    np.testing.assert_array_equal(np.asarray(image.dataobj), voxels[0].T if shape[0] == 1 else voxels.T)
    assert gzip.decompress(nifti.encode(Path("a.nii.gz"), voxels, geometry)) == plain


def test_reading_and_writing_hold_little_more_than_the_image(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 4, (1, 120, 128, 128)).astype(np.int16)
    geometry = Geometry(voxels.shape[1:], (1.0, 1.0, 1.0))
    tracemalloc.start()
    content = nifti.encode(Path("a.nii.gz"), voxels, geometry)
    writing = tracemalloc.get_traced_memory()[1]
    (tmp_path / "a.nii.gz").write_bytes(content)
    del content
    tracemalloc.reset_peak()
    image = read_image([tmp_path / "a.nii.gz"], compact=True)
    reading = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert writing < 0.7 * voxels.nbytes
    assert reading < 1.7 * voxels.nbytes
    assert image.voxels.dtype == np.int16
    np.testing.assert_array_equal(image.orientation.undo(image.voxels), voxels)


@pytest.mark.parametrize(("dtype", "read"), [(np.int16, np.int16), (np.uint8, np.uint8), (np.uint16, np.uint16),
                                             (np.int32, np.float32), (np.float64, np.float32)])
def test_integers_that_float32_holds_exactly_can_stay_what_they_are(tmp_path, dtype, read):
    array = np.arange(60).reshape(3, 4, 5).astype(dtype)
    (tmp_path / "a.nii").write_bytes(nifti_bytes(array))
    compact, plain = (read_image([tmp_path / "a.nii"], compact=compact) for compact in (True, False))
    assert compact.voxels.dtype == read
    assert plain.voxels.dtype == np.float32
    np.testing.assert_array_equal(compact.voxels, plain.voxels)
    assert compact.geometry == plain.geometry


def test_integers_with_a_scale_are_what_they_mean(tmp_path):
    content = nifti_bytes(np.arange(60).reshape(3, 4, 5).astype(np.int16))
    (tmp_path / "a.nii").write_bytes(patched(content, 112, "<ff", 0.5, -1.0))
    image = read_image([tmp_path / "a.nii"], compact=True)
    assert image.voxels.dtype == np.float32
    assert (image.voxels.min(), image.voxels.max()) == (-1.0, 28.5)
