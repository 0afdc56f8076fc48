"""First specifications of folders whose targets are no images; each is read back and scanned."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as PillowImage

from autoseg.io.dataset import scan
from autoseg.io.initial import proposal_text, propose_spec
from autoseg.io.specs import read_spec

RNG = np.random.default_rng(4)


def pictures(folder, *names, colours=1):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = RNG.integers(0, 255, (12, 9, colours), np.uint8)
        PillowImage.fromarray(pixels[:, :, 0] if colours == 1 else pixels).save(folder / name)


def proposed(folder):
    """The specification as it is written and read back, its text, and what is scanned with it."""
    text = proposal_text(propose_spec(folder), folder)
    path = folder.parent / "first.yaml"
    path.write_text(text)
    spec = read_spec(path)
    return spec, text, scan(spec, folder)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "study").mkdir()
    return tmp_path / "study"


def test_sub_folders_of_classes(folder):
    pictures(folder, *(f"{word}/{word[0]}{number}.png" for word in ("NORMAL", "PNEUMONIA") for number in range(3)))
    spec, text, found = proposed(folder)
    assert (spec.task, spec.options) == ("classification", {"targets": [{"column": "class"}]})
    assert spec.layouts[0].inputs == {"image": ("{class}/{case}.png",)} and not spec.inputs[0].lossy
    assert [(case.id, case.values["class"]) for case in found.cases][2:4] == [("N2", "NORMAL"), ("P0", "PNEUMONIA")]
    assert found.problems == () and len(found.cases) == 6
    assert "- column: class  # ? the classes are the folders" in text


def test_equal_names_in_classes_below_splits_and_in_jpeg(folder):
    names = [f"{split}/{word}/{number}.jpeg" for split in ("train", "test") for word in ("benign", "malignant")
             for number in (1, 2)]
    pictures(folder, *names, colours=3)
    spec, text, found = proposed(folder)
    assert spec.layouts[0].case_id == "{split}_{class}_{case}" and spec.inputs[0].lossy
    assert [channel.name for channel in spec.inputs[0].channels] == ["red", "green", "blue"]
    assert spec.options["official_split"] == {"column": "split", "test": ["test"]}
    assert len(found.cases) == 8 and found.problems == ()
    assert found.cases[0].id == "test_benign_1" and "lossy: true  # ?" in text and "official_split:  # ?" in text


def test_images_beside_a_table_with_file_names(folder):
    pictures(folder, *(f"images/scan {number}.png".replace(" ", "_") for number in range(8)))
    rows = [f"images/scan_{number}.png;P{number // 2};{'F' if number % 3 else 'M'};{'mel' if number % 2 else 'nv'};note {number}"
            for number in range(8)]
    (folder / "list.csv").write_text("file;patient_id;sex;diagnosis;remark\n" + "\n".join([*rows, "images/gone.png;P9;F;nv;x"]))
    spec, text, found = proposed(folder)
    assert spec.layouts[0].inputs == {"image": ("images/{case}.png",)}
    assert (spec.grouping.table, spec.grouping.case_column, spec.grouping.group_column) == ("list.csv", "file", "patient_id")
    assert spec.options == {"targets": [{"column": "diagnosis"}]}
    assert [problem.code for problem in found.problems] == ["W_NO_FILE"] and len({case.group for case in found.cases}) == 4
    assert "diagnosis  # ? what is to be learned? Here: nv (5), mel (4)" in text and "case_column: file  # ?" in text


def test_a_table_without_anything_to_learn_says_so(folder):
    pictures(folder, *(f"{number}.png" for number in range(4)))
    (folder / "t.csv").write_text("case,view,remark\n" + "".join(f"{number},PA,text {number}\n" for number in range(4)))
    spec, text, _ = proposed(folder)
    assert spec.task == "classification" and "targets: []  # ? no column looks like a target" in text


@pytest.mark.parametrize(("arrays", "pattern", "label", "case_id", "targets", "ids"), [
    ({"train_images": (3, 8, 9), "train_labels": (3, 1), "test_images": (2, 8, 9), "test_labels": (2, 1)},
     "set.npz/{split}_images/{index}", "{split}_labels", "{split}_{index}", ["label"], ["test_000000", "train_000002"]),
    ({"x_train": (3, 8, 9, 3), "y_train": (3,), "x_test": (2, 8, 9, 3), "y_test": (2,)},
     "set.npz/x_{split}/{index}", "y_{split}", "{split}_{index}", ["label"], ["test_000000", "train_000002"]),
    ({"images": (3, 6, 8, 9), "findings": (3, 2), "age": (4,)},
     "set.npz/images/{index}", "findings", "{index}", ["label.0", "label.1"], ["000000", "000002"]),
])
def test_an_archive_of_arrays(folder, arrays, pattern, label, case_id, targets, ids):
    np.savez(folder / "set.npz", **{name: RNG.integers(0, 2, shape, np.uint8) for name, shape in arrays.items()})
    spec, text, found = proposed(folder)
    layout = spec.layouts[0]
    assert (layout.inputs, layout.arrays, layout.case_id) == ({"image": (pattern,)}, {"label": label}, case_id)
    assert [target["column"] for target in spec.options["targets"]] == targets
    assert [found.cases[0].id, found.cases[-1].id] == ids and found.problems == ()
    assert set(targets) <= found.cases[0].values.keys()
    assert ("official_split" in spec.options) == ("{split}" in case_id) and "names of the classes" in text
    assert len(spec.inputs[0].channels) == (3 if "x_train" in arrays else 1)


def test_folders_of_patients_and_of_kinds_of_files_are_no_classes(folder):
    pictures(folder, *(f"{patient}/{name}.png" for patient in ("p1", "p2", "p3") for name in ("t1", "t2", "flair")))
    assert propose_spec(folder).spec.task == "segmentation"
    other = folder.parent / "other"
    pictures(other, *(f"{word}/{number}.png" for word in ("imagesTr", "imagesTs") for number in range(4)))
    assert propose_spec(other).spec.task == "segmentation"


def test_real_folders_are_recognised(real_data, tmp_path):
    for folder, column, count in (("imgtext_covidcxr", "finding", 126), ("cls_pneumoniamnist", "label", 5231)):
        proposal = propose_spec(real_data / folder)
        (tmp_path / "first.yaml").write_text(proposal_text(proposal, real_data / folder))
        spec = read_spec(tmp_path / "first.yaml")
        assert spec.options["targets"] == [{"column": column}]
        assert len(scan(spec, real_data / folder).cases) == count
