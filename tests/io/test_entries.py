"""Archives as datasets: entries become cases, other arrays their values."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.core.case import Unit
from autoseg.core.errors import DatasetError, ReadError
from autoseg.core.spec import ChannelSpec, DatasetSpec, GroupingSpec, InputSpec, LayoutSpec
from autoseg.io.dataset import check_case, list_inputs, scan
from autoseg.io.specs import load_spec, read_spec, write_spec
from autoseg.stages.fingerprint import case_files, digest_unit

RNG = np.random.default_rng(3)


def spec(pattern="set.npz/{split}_images/{index}", case_id="{split}_{index}", channels=1, arrays=None, **grouping):
    layout = LayoutSpec("archive", {"image": (pattern,)}, case_id=case_id, arrays={"label": "{split}_labels"} if arrays is None
                        else arrays)
    names = tuple(ChannelSpec(f"c{place}") for place in range(channels))
    return DatasetSpec("Toy", "toy", (layout,), (InputSpec(channels=names),), grouping=GroupingSpec(**grouping))


def save(folder, name="set.npz", **arrays):
    np.savez_compressed(folder / name, **arrays)


def pictures(count, *shape):
    return RNG.integers(0, 255, (count, *(shape or (4, 5))), np.uint8)


def refused(action, *arguments):
    with pytest.raises(ReadError) as caught:
        action(*arguments)
    return caught.value.code, str(caught.value)


def test_entries_are_cases_with_split_index_and_label(tmp_path):
    save(tmp_path, train_images=pictures(3), train_labels=np.array([[2], [0], [1]], np.uint8), val_images=pictures(1),
         val_labels=np.array([[7]]))
    found = scan(spec(stratify_column="label"), tmp_path)
    assert [(case.id, case.stratum, case.values) for case in found.cases] == [
        ("train_000000", "2", {"split": "train", "index": "000000", "label": "2"}),
        ("train_000001", "0", {"split": "train", "index": "000001", "label": "0"}),
        ("train_000002", "1", {"split": "train", "index": "000002", "label": "1"}),
        ("val_000000", "7", {"split": "val", "index": "000000", "label": "7"})]
    assert found.cases[3].inputs == {"image": (tmp_path / "set.npz" / "val_images" / "000000",)}
    assert found.problems == found.ignored == () and check_case(spec(), found.cases[0]) == ()


@pytest.mark.parametrize(("labels", "values"), [
    (np.array([[0, 1, 1], [1, 0, 0]], np.uint8), [{"label.0": "0", "label.1": "1", "label.2": "1"},
                                                  {"label.0": "1", "label.1": "0", "label.2": "0"}]),
    (np.array([1.5, np.nan]), [{"label": "1.5"}, {"label": "nan"}]), (np.array([True, False]), [{"label": "1"}, {"label": "0"}]),
    (np.array(["benign", "mölig"]), [{"label": "benign"}, {"label": "mölig"}]), (np.array([b"a", b"b"]), [{"label": "a"},
                                                                                                         {"label": "b"}]),
])
def test_rows_of_other_arrays_become_texts(tmp_path, labels, values):
    save(tmp_path, images=pictures(2), y=labels)
    found = scan(spec("set.npz/images/{index}", "{index}", arrays={"label": "y"}), tmp_path)
    assert [{name: text for name, text in case.values.items() if name != "index"} for case in found.cases] == values


def test_colours_and_volumes_are_read_as_their_specification_says(tmp_path):
    save(tmp_path, colour=pictures(1, 4, 5, 3), volume=pictures(1, 6, 4, 5))
    wrong = ["E_CHANNELS"]
    for name, channels, codes in (("colour", 3, []), ("colour", 1, wrong), ("volume", 1, []), ("volume", 3, wrong)):
        toy = spec(f"set.npz/{name}/{{index}}", "{index}", channels, {})
        [case] = scan(toy, tmp_path).cases
        assert [problem.code for problem in check_case(toy, case)] == codes


@pytest.mark.parametrize(("arrays", "code", "words"), [
    ({"train_images": pictures(3)}, "E_ARRAY", "no array 'train_labels'; it has train_images (3, 4, 5)"),
    ({"train_images": pictures(3), "train_labels": np.zeros(2)}, "E_ARRAY",
     "train_images has 3 entries and train_labels has 2 rows"),
    ({"images": pictures(3), "train_labels": np.zeros(3)}, "E_ARRAY", "no array that fits set.npz/{split}_images/{index}"),
    ({"train_images": pictures(3), "train_labels": np.array([{}, 1, 2], dtype=object)}, "E_PICKLE",
     "train_labels holds Python objects"),
    ({"train_images": np.array([{}, 1], dtype=object), "train_labels": np.zeros(2)}, "E_PICKLE", "train_images holds"),
    ({"train_images": pictures(3), "train_labels": np.zeros((3, 2, 2))}, "E_ARRAY", "shape (3, 2, 2)"),
    ({"train_images": pictures(1), "train_labels": np.array(["a\nb"])}, "E_ARRAY", "control characters"),
])
def test_archives_that_do_not_fit_are_refused_by_name(tmp_path, arrays, code, words):
    save(tmp_path, **arrays)
    found = refused(scan, spec(), tmp_path)
    assert found[0] == code and words in found[1] and "set.npz" in found[1]


def test_a_truncated_archive_is_refused_by_name(tmp_path):
    save(tmp_path, train_images=pictures(30), train_labels=np.zeros(30))
    (tmp_path / "set.npz").write_bytes((tmp_path / "set.npz").read_bytes()[:-40])
    assert refused(scan, spec(), tmp_path)[0] == "E_TRUNCATED"


def test_other_archives_and_arrays_are_listed_and_not_opened(tmp_path):
    save(tmp_path, train_images=pictures(1), train_labels=np.zeros(1), notes=np.zeros(4))
    (tmp_path / "other.npz").write_text("damaged")
    found = scan(spec(), tmp_path)
    assert len(found.cases) == 1
    assert found.ignored == tuple(f"{name}: matches no pattern of layout archive" for name in ("set.npz/notes", "other.npz"))


def test_an_archive_is_predicted_as_a_file_or_in_its_folder(tmp_path):
    save(tmp_path, test_images=pictures(2))
    unlabelled = spec(arrays={})
    for place in (tmp_path, tmp_path / "set.npz"):
        assert [case.id for case in list_inputs(unlabelled, place).cases] == ["test_000000", "test_000001"]
    save(tmp_path, "new.npz", test_images=pictures(2))
    with pytest.raises(DatasetError, match="no case"):
        list_inputs(unlabelled, tmp_path / "new.npz")


def test_the_digest_of_a_case_is_of_its_entry_and_its_values(tmp_path):
    def digests(images, labels):
        save(tmp_path, train_images=images, train_labels=labels)
        cases = scan(spec(), tmp_path).cases
        assert case_files(cases[1]) == [tmp_path / "set.npz" / "train_images" / "000001"]
        return [digest_unit(Unit(case.id, (case,), case.group)) for case in cases]

    images, labels = pictures(3), np.array([0, 1, 0])
    before = digests(images, labels)
    images[1, 0, 0] += 1
    other_image = digests(images, labels)
    labels[2] = 1
    other_label = digests(images, labels)
    assert [one == two for one, two in zip(before, other_image, strict=True)] == [True, False, True]
    assert [one == two for one, two in zip(other_image, other_label, strict=True)] == [True, True, False]


def test_arrays_of_a_layout_are_checked_and_written(tmp_path):
    with pytest.raises(ValueError, match="need a pattern of entries in an archive"):
        LayoutSpec("l", {"image": ("{case}.png",)}, arrays={"label": "labels"})
    with pytest.raises(ValueError, match="use .'fold'.*, which no pattern has"):
        LayoutSpec("l", {"image": ("a.npz/{split}_images/{index}",)}, case_id="{index}", arrays={"label": "{fold}_labels"})
    write_spec(tmp_path / "s.yaml", spec())
    assert read_spec(tmp_path / "s.yaml") == spec()


def test_the_real_archives_are_understood(real_data):
    for name, folder, layout, counts in (
            ("PneumoniaMNIST", "cls_pneumoniamnist", "28 pixels", {("train", "0"): 1213, ("train", "1"): 3494}),
            ("AdrenalMNIST3D", "cls_adrenalmnist3d", "64 voxels", {})):
        found = scan(load_spec(name), real_data / folder)
        assert (found.layout, found.problems) == (layout, ())
        assert found.ignored == (f"README.md: matches no pattern of layout {layout}",)
        pairs = [(case.values["split"], case.values["label"]) for case in found.cases]
        assert {split: sum(pair[0] == split for pair in pairs) for split in ("train", "val")} == (
            {"train": 4707, "val": 524} if folder == "cls_pneumoniamnist" else {"train": 1188, "val": 98})
        assert all(pairs.count(pair) == count for pair, count in counts.items())
        assert check_case(load_spec(name), found.cases[-1]) == ()
