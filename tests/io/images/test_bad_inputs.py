from __future__ import annotations

import gzip
import os
import resource
import sys
import threading
import time
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from bad_inputs import (
    AFFINE,
    BAD,
    FORMS,
    NAN,
    PIXDIM,
    SCALE,
    UNITS,
    forms,
    itk_bytes,
    nifti_bytes,
    patched,
)

from autoseg.core.errors import AutosegError, DatasetError, GeometryError, ReadError
from autoseg.io.images import nifti, read_geometry, read_image, read_label_map, unchanged

VOXELS = np.random.default_rng(0).normal(100, 20, (11, 12, 13)).astype(np.float32)


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_is_refused_by_name_and_code(tmp_path, name):
    bad = BAD[name]
    path = write(tmp_path, name + bad.ending, bad.build(VOXELS))
    with pytest.raises(DatasetError) as caught:
        read_image([path], channels=1)
    assert caught.value.code == bad.code
    assert path.name in str(caught.value)


def test_the_sound_images_that_the_bad_ones_are_made_from_are_read(tmp_path):
    contents = {"a.nii": nifti_bytes(VOXELS), "a.nii.gz": gzip.compress(nifti_bytes(VOXELS)),
                "b.nii.gz": forms(AFFINE, None)(VOXELS), "c.nii.gz": forms(None, AFFINE)(VOXELS)}
    contents |= {f"{ending}{compressed}{ending}": itk_bytes(VOXELS, ending, compressed)
                 for ending in (".mha", ".nrrd") for compressed in (True, False)}
    for name, content in contents.items():
        image = read_image([write(tmp_path, name, content)], channels=1)
        np.testing.assert_array_equal(image.orientation.undo(image.voxels)[0], VOXELS.T)


@pytest.mark.parametrize("name", ["bomb", "zeros_behind", "bomb_mha", "huge_gz", "huge_plain"])
def test_a_bomb_is_refused_before_memory_is_taken(tmp_path, name):
    path = write(tmp_path, name + BAD[name].ending, BAD[name].build(VOXELS))
    tracemalloc.start()
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(ReadError):
        read_image([path])
    seconds, peak = time.monotonic() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024)
    assert peak < 2 * path.stat().st_size + 2**23 and grown < 2**26 and seconds < 5


def test_the_number_of_voxels_that_are_not_finite_is_said_by_kind(tmp_path):
    path = write(tmp_path, "a.nii.gz", BAD["few_nan"].build(VOXELS))
    with pytest.raises(ReadError, match=r"3 of 1716 voxels are not finite numbers \(2 nan, 1 infinite"):
        read_image([path])


def test_a_channel_of_one_value_is_noted_or_refused_with_the_file(tmp_path):
    paths = [write(tmp_path, "a.nii.gz", gzip.compress(nifti_bytes(VOXELS))),
             write(tmp_path, "b.nii.gz", gzip.compress(nifti_bytes(np.full_like(VOXELS, 7))))]
    notes = []
    read_image(paths, notes=notes)
    assert [note.code for note in notes] == ["W_CONSTANT"] and "value 7" in notes[0].text
    with pytest.raises(ReadError, match=r"b\.nii\.gz: every voxel .* value 7") as caught:
        read_image(paths, varied=True)
    assert caught.value.code == "E_CONSTANT"
    integers = write(tmp_path, "c.nii.gz", gzip.compress(nifti_bytes(np.full(VOXELS.shape, 7, np.int16))))
    with pytest.raises(ReadError, match="value 7"):
        read_image([integers], varied=True, compact=True)


def test_one_voxel_that_differs_makes_an_image_varied(tmp_path):
    voxels = np.zeros_like(VOXELS)
    voxels[-1, -1, -1] = 1
    path = write(tmp_path, "a.nii.gz", gzip.compress(nifti_bytes(voxels)))
    assert read_image([path], varied=True).voxels.sum() == 1


def notes_of(path):
    notes = []
    image = read_image([path], notes=notes)
    return image, {note.code for note in notes}


def test_negative_voxel_sizes_are_taken_as_positive_with_a_note(tmp_path):
    content = gzip.decompress(forms(AFFINE, None)(VOXELS))
    image, codes = notes_of(write(tmp_path, "a.nii", patched(content, PIXDIM + 8, "<f", -0.7)))
    assert image.stored.spacing_mm == pytest.approx((2.5, 0.7, 1.3)) and codes == {"W_PIXDIM"}


@pytest.mark.parametrize("value", [0.0, NAN])
def test_unusable_voxel_sizes_do_not_matter_beside_a_sound_sform(tmp_path, value):
    image, codes = notes_of(write(tmp_path, "a.nii", patched(nifti_bytes(VOXELS), PIXDIM + 8, "<f", value)))
    assert image.stored.spacing_mm == pytest.approx((2.5, 0.7, 1.3)) and codes == {"W_PIXDIM"}


@pytest.mark.parametrize("qfac", [0.0, 1.0, NAN])
def test_a_qfac_that_is_not_negative_means_one(tmp_path, qfac):
    """nifti1.h, METHOD 2: qfac is -1 or 1; nifti_clib takes everything else as 1."""
    content = gzip.decompress(forms(AFFINE, None)(VOXELS))
    expected = read_image([write(tmp_path, "a.nii", content)]).geometry
    assert read_image([write(tmp_path, "b.nii", patched(content, PIXDIM, "<f", qfac))]).geometry == expected


def test_an_axis_that_a_flat_image_does_not_have_needs_no_voxel_size(tmp_path):
    content = nib.Nifti1Image(VOXELS[:, :, 0], None).to_bytes()
    content = patched(patched(content, FORMS, "<hh", 0, 0), PIXDIM + 4, "<fff", 1.3, 0.7, 0.0)
    image, codes = notes_of(write(tmp_path, "a.nii", content))
    assert image.stored.spacing_mm == pytest.approx((1.0, 0.7, 1.3)) and codes == {"W_NO_GEOMETRY"}


@pytest.mark.parametrize(("unit", "factor"), [(1, 1000.0), (3, 1e-3), (2, 1.0), (0, 1.0), (10, 1.0)])
def test_lengths_in_other_units_become_millimetres(tmp_path, unit, factor):
    """nifti1.h, xyzt_units: 1 metre, 2 mm, 3 micrometre, 0 unknown; 8 more for seconds. ITK converts alike."""
    image, codes = notes_of(write(tmp_path, "a.nii", patched(nifti_bytes(VOXELS), UNITS, "b", unit)))
    assert image.stored.spacing_mm == pytest.approx(np.array((2.5, 0.7, 1.3)) * factor)
    assert image.stored.origin_mm == pytest.approx(np.array((30, 20, -10)) * factor)
    assert codes == ({"W_UNIT"} if factor != 1 else set())


def test_an_image_that_says_no_orientation_is_read_with_a_note(tmp_path, caplog):
    path = write(tmp_path, "a.nii", patched(nifti_bytes(VOXELS), FORMS, "<hh", 0, 0))
    assert notes_of(path)[1] == {"W_NO_GEOMETRY"} and not caplog.text
    read_image([path])
    assert "a.nii" in caplog.text and "right and left may be exchanged" in caplog.text
    plain = itk_bytes(VOXELS, ".nrrd", False)
    start = plain.index(b"space: ")
    lines = [line for line in plain[start:plain.index(b"\n\n")].split(b"\n") if not line.startswith(b"space")]
    content = plain[:start] + b"\n".join([*lines, b"spacings: 1.3 0.7 2.5"]) + plain[plain.index(b"\n\n"):]
    image, codes = notes_of(write(tmp_path, "a.nrrd", content))
    assert codes == {"W_NO_GEOMETRY"} and image.stored.spacing_mm == (2.5, 0.7, 1.3)


def test_a_stack_without_spacing_is_noted(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VOXELS)
    assert notes_of(tmp_path / "a.tif")[1] == {"W_NO_SPACING"}
    tifffile.imwrite(tmp_path / "b.tif", VOXELS[0])
    assert notes_of(tmp_path / "b.tif")[1] == set()


def rotation(angles_deg):
    turn = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(angles_deg)):
        first, second = [other for other in range(3) if other != axis]
        step = np.eye(3)
        step[first, first] = step[second, second] = np.cos(angle)
        step[first, second], step[second, first] = -np.sin(angle), np.sin(angle)
        turn = turn @ step
    return turn


def write_sparse(folder, header):
    """A header and as many zeros as it promises, which take no space on the disk."""
    path = write(folder, "a.nii", header.binaryblock)
    os.truncate(path, 352 + 512 * 512 * 200 * 4)
    return path


def test_a_quaternion_that_32_bits_round_is_no_conflict(tmp_path):
    """Images in DICOM's axes are turned by 180 degrees, where qform and sform written from one affine differ by up to 0.7
    voxels at the corner of a large image: the quaternion's first part is the root of a rounded small number."""
    rng = np.random.default_rng(0)
    header = nib.Nifti1Header()
    header.set_data_shape((512, 512, 200))
    header.set_data_offset(352)
    apart = []
    for _ in range(100):
        affine = np.eye(4)
        affine[:3, :3] = np.diag([-1.0, -1.0, 1.0]) @ rotation(rng.normal(0, 6, 3)) * (0.5, 0.5, 1.0)
        affine[:3, 3] = rng.normal(0, 100, 3)
        header.set_sform(affine, 1)
        header.set_qform(affine, 1)
        read_geometry(write_sparse(tmp_path, header))
        apart.append(nifti._corner_distance(header.get_qform(), header.get_sform(), (200, 512, 512)))
    assert max(apart) > 10 * nifti.AFFINE_TOLERANCE_VOXELS  # or this tests nothing
    affine[0, 3] += 1.0  # two voxels
    header.set_qform(affine, 1)
    with pytest.raises(GeometryError, match="voxels apart"):
        read_geometry(write_sparse(tmp_path, header))


def test_channels_of_other_shape_place_or_direction_are_refused_naming_both_files(tmp_path):
    first = write(tmp_path, "a.nii.gz", gzip.compress(nifti_bytes(VOXELS)))
    moved, turned = AFFINE.copy(), AFFINE.copy()
    moved[0, 3] += 5
    turned[:3, 0], turned[0, 3] = -AFFINE[:3, 0], AFFINE[0, 3] + 10 * 1.3
    for name, content in {"larger": nifti_bytes(np.zeros((12, 12, 13), np.float32)), "moved": nifti_bytes(VOXELS, moved)}.items():
        other = write(tmp_path, f"{name}.nii", content)
        for read in (lambda other=other: read_image([first, other]),
                     lambda other=other: read_label_map(other, reference=read_image([first]).geometry)):
            with pytest.raises(GeometryError, match=name) as caught:
                read()
            assert caught.value.code == "E_GRID"
    with pytest.raises(GeometryError, match=r"a\.nii\.gz.*turned\.nii") as caught:  # same places, stored mirrored
        read_image([first, write(tmp_path, "turned.nii", nifti_bytes(VOXELS, turned))])
    assert caught.value.code == "E_GRID"


@pytest.mark.parametrize(("kind", "value", "code"), [(np.float32, 0.5, "E_LABEL_VALUE"), (np.float32, NAN, "E_NONFINITE"),
                                                     (np.int64, 2**40, "E_LABEL_VALUE")])
def test_label_values_that_mean_no_label_are_refused(tmp_path, kind, value, code):
    label = np.zeros((5, 4, 3), kind)
    label[1, 2, 0] = value
    with pytest.raises(ReadError, match="a.nii") as caught:
        read_label_map(write(tmp_path, "a.nii", nib.Nifti1Image(label, AFFINE, dtype=kind).to_bytes()))
    assert caught.value.code == code


@pytest.mark.parametrize(("kind", "value", "codes"), [(np.float64, 1.0000001, {"W_LABEL_ROUNDED"}), (np.float32, 2.0, set()),
                                                      (np.int64, 300, set()), (np.int16, -3, set())])
def test_label_values_near_integers_are_rounded_with_a_note(tmp_path, kind, value, codes):
    label = np.zeros((5, 4, 3), kind)
    label[1, 2, 0] = value
    notes = []
    read = read_label_map(write(tmp_path, "a.nii", nib.Nifti1Image(label, AFFINE, dtype=kind).to_bytes()), notes=notes)
    assert np.unique(read.voxels).tolist() == sorted({0, round(value)})
    assert {note.code for note in notes} == codes


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.int64, np.float32, np.float64])
def test_compressed_nrrd_and_mha_hold_what_simpleitk_reads(tmp_path, kind, compressed):
    rng = np.random.default_rng(0)
    single = rng.integers(0, 100, (3, 4, 5)).astype(kind)
    pair = [single, single + 1]
    for voxels, is_vector in ((single, False), (np.stack(pair, -1), True), (np.stack(pair), False)):
        for ending in (".mha", ".nrrd"):
            image = sitk.GetImageFromArray(voxels, isVector=is_vector)
            sitk.WriteImage(image, str(tmp_path / f"a{ending}"), useCompression=compressed)
            expected = np.moveaxis(voxels, -1, 0) if is_vector else voxels.reshape(-1, 3, 4, 5)
            np.testing.assert_array_equal(read_image([tmp_path / f"a{ending}"]).voxels, expected)


def test_the_byte_order_of_compressed_nrrd_and_mha_is_obeyed(tmp_path):
    import zlib

    numbers = np.arange(60, dtype=">i2").reshape(3, 4, 5)
    nrrd = itk_bytes(np.arange(60, dtype=np.int16).reshape(3, 4, 5).T, ".nrrd", True)
    nrrd = nrrd[:nrrd.index(b"\n\n") + 2].replace(b"little", b"big") + gzip.compress(numbers.tobytes())
    mha = itk_bytes(np.arange(60, dtype=np.int16).reshape(3, 4, 5).T, ".mha", True)
    mha = mha[:mha.index(b"LOCAL\n") + 6].replace(b"OrderMSB = False", b"OrderMSB = True") + zlib.compress(numbers.tobytes())
    for name, content in (("a.nrrd", nrrd), ("a.mha", mha)):
        np.testing.assert_array_equal(read_image([write(tmp_path, name, content)]).voxels[0], numbers)


def test_nothing_is_printed_where_simpleitk_would_complain_itself(tmp_path, capfd):
    for name in ("half_mha", "half_raw_mha", "checksum_mha", "flipped_mha", "half_nrrd"):
        with pytest.raises(ReadError):
            read_image([write(tmp_path, name + BAD[name].ending, BAD[name].build(VOXELS))])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha", "a.png", "a.tif"])
def test_a_file_that_may_not_be_read_is_named(tmp_path, name, monkeypatch):
    path = write(tmp_path, name, b"x")
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read everything; the system's refusal is then played
        monkeypatch.setattr(type(path), "open", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    for read in (lambda: read_image([path]), lambda: read_geometry(path)):
        with pytest.raises(ReadError, match=rf"{name} cannot be read: Permission denied") as caught:
            read()
        assert caught.value.code == "E_READ"


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha"])
def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path, ending, monkeypatch):
    """The writer comes between the read and its end, for certain; the reader's own code runs unchanged."""
    plain = itk_bytes(VOXELS, ".mha", False) if ending == ".mha" else nifti_bytes(VOXELS)
    content = gzip.compress(plain) if ending == ".nii.gz" else plain
    path = write(tmp_path, f"a{ending}", content)
    from autoseg.io.images import door

    decoded = door._decoded

    def decode_while_another_writes(*arguments):
        image = decoded(*arguments)
        with path.open("ab") as file:
            file.write(b"more")
        return image

    monkeypatch.setattr(door, "_decoded", decode_while_another_writes)
    with pytest.raises(ReadError, match=rf"a{ending} changed \(from {len(content)} to {len(content) + 4} bytes\)") as caught:
        read_image([path])
    assert caught.value.code == "E_CHANGED"


def test_a_copy_that_still_runs_is_called_so_and_not_truncated(tmp_path):
    """A real writer in a real thread: whatever the reader sees, a whole image or a refusal, it never is a wrong image."""
    content = nifti_bytes(VOXELS)
    whole = read_image([write(tmp_path, "whole.nii", content)]).voxels
    path = write(tmp_path, "a.nii", content[:400])
    codes, stop = set(), threading.Event()

    def copy_again_and_again():
        while not stop.is_set():
            with path.open("wb", buffering=0) as file:
                for start in range(0, len(content), 500):
                    file.write(content[start:start + 500])

    writer = threading.Thread(target=copy_again_and_again)
    writer.start()
    try:
        end = time.monotonic() + 10
        while "E_CHANGED" not in codes and time.monotonic() < end:
            try:
                np.testing.assert_array_equal(read_image([path]).voxels, whole)
            except AutosegError as error:
                codes.add(error.code)
    finally:
        stop.set()
        writer.join()
    assert "E_CHANGED" in codes


def test_files_that_appear_vanish_or_are_replaced_are_noticed(tmp_path):
    path = tmp_path / "a"
    with pytest.raises(ReadError, match="appeared"), unchanged([path]):
        path.write_bytes(b"1")
    with pytest.raises(ReadError, match="vanished"), unchanged([path]):
        path.unlink()
    path.write_bytes(b"1")
    os.utime(path, ns=(0, 10**9))
    with pytest.raises(ReadError, match="changed"), unchanged([path]):
        (tmp_path / "b").write_bytes(b"2")
        os.replace(tmp_path / "b", path)
    with unchanged([path]):
        path.read_bytes()


def test_an_error_in_a_file_that_did_not_change_stays_what_it_is(tmp_path):
    path = write(tmp_path, "a.nii.gz", b"")
    with pytest.raises(ReadError) as caught, unchanged([path]):
        read_image([path])
    assert caught.value.code == "E_EMPTY"


def test_a_slope_of_zero_or_nan_is_none_and_a_real_one_counts(tmp_path):
    content = nifti_bytes(np.arange(60, dtype=np.int16).reshape(5, 4, 3))
    for slope, factor in ((0.0, 1), (NAN, 1), (1e30, 1e30), (-2.0, -2)):
        image = read_image([write(tmp_path, "a.nii", patched(content, SCALE, "<ff", slope, 0.0))])
        assert image.voxels.sum() == pytest.approx(60 * 59 / 2 * factor)


@pytest.mark.parametrize(("name", "advice"), [("a.img", "Analyze"), ("a.hdr", "Analyze"), ("a.mgz", "convert"),
                                              ("a.mhd", "one file"), ("a.nhdr", "one file"), ("a.dcm", "convert")])
def test_formats_without_orientation_are_refused_by_name(tmp_path, name, advice):
    with pytest.raises(ReadError, match=advice) as caught:
        read_image([write(tmp_path, name, nifti_bytes(VOXELS))])
    assert caught.value.code == "E_FORMAT"
