"""First specifications of unknown folders: tiny trees of many arrangements, and the real datasets rearranged."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as PillowImage

from autoseg.core.errors import DatasetError, UsageError
from autoseg.core.spec import ChannelSpec
from autoseg.io.dataset import check_case, scan
from autoseg.io.initial import proposal_text, propose_spec
from autoseg.io.naming import channel_words, find_namings
from autoseg.io.specs import read_spec

CASES = ("pat_01", "pat_02", "pat_03")


def write(path, voxels):
    """A picture or a volume; every case of a tree on one grid."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        PillowImage.fromarray(voxels).save(path)
    else:
        affine = np.diag([-1.2, -0.9, 2.0, 1.0])
        nib.save(nib.Nifti1Image(np.moveaxis(voxels, (0, 1, 2), (2, 1, 0)), affine), path)


def tissue(seed):
    return np.random.default_rng(seed).normal(100, 30, (5, 9, 12)).astype(np.float32)


def hounsfield(seed):
    voxels = np.random.default_rng(seed).integers(-100, 200, (5, 9, 12)).astype(np.int16)
    voxels[:, :3] = -1000
    return voxels


def regions(*values, shape=(5, 9, 12)):
    label = np.zeros(shape, np.uint8)
    for place, value in enumerate(values):
        label[..., 1 + place, 2:9] = value
    return label


def tree(folder, image="", label="", channels=("",), cases=CASES, make_image=tissue, make_label=lambda: regions(1, 4)):
    """Files named by templates with {case} and {channel}."""
    for number, case in enumerate(cases):
        for place, channel in enumerate(channels):
            write(folder / image.format(case=case, channel=channel), make_image(10 * number + place))
        if label:
            write(folder / label.format(case=case), make_label())
    return folder


def understood(folder, tmp_path):
    """The proposed specification after it went through its file, and the scan with it, every file opened."""
    proposal = propose_spec(folder)
    path = tmp_path / "first.yaml"
    path.write_text(proposal_text(proposal, folder), encoding="utf-8")
    spec = read_spec(path)
    assert spec == proposal.spec
    found = scan(spec, folder)
    assert found.problems == ()
    assert [problem for case in found.cases for problem in check_case(spec, case) if problem.severity == "error"] == []
    return spec, found


ARRANGEMENTS = {
    "nnU-Net": ("imagesTr/{case}_{channel}.nii.gz", "labelsTr/{case}.nii.gz", ("0000", "0001")),
    "a folder per case": ("{case}/{case}_{channel}.nii.gz", "{case}/{case}_seg.nii.gz", ("t1", "flair")),
    "plain names in a folder per case": ("data/{case}/{channel}.nii.gz", "data/{case}/segmentation.nii.gz", ("t1", "flair")),
    "one flat folder": ("{case}_{channel}.nii.gz", "{case}_mask.nii.gz", ("t1", "flair")),
    "the mask beside an image without a suffix": ("all/{case}{channel}.nii.gz", "all/{case}_gt.nii.gz", ("",)),
    "words before the case": ("volume-{case}{channel}.nii.gz", "segmentation-{case}.nii.gz", ("",)),
    "a folder per channel": ("{channel}/{case}.nii.gz", "groundTruth/{case}.nii.gz", ("t1", "flair")),
    "BIDS": ("sub-{case}/anat/sub-{case}_{channel}.nii.gz", "derivatives/m/sub-{case}/anat/sub-{case}_dseg.nii.gz",
             ("T1w", "T2w")),
    "no telling word": ("x/{case}{channel}.nii.gz", "y/{case}.nii.gz", ("",)),
}


@pytest.mark.parametrize("kind", ARRANGEMENTS)
def test_the_arrangement_of_a_folder_is_found(tmp_path, kind):
    image, label, channels = ARRANGEMENTS[kind]
    cases = CASES if kind != "BIDS" else ("01", "02", "03")
    folder = tree(tmp_path / "Some set", image, label, channels, cases)
    spec, found = understood(folder, tmp_path)
    assert spec.name == "Some_set"
    assert len(found.cases) == 3 and found.ignored == ()
    ids = cases if kind != "BIDS" else tuple(f"sub-{case}" for case in cases)
    assert tuple(case.id for case in found.cases) == ids
    assert sorted(path.relative_to(folder).as_posix() for path in found.cases[0].inputs["image"]) == sorted(
        image.format(case=cases[0], channel=channel) for channel in channels)
    assert found.cases[0].targets["label"] == folder / label.format(case=cases[0])
    assert [entry.value for entry in spec.labels] == [1, 4]
    names = {entry.name for entry in spec.inputs[0].channels}
    assert names == {"nnU-Net": {"channel_0", "channel_1"}}.get(kind, set(channels) - {""} or names)


def test_train_and_validation_folders_are_one_dataset(tmp_path):
    folder = tree(tmp_path / "set", "train/images/{case}.nii.gz", "train/masks/{case}.nii.gz", cases=("a1", "a2", "a3"))
    tree(folder, "val/images/{case}.nii.gz", "val/masks/{case}.nii.gz", cases=("b1",))
    spec, found = understood(folder, tmp_path)
    assert spec.layouts[0].inputs["image"] == ("*/images/{case}.nii.gz",)
    assert [case.id for case in found.cases] == ["a1", "a2", "a3", "b1"]


def test_sessions_of_a_patient_are_cases_of_one_patient(tmp_path):
    cases = [f"sub-{patient:02d}_ses-{session}" for patient in range(3) for session in (1, 2)]
    for number, case in enumerate(cases):
        place = tmp_path / "set" / case.replace("_", "/") / "anat"
        write(place / f"{case}_T1w.nii.gz", tissue(number))
        write(place / f"{case}_dseg.nii.gz", regions(1))
    spec, found = understood(tmp_path / "set", tmp_path)
    assert [case.id for case in found.cases] == cases
    assert {case.group for case in found.cases} == {"sub-00", "sub-01", "sub-02"}


def test_folders_of_visits_below_folders_of_patients_are_cases_of_one_patient(tmp_path):
    folder = tmp_path / "study"
    for number, place in enumerate(("patient01/month0", "patient01/month6", "patient02/month0", "patient03/month6")):
        for channel in ("t1", "flair"):
            write(folder / place / f"{channel}.nii.gz", tissue(number))
        write(folder / place / "lesion_mask.nii.gz", regions(1))
    spec, found = understood(folder, tmp_path)
    assert spec.layouts[0].inputs["image"] == ("{group}/{visit}/flair.nii.gz", "{group}/{visit}/t1.nii.gz")
    assert [(case.id, case.group) for case in found.cases] == [
        ("patient01_month0", "patient01"), ("patient01_month6", "patient01"), ("patient02_month0", "patient02"),
        ("patient03_month6", "patient03")]


@pytest.mark.parametrize(("cases", "pattern"), [
    ([f"P{p}_slice{s}" for p in range(6) for s in range(3)], "^(.+)[_-][^_-]+$"),
    ([f"P{p}_v1_{s}" for p in range(6) for s in range(3)], "^(.+)[_-][^_-]+$"),
    ([f"liver_{number}" for number in range(20)], None),
    ([f"site{p}_{s}" for p in range(3) for s in range(5)], None),  # three: sites rather than patients
])
def test_the_patient_is_what_several_cases_begin_with(tmp_path, cases, pattern):
    tree(tmp_path / "set", "images/{case}.png", "labels/{case}.png", cases=cases,
         make_image=lambda seed: np.random.default_rng(seed).integers(0, 255, (9, 12)).astype(np.uint8),
         make_label=lambda: regions(1, shape=(1, 9, 12))[0])
    spec, _ = understood(tmp_path / "set", tmp_path)
    assert spec.grouping.pattern == pattern


def test_hounsfield_units_make_a_ct(tmp_path):
    spec, _ = understood(tree(tmp_path / "set", "images/{case}.nii.gz", "labels/{case}.nii.gz", make_image=hounsfield), tmp_path)
    assert [channel.name for channel in spec.inputs[0].channels] == ["CT"]
    other = tree(tmp_path / "two", "images/{case}_{channel}.nii.gz", "labels/{case}.nii.gz", ("dose", "planning"),
                 make_image=lambda seed: hounsfield(seed) if seed % 2 else tissue(seed))
    spec, _ = understood(other, tmp_path)
    assert spec.inputs[0].channels == (ChannelSpec("dose", "auto"), ChannelSpec("planning", "ct"))


def test_files_that_hold_all_channels_are_split(tmp_path):
    folder = tree(tmp_path / "set", "imagesTr/{case}.nii.gz", "labelsTr/{case}.nii.gz",
                  make_image=lambda seed: np.stack([tissue(seed), tissue(seed + 1)], axis=-1))
    spec, _ = understood(folder, tmp_path)
    assert [channel.name for channel in spec.inputs[0].channels] == ["image_0", "image_1"]
    assert spec.layouts[0].inputs["image"] == ("imagesTr/{case}.nii.gz",)


@pytest.mark.parametrize(("is_grey", "names"), [(False, ["red", "green", "blue"]), (True, ["image"])])
def test_colour_pictures_with_white_masks(tmp_path, is_grey, names):
    def picture(seed):
        pixels = np.random.default_rng(seed).integers(0, 255, (9, 12, 3)).astype(np.uint8)
        return np.repeat(pixels[:, :, :1], 3, axis=2) if is_grey else pixels

    folder = tree(tmp_path / "set", "images/{case}.png", "masks/{case}.png", make_image=picture,
                  make_label=lambda: regions(255, shape=(1, 9, 12))[0])
    spec, _ = understood(folder, tmp_path)
    assert [channel.name for channel in spec.inputs[0].channels] == names
    assert [(label.name, label.value) for label in spec.labels] == [("label_1", 1)]
    assert "255 in the files, which is read as 1" in proposal_text(propose_spec(folder), folder)


def test_other_annotations_are_no_channels(tmp_path):
    folder = tree(tmp_path / "set", "images/{case}.nii.gz", "labels/{case}.nii.gz")
    tree(folder, "landmarks/{case}.nii.gz", make_image=lambda seed: regions(7).astype(np.float32))
    tree(folder, "masks/{case}.nii.gz", make_image=lambda seed: regions(1))
    proposal = propose_spec(folder)
    assert proposal.spec.layouts[0].inputs["image"] == ("images/{case}.nii.gz",)
    assert [line for line in proposal.found if line.startswith("not used")] == [
        "not used    masks/{case}.nii.gz (annotations too)", "not used    landmarks/{case}.nii.gz (annotations too)"]


def test_images_without_label_maps_get_a_specification_that_says_so(tmp_path):
    folder = tree(tmp_path / "set", "{case}_{channel}.nii.gz", channels=("0000", "0001"))
    proposal = propose_spec(folder)
    assert proposal.spec.layouts[0].inputs["image"] == ("{case}_0000.nii.gz", "{case}_0001.nii.gz")
    assert proposal.spec.layouts[0].targets == {} and proposal.spec.labels == ()
    assert any("without them nothing can be trained" in line for line in proposal.found)


def test_a_case_that_lacks_a_channel_is_reported(tmp_path):
    folder = tree(tmp_path / "set", "{case}/{channel}.nii.gz", "{case}/seg.nii.gz", ("t1", "flair"), [f"p{i}" for i in range(12)])
    (folder / "p3/flair.nii.gz").unlink()
    proposal = propose_spec(folder)
    assert len(proposal.spec.inputs[0].channels) == 2
    assert any(line.startswith("incomplete  1 case(s), for example p3: no image file") for line in proposal.found)


def test_dataset_json_is_taken_where_it_describes_the_folder(tmp_path):
    folder = tree(tmp_path / "Dataset007_Set", "imagesTr/{case}_0000.nii.gz", "labelsTr/{case}.nii.gz")
    document = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "liver": 1, "spleen": 4}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(document))
    spec, _ = understood(folder, tmp_path)
    assert (spec.name, [label.name for label in spec.labels]) == ("Set", ["liver", "spleen"])
    (folder / "dataset.json").write_text(json.dumps({"labels": "see paper"}))
    assert [label.name for label in propose_spec(folder).spec.labels] == ["label_1", "label_4"]


def test_what_is_not_known_is_marked(tmp_path):
    folder = tree(tmp_path / "set", "{case}/{channel}.nii.gz", "{case}/seg.nii.gz", ("t1", "flair"))
    marked = [line.strip() for line in proposal_text(propose_spec(folder), folder).splitlines() if "  # ? " in line]
    assert [line.split("  # ?")[0] for line in marked] == ["description: ''", "source: ''", "licence: ''", "- flair", "- t1",
                                                            "label_1: 1", "label_4: 4"]


def test_folders_without_images_and_impossible_names_are_refused(tmp_path):
    (tmp_path / "a.jpg").touch()
    for folder, words in ((tmp_path, "compressed with loss"), (tmp_path / "none", "not a folder")):
        with pytest.raises(DatasetError, match=words):
            propose_spec(folder)
    with pytest.raises(UsageError, match="cannot be called"):
        propose_spec(tmp_path, name="a b")


def test_words_tell_channels_apart():
    assert channel_words(["{case}/{case}_t1.nii.gz", "{case}/{case}_t1ce.nii.gz"]) == ["t1", "t1ce"]
    assert channel_words(["T1/{case}.nii", "T2/{case}.nii"]) == ["T1", "T2"]
    assert channel_words(["{case}/anat/{case}_T1w.nii.gz"]) == ["T1w"]


def test_every_pattern_gives_back_the_name_that_it_was_read_from():
    names = ["a/p1/p1_t1.nii.gz", "a/p2/p2_t1.nii.gz", "a/p1/p1_seg.nii.gz", "a/p2/p2_seg.nii.gz"]
    for naming in find_namings(names):
        if "*" not in naming.pattern:
            assert all(naming.pattern.replace("{case}", case) == name for case, name in naming.files.items())


@pytest.mark.parametrize("name", ["Dataset004_Hippocampus", "Dataset105_FetalBrainSB", "Dataset107_LungGTV",
                                  "Dataset109_BrainAniso", "Dataset202_SunnybrookLV", "Dataset203_DSB2018Nuclei"])
@pytest.mark.parametrize("arrangement", ["imagesTr/{case}_0000{ending} labelsTr/{case}{ending}",
                                         "{case}/{case}_scan{ending} {case}/{case}_seg{ending}",
                                         "x/{case}{ending} y/{case}{ending}"], ids=["nnU-Net", "per case", "no words"])
def test_real_images_in_other_arrangements_are_understood(real_data, tmp_path, name, arrangement):
    image, label = arrangement.split()
    ending = ".png" if name.startswith("Dataset2") else ".nii.gz"
    sources = sorted((real_data / name / "labelsTr").iterdir())[:8]
    for source in sources:
        case = source.name[:-len(ending)]
        for template, target in ((image, real_data / name / "imagesTr" / f"{case}_0000{ending}"), (label, source)):
            link = tmp_path / "set" / template.format(case=case, ending=ending)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target)
    spec = propose_spec(tmp_path / "set").spec
    found = scan(spec, tmp_path / "set")
    assert [case.id for case in found.cases] == [source.name[:-len(ending)] for source in sources]
    assert found.problems == () and found.ignored == ()
    values = {"Dataset004_Hippocampus": {1, 2}, "Dataset105_FetalBrainSB": set(range(1, 9))}
    assert {label.value for label in spec.labels} == values.get(name, {1})
    assert ("CT" in {channel.name for channel in spec.inputs[0].channels}) == (name == "Dataset107_LungGTV")
