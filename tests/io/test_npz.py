"""Entries of arrays in archives, against numpy's own reader and against files that are damaged by hand."""

from __future__ import annotations

import io
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from autoseg.core.errors import ReadError
from autoseg.core.geometry import Geometry
from autoseg.io import npz
from autoseg.io.atomic import sha256_path
from autoseg.io.images import image_ending, read_geometry, read_image, unchanged, written_ending
from autoseg.io.npz import entry_of, read_entry, read_headers, read_values, require_array, stored_bytes

RNG = np.random.default_rng(5)


def save(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


def hand_made(path, **contents):
    """An archive whose arrays are the bytes given."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(f"{name}.npy", content)
    return path


def array_bytes(array, shape=None):
    """An array as numpy writes it; the header may promise another shape."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": array.dtype.str, "fortran_order": False,
                                                  "shape": array.shape if shape is None else shape})
    return stream.getvalue() + array.tobytes()


def code_of(action, *arguments):
    with pytest.raises(ReadError) as caught:
        action(*arguments)
    return caught.value.code


@pytest.mark.parametrize("save_as", [np.savez, np.savez_compressed])
def test_entries_are_those_of_numpy_in_any_order(tmp_path, monkeypatch, save_as):
    monkeypatch.setattr(npz, "_STEP_BYTES", 5000)
    monkeypatch.setattr(npz, "_BLOCK_BYTES", 700)
    noise, smooth = RNG.integers(0, 4000, (90, 7, 11), np.uint16), np.repeat(RNG.normal(size=(90, 1, 1)), 400, axis=2)
    save_as(tmp_path / "a.npz", noise=noise, smooth=smooth)
    for number in RNG.permutation(90):
        for name, array in (("noise", noise), ("smooth", smooth)):
            entry = read_entry(tmp_path / "a.npz" / name / f"{number:06d}")
            assert entry.dtype == array.dtype and entry.flags.writeable
            np.testing.assert_array_equal(entry, array[number])


def test_a_path_means_an_entry_by_its_name_only():
    path = Path("some/set.NPZ/train_images/000123")
    entry = entry_of(path)
    assert (entry.archive, entry.array, entry.index) == (Path("some/set.NPZ"), "train_images", 123)
    assert (image_ending(path), written_ending(path)) == (".npz/", ".nii.gz")
    assert [entry_of(Path(other)) for other in ("000123", "a/000123", "set.npz/000123", "set.npz/a/b/1", "set.npz/a/x1",
                                                "set.npz/a/1.png", "set.zip/a/1")] == [None] * 7


@pytest.mark.parametrize(("shape", "expected"), [
    ((2, 5, 7), (1, 1, 5, 7)), ((2, 5, 7, 3), (3, 1, 5, 7)), ((2, 5, 7, 1), (1, 1, 5, 7)), ((2, 4, 5, 7), (1, 4, 5, 7)),
    ((2, 4, 5, 7, 3), (3, 4, 5, 7)),
])
def test_axes_of_pictures_colours_and_volumes(tmp_path, shape, expected):
    array = RNG.integers(0, 255, shape, np.uint8)
    path = save(tmp_path / "a.npz", images=array) / "images" / "000001"
    image = read_image([path])
    assert image.voxels.shape == expected
    planes = np.moveaxis(array[1], -1, 0) if shape[-1] in (1, 3) else array[1][None]
    np.testing.assert_array_equal(image.voxels, planes.reshape(expected))
    assert read_geometry(path) == image.stored == Geometry(expected[1:], (1.0, 1.0, 1.0))


def test_other_axes_and_types_are_refused(tmp_path):
    path = save(tmp_path / "a.npz", line=np.zeros((3, 9)), five=np.zeros((3, 2, 4, 5, 6)), empty=np.zeros((3, 0, 5)),
                words=np.full((3, 2, 2), "a"), complex=np.zeros((3, 4, 4), complex), single=np.float32(1),
                fortran=np.asfortranarray(np.ones((3, 4, 5))))
    for name, code in (("line", "E_DIMENSIONS"), ("five", "E_DIMENSIONS"), ("empty", "E_DIMENSIONS"), ("words", "E_DTYPE"),
                       ("complex", "E_DTYPE"), ("single", "E_ARRAY"), ("fortran", "E_ARRAY"), ("none", "E_ARRAY")):
        assert code_of(read_image, [path / name / "000000"]) == code, name
    assert code_of(read_entry, path / "line" / "000003") == "E_ARRAY"


def test_a_boolean_shape_is_zeros_and_ones(tmp_path):
    path = save(tmp_path / "a.npz", shapes=np.eye(4, dtype=bool)[None])
    np.testing.assert_array_equal(read_image([path / "shapes" / "000000"]).voxels[0, 0], np.eye(4))


def test_python_objects_are_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "made by the pickle"),))

    path = save(tmp_path / "a.npz", images=np.array([Bomb(), 1], dtype=object), labels=np.array([{}, 1], dtype=object))
    assert list(read_headers(path)) == ["images", "labels"]
    assert code_of(read_entry, path / "images" / "000000") == "E_PICKLE"
    assert code_of(read_values, path, "labels") == "E_PICKLE"
    assert not (tmp_path / "made by the pickle").exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_archive_is_refused(tmp_path, share):
    path = save(tmp_path / "a.npz", images=RNG.integers(0, 255, (20, 9, 9), np.uint8))
    content = path.read_bytes()
    path.write_bytes(content[:int(share * len(content))])
    assert code_of(read_headers, path) == ("E_TRUNCATED" if share else "E_EMPTY")
    assert code_of(read_headers, tmp_path / "none.npz") == "E_MISSING"


def test_damage_is_found_before_the_first_entry_is_returned(tmp_path):
    array = np.zeros((50, 64, 64), np.uint8)
    for compression in (np.savez, np.savez_compressed):
        compression(tmp_path / "a.npz", images=array)
        content = bytearray((tmp_path / "a.npz").read_bytes())
        place = len(content) - 200 if compression is np.savez else content.index(b"images.npy") + 10 + 20 + 60
        content[place] ^= 0x10
        (tmp_path / f"{compression.__name__}.npz").write_bytes(content)
        assert code_of(read_entry, tmp_path / f"{compression.__name__}.npz" / "images" / "000000") == "E_DAMAGED"


@pytest.mark.parametrize(("content", "code"), [
    (array_bytes(np.zeros((3, 4, 4), np.uint8), shape=(4, 4, 4)), "E_TRUNCATED"),
    (array_bytes(np.zeros((3, 4, 4), np.uint8), shape=(2, 4, 4)), "E_SIZE"),
    (array_bytes(np.zeros((3, 4, 4), np.uint8), shape=(10**12, 4, 4)), "E_TRUNCATED"),
    (array_bytes(np.zeros((3, 4, 4), np.uint8), shape=(-3, -4, 4)), "E_SIZE"),
    (b"not an array at all", "E_DAMAGED"), (b"\x93NUMPY\x01\x00\x10\x00{'descr': '<", "E_DAMAGED"),
    (b"\x93NUMPY\x03\x00" + bytes(100), "E_DTYPE"), (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535, "E_DAMAGED"),
])
def test_headers_that_lie_are_refused(tmp_path, content, code):
    assert code_of(read_headers, hand_made(tmp_path / "a.npz", images=content)) == code


def test_what_is_no_array_or_there_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("notes.txt", "x")
    assert code_of(read_headers, tmp_path / "a.npz") == "E_FORMAT"
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a.npy", array_bytes(np.zeros(3)))
        archive.writestr("a.npy", array_bytes(np.ones(3)))
    assert code_of(read_headers, tmp_path / "b.npz") == "E_DAMAGED"
    with zipfile.ZipFile(tmp_path / "c.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.npy", array_bytes(np.zeros(3)))
    assert code_of(read_headers, tmp_path / "c.npz") == "E_COMPRESSION"


def test_digests_are_of_one_entry_with_its_type_and_shape(tmp_path):
    array = np.zeros((3, 2, 6), np.uint8)
    array[2, 1, 1] = 1
    save(tmp_path / "a.npz", a=array, b=array.reshape(3, 3, 4), c=array.astype(np.uint16), d=array[:2])
    digests = {(name, number): sha256_path(tmp_path / "a.npz" / name / f"{number:06d}") for name in "abc" for number in range(3)}
    assert digests["a", 0] == digests["a", 1] == sha256_path(tmp_path / "a.npz" / "d" / "000001")
    assert len(set(digests.values())) == 6  # an empty and a full entry of each kind
    assert stored_bytes(tmp_path / "a.npz" / "c" / "000000") == 24


def test_an_archive_that_changes_while_an_entry_is_used_is_noticed(tmp_path):
    path = save(tmp_path / "a.npz", images=np.zeros((3, 2, 2)))
    with pytest.raises(ReadError, match=r"000001 changed \(from"), unchanged([path / "images" / "000001"]):
        save(path, images=np.ones((4, 3, 3)))
    np.testing.assert_array_equal(read_entry(path / "images" / "000003"), np.ones((3, 3)))  # and nothing old is kept


def test_memory_stays_far_below_the_size_of_an_array(tmp_path):
    path = save(tmp_path / "a.npz", images=np.zeros((128, 1024, 1024), np.uint8))
    tracemalloc.start()
    try:
        entries = [read_entry(path / "images" / f"{number:06d}").max() for number in (127, 0, 30, 64)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert entries == [0, 0, 0, 0] and peak < 60e6  # of 134 MB; no more for a larger array


def test_values_are_read_whole(tmp_path):
    path = save(tmp_path / "a.npz", labels=np.array([[1], [0]], np.uint8), names=np.array(["a", "bc"]))
    assert read_values(path, "labels").tolist() == [[1], [0]] and read_values(path, "names").tolist() == ["a", "bc"]
    assert require_array(path, "names").shape == (2,)


def test_real_volumes_are_those_of_numpy(real_data):
    path = real_data / "cls_adrenalmnist3d" / "adrenalmnist3d_64.npz"
    with np.load(path) as archive:
        images = archive["val_images"]
    for number in (97, 0, 41):
        image = read_image([path / "val_images" / f"{number:06d}"])
        np.testing.assert_array_equal(image.voxels[0], images[number])


def test_no_change_of_an_archive_brings_more_than_a_refusal(tmp_path):
    sound = save(tmp_path / "sound.npz", images=RNG.integers(0, 9, (6, 8, 9), np.uint8), labels=np.zeros((6, 1))).read_bytes()
    outcomes = set()
    for number in range(400):
        content = np.frombuffer(sound, np.uint8).copy()
        places = RNG.integers(0, len(content), RNG.integers(1, 6))
        content[places] = RNG.integers(0, 256, len(places))
        path = tmp_path / f"{number}.npz"
        path.write_bytes(content[:len(content) - number % 3].tobytes())
        try:
            image = read_image([path / "images" / "000003"], notes=[])
            outcomes.add(image.voxels.shape)
        except ReadError as error:
            assert str(path) in str(error)
            outcomes.add("refused")
        path.unlink()
    assert outcomes == {"refused", (1, 1, 8, 9)}
