from __future__ import annotations

import json
import pickle
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from autoseg.core.errors import DatasetError, ReadError, ResourceError, UnsafeError
from autoseg.core.geometry import Geometry, GridRecord, Orientation
from autoseg.io import store as store_module
from autoseg.io.atomic import sha256_file
from autoseg.io.store import Store

RECORD = GridRecord(
    Geometry((9, 10, 11), (2.5, 0.7, 1.3), (-1.0, 2.0, 1 / 3)),
    Orientation((2, 0, 1), (True, False, True)),
    ((0, 5), (1, 3), (0, 4)),
    (1, 0, 2),
    (7, 8, 9),
    (1.0, 1.0, 0.1),
)


@pytest.fixture
def arrays():
    rng = np.random.default_rng(7)
    return {
        "image": rng.normal(size=(2, 70, 60, 50)).astype(np.float32),
        "label": rng.integers(0, 3, (1, 70, 60, 50), np.uint8),
        "places": rng.integers(0, 9, (4, 3)),
        "empty": np.zeros((0, 3), np.int32),
        "mask": rng.random((70, 60, 50)) < 0.5,
    }


@pytest.fixture
def store(tmp_path, arrays):
    store = Store(tmp_path / "store")
    store.write_case("case.01", arrays, RECORD, source_digest="abc", chunk_hint=(32, 24, 20))
    return store


def count_reads(monkeypatch):
    reads = []
    read = store_module._read_array
    monkeypatch.setattr(store_module, "_read_array", lambda path, region: reads.append(path.name) or read(path, region))
    return reads


def test_arrays_and_record_come_back_equal_in_a_new_store(store, arrays):
    again = Store(store.folder)
    assert again.cases() == ("case.01",)
    assert again.names("case.01") == tuple(arrays)
    assert again.record("case.01") == RECORD
    for name, array in arrays.items():
        read = again.array("case.01", name)
        np.testing.assert_array_equal(read, array)
        assert read.dtype == array.dtype and again.shape("case.01", name) == array.shape


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
def test_a_box_is_the_same_part_of_the_array(store, arrays, cache_bytes):
    again = Store(store.folder, cache_bytes=cache_bytes)
    for box in (((3, 40), (0, 60), (17, 18)), ((0, 70), (0, 60), (0, 50)), ((69, 70), (59, 60), (49, 50))):
        part = (..., *(slice(*limits) for limits in box))
        for name in ("image", "label", "mask"):
            read = again.array("case.01", name, box)
            np.testing.assert_array_equal(read, arrays[name][part])
            assert read.flags.writeable and read.flags.c_contiguous


@pytest.mark.parametrize("box", [((-1, 2), (0, 1), (0, 1)), ((0, 71), (0, 1), (0, 1)), ((2, 2), (0, 1), (0, 1))])
def test_a_box_outside_the_array_is_refused(store, box):
    with pytest.raises(ValueError, match="does not lie inside"):
        store.array("case.01", "image", box)


def test_large_arrays_are_chunked_and_small_ones_plain(store):
    files = sorted(path.name for path in store.folder.iterdir())
    assert files == [
        "case.01.case.json",
        "case.01.empty.npy",
        "case.01.image.b2nd",
        "case.01.label.npy",
        "case.01.mask.npy",
        "case.01.places.npy",
    ]


def test_chunks_follow_the_patch_and_keep_axes_that_are_hardly_longer():
    assert store_module._chunk_shape((4, 155, 240, 240), (128, 128, 128)) == (1, 155, 128, 128)
    assert store_module._chunk_shape((40, 56, 40), (40, 56, 40)) == (40, 56, 40)
    blocks = store_module._block_shape((1, 155, 128, 128), 4)
    assert np.prod(blocks) * 4 <= store_module.BLOCK_BYTES and min(blocks[1:]) > 8


def test_what_is_returned_belongs_to_the_caller(store, arrays):
    store.array("case.01", "label")[:] = 9
    store.array("case.01", "label", ((0, 5), (0, 5), (0, 5)))[:] = 9
    np.testing.assert_array_equal(store.array("case.01", "label"), arrays["label"])


def test_small_arrays_are_read_from_disk_once(store, arrays, monkeypatch):
    reads = count_reads(monkeypatch)
    for start in range(5):
        store.array("case.01", "label", ((start, start + 3), (0, 4), (0, 5)))
    assert reads == ["case.01.label.npy"]


def test_cache_forgets_what_was_not_used_for_longest_and_stays_within_its_limit(tmp_path, monkeypatch):
    store = Store(tmp_path, cache_bytes=64 * 1000 * 2)
    for index in range(4):
        store.write_case(f"c{index}", {"image": np.full((1, 10, 10, 10), index, np.uint8)}, RECORD, source_digest="x")
    monkeypatch.setattr(store_module, "_WHOLE_SHARE", 1)
    store.cache_bytes = 3500
    reads = count_reads(monkeypatch)
    for index in (0, 1, 2, 0, 3, 0, 1):
        assert store.array(f"c{index}", "image")[0, 0, 0, 0] == index
    assert [name[1] for name in reads] == list("01231")
    assert store._cached_bytes == 3000 == sum(array.nbytes for array in store._cache.values())


def test_arrays_too_large_for_the_cache_are_read_by_box(store, monkeypatch):
    again = Store(store.folder, cache_bytes=1000)
    again.array("case.01", "image", ((0, 2), (0, 2), (0, 2)))
    assert again._cached_bytes == 0


def test_a_case_exists_for_its_source_only(store):
    assert store.has_case("case.01", "abc") and Store(store.folder).has_case("case.01", "abc")
    assert not store.has_case("case.01", "other") and not store.has_case("case.02", "abc")


def test_a_case_without_its_record_or_with_a_shortened_array_does_not_exist(store):
    (store.folder / "case.01.label.npy").write_bytes(b"short")
    assert not store.has_case("case.01", "abc")
    (store.folder / "case.01.case.json").unlink()
    assert not store.has_case("case.01", "abc") and store.cases() == ()


def test_a_damaged_record_means_that_the_case_is_stored_again(store, caplog):
    (store.folder / "case.01.case.json").write_text('{"case": ')
    assert not store.has_case("case.01", "abc")
    assert "stored again" in caplog.text


def test_a_killed_write_leaves_no_case(tmp_path, arrays, monkeypatch):
    store = Store(tmp_path)
    monkeypatch.setattr(store_module, "write_bytes", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        store.write_case("a", arrays, RECORD, source_digest="abc")
    assert not store.has_case("a", "abc") and store.cases() == ()


def test_writing_again_replaces_arrays_and_forgets_old_ones(store):
    store.array("case.01", "label")
    store.write_case("case.01", {"label": np.ones((1, 2, 3, 4), np.uint8)}, RECORD, source_digest="new")
    assert store.names("case.01") == ("label",)
    np.testing.assert_array_equal(store.array("case.01", "label"), np.ones((1, 2, 3, 4)))
    assert store.has_case("case.01", "new") and not store.has_case("case.01", "abc")


def test_record_holds_digests_of_the_files(store):
    from autoseg.io.atomic import sha256_file

    record = json.loads((store.folder / "case.01.case.json").read_text())
    assert {entry["file"]: entry["sha256"] for entry in record["arrays"]} == {
        path.name: sha256_file(path) for path in store.folder.iterdir() if path.suffix != ".json"
    }


def test_other_files_in_the_folder_are_not_cases(store):
    (store.folder / "done.json").write_text("{}")
    (store.folder / ".x.case.json.12.part").write_text("{}")
    assert store.cases() == ("case.01",)


def test_damaged_arrays_missing_cases_and_missing_arrays_say_what_to_do(store):
    (store.folder / "case.01.image.b2nd").write_bytes(b"nothing")
    (store.folder / "case.01.label.npy").write_bytes(b"\x93NUMPY")
    for name in ("image", "label"):
        with pytest.raises(ReadError, match=f"{name}.*preprocess the dataset again"):
            store.array("case.01", name)
    with pytest.raises(DatasetError, match="case nobody is not in the store"):
        store.names("nobody")
    with pytest.raises(DatasetError, match="no array 'lable', only image, label"):
        store.array("case.01", "lable")


@pytest.mark.parametrize("case_id", ["../up", "a/b", "", ".hidden", "-rf", "con"])
def test_ids_that_lead_out_of_the_folder_are_refused(store, case_id):
    with pytest.raises(UnsafeError):
        store.write_case(case_id, {}, RECORD, source_digest="x")
    with pytest.raises(UnsafeError):
        store.record(case_id)


def test_names_of_arrays_that_cannot_be_files_are_refused(store):
    with pytest.raises(UnsafeError, match="a.b"):
        store.write_case("c", {"a.b": np.zeros(3)}, RECORD, source_digest="x")


def test_objects_are_never_pickled_into_the_store(store):
    with pytest.raises(ValueError, match="pickle"):
        store.write_case("c", {"a": np.array([{}], dtype=object)}, RECORD, source_digest="x")


def test_a_full_disk_is_reported_with_the_file(tmp_path, arrays, monkeypatch):
    def refuse(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", refuse)
    with pytest.raises(ResourceError, match=r"c\.image\.b2nd.*disk is full"):
        Store(tmp_path).write_case("c", arrays, RECORD, source_digest="x")


def test_a_store_travels_to_another_process_without_its_cache(store):
    store.array("case.01", "label")
    other = pickle.loads(pickle.dumps(store))
    assert other.folder == store.folder and other.cache_bytes == store.cache_bytes and not other._cache


def test_threads_read_and_write_one_store(tmp_path):
    store = Store(tmp_path, cache_bytes=70_000)
    store._verified.update(("other", str(index)) for index in range(100_000))  # in a long run; going through them takes a while

    def use(index):
        array = np.full((1, 10, 10, 10), index, np.uint8)
        store.write_case(f"c{index}", {"image": array}, RECORD, source_digest="x")
        return all((store.array(f"c{index}", "image") == index).all() for _ in range(20))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(24)))
    assert store._cached_bytes == sum(array.nbytes for array in store._cache.values())


def flip(path, place):
    """Turns one bit of a file; its size stays."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["image", "label", "places", "mask"])
def test_one_flipped_bit_of_an_array_is_found_when_it_is_first_read(store, name, caplog):
    [path] = store.folder.glob(f"case.01.{name}.*")
    flip(path, path.stat().st_size // 2)
    again = Store(store.folder)
    with pytest.raises(ReadError, match=re.escape(str(path))) as damaged:
        again.array("case.01", name, ((0, 1), (0, 1), (0, 1)) if name != "places" else None)
    assert damaged.value.code == "E_STORE_DAMAGED" and "plan_and_preprocess" in damaged.value.hint
    assert again.has_case("case.01", "abc") and not again.has_case("case.01", "abc", check_digests=True)
    assert path.name in caplog.text


def test_a_changed_number_in_the_record_of_a_case_is_found(store, arrays):
    sidecar = store.folder / "case.01.case.json"
    sidecar.write_text(sidecar.read_text().replace("0.7", "0.8"))
    again = Store(store.folder)
    with pytest.raises(ReadError, match="case.01.case.json is missing or differs"):
        again.record("case.01")
    assert not again.has_case("case.01", "abc")
    again.write_case("case.01", arrays, RECORD, source_digest="abc")
    assert Store(store.folder).record("case.01") == RECORD


def test_a_record_of_an_earlier_version_has_no_digest_and_is_read(store):
    sidecar = store.folder / "case.01.case.json"
    document = json.loads(sidecar.read_text())
    del document["digest"]
    sidecar.write_text(json.dumps(document))
    assert Store(store.folder).record("case.01") == RECORD


def test_files_are_compared_with_their_digests_once_per_store(store, monkeypatch):
    hashed = []
    monkeypatch.setattr(store_module, "sha256_file", lambda path: hashed.append(path.name) or sha256_file(path))
    again = Store(store.folder, cache_bytes=0)
    for _ in range(3):
        again.array("case.01", "image", ((0, 2), (0, 2), (0, 2)))
        again.array("case.01", "label")
    assert hashed == ["case.01.image.b2nd", "case.01.label.npy"]


def test_a_case_written_anew_is_compared_anew(store, arrays):
    store.array("case.01", "label")
    store.write_case("case.01", arrays, RECORD, source_digest="abc")
    flip(store.folder / "case.01.label.npy", 300)
    with pytest.raises(ReadError):
        store.array("case.01", "label")
