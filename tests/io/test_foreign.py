from __future__ import annotations

import json

import pytest

from autoseg.core.errors import AutosegError, DatasetError, IncompatibleError, ReadError
from autoseg.core.spec import ChannelSpec, LabelSpec, LayoutSpec, RegionSpec
from autoseg.io.foreign import read_dataset_json

NNUNET = {
    "channel_names": {"0": "T1", "1": "noNorm"},
    "labels": {"background": 0, "b": 2, "a": 1},
    "numTraining": 3,
    "file_ending": ".nrrd",
}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
DECATHLON = {
    "name": "Prostate",
    "modality": {"0": "T2", "1": "ADC"},
    "labels": {"0": "background", "1": "PZ", "2": "TZ"},
    "tensorImageSize": "4D",
    "licence": "CC-BY-SA 4.0",
    "reference": "somebody",
    "training": [],
}


def folder(tmp_path, document, name="Dataset042_My-Set"):
    path = tmp_path / name
    path.mkdir()
    (path / "dataset.json").write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_nnunet_folder_becomes_a_spec(tmp_path):
    spec = read_dataset_json(folder(tmp_path, NNUNET))
    assert (spec.name, spec.task) == ("My-Set", "segmentation")
    assert spec.inputs[0].channels == (ChannelSpec("T1"), ChannelSpec("noNorm", "none"))
    assert spec.labels == (LabelSpec("a", 1), LabelSpec("b", 2)) and spec.regions == ()
    assert spec.layouts == (
        LayoutSpec(
            "nnunet",
            {"image": ("imagesTr/{case}_0000.nrrd", "imagesTr/{case}_0001.nrrd")},
            {"label": "labelsTr/{case}.nrrd"},
        ),
    )


def test_decathlon_folder_becomes_a_spec_of_4d_files(tmp_path):
    spec = read_dataset_json(folder(tmp_path, DECATHLON, "Task05_Prostate"))
    assert (spec.name, spec.licence, spec.reference) == ("Prostate", "CC-BY-SA 4.0", "somebody")
    assert [channel.name for channel in spec.inputs[0].channels] == ["T2", "ADC"]
    assert spec.labels == (LabelSpec("PZ", 1), LabelSpec("TZ", 2))
    assert spec.layouts == (
        LayoutSpec("msd", {"image": ("imagesTr/{case}.nii.gz",)}, {"label": "labelsTr/{case}.nii.gz"}),
    )


def test_old_nnunet_key_modality_is_told_apart_by_the_labels(tmp_path):
    document = {"modality": {"0": "CT"}, "labels": {"background": 0, "liver": 1}}
    assert read_dataset_json(folder(tmp_path, document)).layouts[0].name == "nnunet"


def test_regions_become_unions_of_labels_and_unnamed_values_get_a_name(tmp_path):
    spec = read_dataset_json(folder(tmp_path, NNUNET | {"labels": REGIONS, "regions_class_order": [1, 2, 3]}))
    assert spec.labels == (LabelSpec("label_1", 1), LabelSpec("label_2", 2), LabelSpec("enhancing", 3))
    assert spec.regions == (
        RegionSpec("whole", ("label_1", "label_2", "enhancing"), "label_1"),
        RegionSpec("core", ("label_2", "enhancing"), "label_2"),
        RegionSpec("enhancing", ("enhancing",), "enhancing"),
    )


def test_the_order_of_regions_is_that_of_the_file_and_what_they_paint_may_be_left_to_derive(tmp_path):
    labels = {"background": 0, "whole": [2, 1], "core": 1, "ignore": 3}
    spec = read_dataset_json(folder(tmp_path, NNUNET | {"labels": labels}))
    assert spec.regions == (RegionSpec("whole", ("label_2", "core")), RegionSpec("core", ("core",)))
    assert spec.ignore == 3


@pytest.mark.parametrize("labels", [{"background": 0, "a": 1, "ignore": 2}, {"0": "background", "1": "a", "2": "ignore"}])
def test_ignored_voxels_are_no_label(tmp_path, labels):
    spec = read_dataset_json(folder(tmp_path, NNUNET | {"labels": labels}))
    assert (spec.labels, spec.regions, spec.ignore) == ((LabelSpec("a", 1),), (), 2)


def test_name_given_by_the_user_wins_and_odd_characters_become_underscores(tmp_path):
    path = folder(tmp_path, DECATHLON | {"name": "../My set (2)"})
    assert read_dataset_json(path).name == "My_set_2"
    assert read_dataset_json(path, name="Other").name == "Other"


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"dataset": {"a": {"images": ["x.nii"], "label": "y.nii"}}}, DatasetError, "'dataset'.*imagesTr"),
        ({"labels": {"background": 0, "a": 1, "ignore": [2, 3]}}, IncompatibleError, "'ignore' must be one integer"),
        ({"labels": {"background": 0, "a": 1, "b": 2, "ignore": 1}}, IncompatibleError, "ignore is the value 1"),
        ({"labels": REGIONS, "regions_class_order": [1, 2]}, IncompatibleError, "one label value for each of whole, core, enh"),
        ({"labels": REGIONS, "regions_class_order": [1, 2, 7]}, IncompatibleError, r"out of \[1, 2, 3\]"),
        ({"file_ending": ".gif"}, DatasetError, r"'\.gif'.*\.nii\.gz"),
        ({"file_ending": ".jpg"}, DatasetError, r"compressed with loss.*\.png"),
        ({"labels": {"background": 1, "a": 2}}, IncompatibleError, "background must have value 0"),
        ({"labels": {"background": 0, "a": "one"}}, IncompatibleError, "'a'.*'one'"),
        ({"labels": {"background": 0, "a": 1, "b": [1]}}, IncompatibleError, "'a' and 'b' have the same value 1"),
        ({"labels": {}}, IncompatibleError, "labels must map"),
        ({"labels": REGIONS, "regions_class_order": [[1], 2, 3]}, IncompatibleError, "one label value for each"),
        ({"labels": REGIONS, "regions_class_order": 3}, IncompatibleError, "one label value for each"),
        ({"labels": {"0": ["background"], "1": ["a"]}, "channel_names": None}, IncompatibleError, "dataset.json"),
        ({"labels": {"background": 0, "a": 2**40}}, IncompatibleError, "do not fit into 32 bits"),
        ({"labels": {"background": 0, "a\n": 1}}, IncompatibleError, "control character"),
        ({"labels": {"background": 0, "": 1}}, IncompatibleError, "1 to 200 characters"),
        ({"channel_names": {"1": "T1"}}, IncompatibleError, "by index"),
        ({"channel_names": ["T1"]}, IncompatibleError, "by index"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_file(tmp_path, change, kind, words):
    with pytest.raises(kind, match=words) as caught:
        read_dataset_json(folder(tmp_path, NNUNET | change))
    assert "dataset.json" in str(caught.value)


def test_decathlon_labels_that_share_a_name_are_refused(tmp_path):
    with pytest.raises(IncompatibleError, match="same name"):
        read_dataset_json(folder(tmp_path, DECATHLON | {"labels": {"0": "background", "1": "a", "2": "a"}}))


def test_a_name_of_odd_digits_is_a_name(tmp_path):
    """`²` is a digit to Python's isdigit, and no integer."""
    [label] = read_dataset_json(folder(tmp_path, NNUNET | {"labels": {"background": 0, "\u00b2": 1}})).labels
    assert (label.name, label.value) == ("\u00b2", 1)


def test_a_dataset_json_of_fifty_megabytes_is_refused_before_it_is_parsed(tmp_path):
    made = folder(tmp_path, NNUNET)
    with (made / "dataset.json").open("r+b") as file:
        file.truncate(50_000_000)
    with pytest.raises(ReadError, match="50000000 bytes") as caught:
        read_dataset_json(made)
    assert caught.value.code == "E_TOO_LARGE"


@pytest.mark.parametrize("text", ['{"labels": {}, "labels": {}}', '{"labels": {},}', '{"a": NaN}', "[" * 50_000])
def test_broken_json_is_refused(tmp_path, text):
    with pytest.raises(ReadError, match="dataset.json"):
        read_dataset_json(folder(tmp_path, text))


def test_folder_without_a_description_says_what_to_do(tmp_path):
    with pytest.raises(AutosegError, match="write a specification"):
        read_dataset_json(tmp_path)


def test_real_nnunet_folders_are_read(real_data):
    spec = read_dataset_json(real_data / "Dataset004_Hippocampus")
    assert spec.name == "Hippocampus"
    assert spec.labels == (LabelSpec("Anterior", 1), LabelSpec("Posterior", 2))
