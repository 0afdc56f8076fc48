"""The shipped specifications against tiny folders in the official layouts, and against real data."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from official_class_trees import CLASS_TREES
from official_pair_trees import PAIR_TREES
from official_trees import TREES, Tree, write_label

from autoseg.io.dataset import check_case, list_inputs, scan, spec_of_folder
from autoseg.io.images import read_image, read_label_map
from autoseg.io.images.endings import ENDINGS
from autoseg.io.specs import known_specs, load_spec, read_spec
from autoseg.planning.splits import make_folds
from autoseg.tasks.segmentation.spec import index_units

ROOT = Path(__file__).resolve().parents[1]
PNG = pytest.mark.skipif(".png" not in ENDINGS, reason="PNG files are not read yet")


def needs_png(tree: Tree):
    return pytest.param(tree, id=f"{tree.spec}-{tree.layout}-{tree.cases[0].images[0].partition('/')[0]}",
                        marks=[PNG] if tree.is_png else [])


every_tree = pytest.mark.parametrize("tree", [needs_png(tree) for tree in TREES])


def names(paths, folder):
    return tuple(path.relative_to(folder).as_posix() for path in paths)


def codes(found):
    return [(problem.case, problem.code) for problem in found.problems]


def test_every_shipped_spec_has_a_tree_for_each_layout():
    layouts = {(name, layout.name) for name in known_specs() for layout in load_spec(name).layouts}
    assert layouts == {(tree.spec, tree.layout) for tree in (*TREES, *CLASS_TREES, *PAIR_TREES)}


@pytest.mark.parametrize("name", known_specs())
def test_every_shipped_spec_says_where_the_data_come_from_and_under_which_terms(name):
    spec = load_spec(name)
    assert spec.name == name
    for text in (spec.description, spec.source, spec.licence, spec.reference):
        assert len(text) > 5 and text == " ".join(text.split())
    assert "http" in spec.source and ("doi:" in spec.reference or "arXiv:" in spec.reference or "http" in spec.reference)


def test_the_table_of_specifications_lists_each_once():
    page = (ROOT / "dataset_specs" / "README.md").read_text()
    table = page[page.index("## Specifications in this folder"):]
    tasks = ("segmentation", "classification", "joint", "registration")
    assert re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE) == sorted(
        known_specs(), key=lambda name: (tasks.index(load_spec(name).task), name))


def test_the_specification_in_the_guide_understands_the_folder_in_the_guide(tmp_path):
    page = (ROOT / "docs" / "write_a_spec.md").read_text()
    tree, text = page.split("```\n")[1], page.split("```yaml\n")[1].split("```")[0]
    for name in tree.split()[1:]:
        (tmp_path / "study" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "study" / name).touch()
    (tmp_path / "lesions.yaml").write_text(text)
    found = scan(read_spec(tmp_path / "lesions.yaml"), tmp_path / "study")
    assert [(case.id, case.group) for case in found.cases] == [
        ("patient01_month0", "patient01"), ("patient01_month6", "patient01"), ("patient02_month0", "patient02")]
    assert [path.name for path in found.cases[0].inputs["image"]] == ["t1.nii.gz", "flair.nii.gz"]
    assert found.problems == () and found.ignored == ("report.pdf: text",)


@pytest.mark.parametrize("page", ["dataset_specs/README.md", "docs/write_a_spec.md"])
def test_complete_examples_in_the_documentation_are_valid(tmp_path, page):
    examples = [text for text in re.findall(r"^```yaml\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
                if "name:" in text and "layouts:" in text]
    assert examples
    for text in examples:
        (tmp_path / "example.yaml").write_text(text)
        assert read_spec(tmp_path / "example.yaml").task == "segmentation"


@every_tree
def test_official_folder_is_scanned(tree, tmp_path):
    tree.write(tmp_path)
    found = scan(load_spec(tree.spec), tmp_path)
    assert (found.layout, found.problems) == (tree.layout, ())
    assert [(case.id, case.group, case.stratum) for case in found.cases] == [
        (case.id, case.group, case.stratum) for case in tree.cases]
    assert [names(case.inputs["image"], tmp_path) for case in found.cases] == [case.images for case in tree.cases]
    assert [line.split(":")[0] for line in found.ignored] == sorted(set(tree.left_out) - {"dataset.json"})
    assert not any("matches no pattern" in line for line in found.ignored)


@every_tree
def test_channels_come_in_the_order_of_the_specification(tree, tmp_path):
    tree.write(tmp_path)
    spec = load_spec(tree.spec)
    assert tuple(channel.name for channel in spec.inputs[0].channels) == tree.channels
    for case in scan(spec, tmp_path).cases:
        voxels = read_image(case.inputs["image"], channels=len(tree.channels)).voxels
        assert [np.median(channel) for channel in voxels] == list(range(1, len(tree.channels) + 1))


@every_tree
def test_label_values_are_those_of_the_files(tree, tmp_path):
    tree.write(tmp_path)
    spec = spec_of_folder(load_spec(tree.spec), tmp_path)
    assert {label.name: label.value for label in spec.labels} == tree.values
    cases = scan(spec, tmp_path).cases
    assert [check_case(spec, case) for case in cases] == [()] * len(cases)


@every_tree
def test_a_value_that_is_not_listed_is_reported(tree, tmp_path):
    tree.write(tmp_path)
    write_label(tmp_path / tree.cases[0].labels[0], [77])
    spec = spec_of_folder(load_spec(tree.spec), tmp_path)
    [problem] = check_case(spec, scan(spec, tmp_path).cases[0])
    assert problem.code == "E_LABEL_VALUE" and "77" in problem.message


@every_tree
def test_missing_images_missing_labels_and_strays_are_reported(tree, tmp_path):
    tree.write(tmp_path)
    first, last = tree.cases[0], tree.cases[-1]
    spec = load_spec(tree.spec)
    (tmp_path / first.images[-1]).unlink()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "stray.docx").touch()
    if len(tree.cases) > 1:
        for name in last.labels:
            (tmp_path / name).unlink()
        found = scan(spec, tmp_path)
        missing = "E_CHANNEL_MISSING" if len(first.images) > 1 else "E_NO_IMAGE"
        assert codes(found) == [(first.id, missing), (last.id, "E_NO_LABEL")]
        assert [case.id for case in found.cases] == [case.id for case in tree.cases[1:-1]]
    else:
        found = scan(spec, tmp_path)
        assert codes(found) == [(first.id, "E_NO_IMAGE")]
    assert f"notes/stray.docx: matches no pattern of layout {tree.layout}" in found.ignored


@PNG
def test_the_masks_of_one_image_are_united(tmp_path):
    tree = next(tree for tree in TREES if (tree.spec, tree.layout) == ("DSB2018", "as downloaded"))
    tree.write(tmp_path)
    [case] = scan(load_spec("DSB2018"), tmp_path).cases
    assert names(case.targets.values(), tmp_path) == (f"stage1_train/{case.id}/masks",)
    label = read_label_map(case.targets["label"]).voxels > 0
    assert np.flatnonzero(label).tolist() == [0, 1, 2]  # one voxel from each of the three files


@pytest.mark.parametrize(("name", "inputs", "ids"), [
    ("Hippocampus", ["hippocampus_002.nii.gz"], ["hippocampus_002"]),
    ("BrainTumour", ["BRATS_485.nii.gz"], ["BRATS_485"]),
    ("BrainTumour", [f"BRATS_485_000{place}.nii.gz" for place in range(4)], ["BRATS_485"]),
    ("BraTS2023", [f"BraTS-GLI-00001-000/BraTS-GLI-00001-000-{part}.nii.gz" for part in ("t1c", "t1n", "t2f", "t2w")],
     ["BraTS-GLI-00001-000"]),
    ("ACDC", ["patient101/patient101_4d.nii.gz", "patient101/patient101_frame01.nii.gz", "patient101/patient101_frame14.nii.gz",
              "patient101/patient101_frame01_gt.nii.gz"], ["patient101_frame01", "patient101_frame14"]),
    ("AMOS22", ["amos_0002.nii.gz", "amos_0510.nii.gz"], ["amos_0002", "amos_0510"]),
    ("BTCV", ["img/img0061.nii.gz"], ["0061"]),
    ("LiTS", ["test-volume-0.nii"], ["test-volume-0"]),
    ("KiTS23", ["case_00589/imaging.nii.gz"], ["case_00589"]),
])
def test_official_test_folders_are_understood_when_they_are_to_be_predicted(tmp_path, name, inputs, ids):
    for file in inputs:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    found = list_inputs(load_spec(name), tmp_path)
    assert ([case.id for case in found.cases], found.problems) == (ids, ())


def test_regions_of_the_challenges():
    def of(name):
        return {region.name: set(region.labels) for region in load_spec(name).regions}

    assert of("BraTS2023") == of("BraTS")
    assert of("BrainTumour") == {"whole_tumour": {"edema", "non_enhancing", "enhancing"},
                                 "tumour_core": {"non_enhancing", "enhancing"}, "enhancing_tumour": {"enhancing"}}
    assert of("KiTS23") == {"kidney_and_masses": {"kidney", "tumour", "cyst"}, "masses": {"tumour", "cyst"},
                            "tumour": {"tumour"}}


def test_real_fetal_brains(real_data):
    spec = load_spec("FetalBrain")
    found = scan(spec, real_data / "Dataset105_FetalBrainSB")
    assert (found.layout, found.problems, len(found.cases)) == ("nnunet", (), 12)
    assert [case.stratum for case in found.cases] == ["not operated"] * 3 + ["operated"] * 9
    assert {line.split(": ")[1] for line in found.ignored} == {"mask of the brain", "landmarks", "text"}
    assert check_case(spec, found.cases[0]) == ()


def test_real_sunnybrook_slices_are_grouped_by_patient_and_stratified_by_diagnosis(real_data):
    found = scan(load_spec("SunnybrookLV"), real_data / "Dataset202_SunnybrookLV")
    assert (found.layout, found.problems, found.ignored, len(found.cases)) == ("nnunet", (), (), 526)
    patients = {case.group: case.stratum for case in found.cases}
    assert {name: list(patients.values()).count(name) for name in ("HF-I", "HF-NI", "HYP", "N")} == {
        "HF-I": 8, "HF-NI": 8, "HYP": 8, "N": 6}
    fold = make_folds(index_units(load_spec("SunnybrookLV"), found.cases))[0]
    train, held_out = ({name.partition("-IM-")[0] for name in part} for part in (fold.train, fold.validation))
    assert not train & held_out and len(train | held_out) == 30
    assert {patients[name] for name in held_out} == {"HF-I", "HF-NI", "HYP", "N"}


def test_real_nuclei_are_found(real_data):
    found = scan(load_spec("DSB2018Fluorescence"), real_data / "Dataset203_DSB2018Nuclei")
    assert (found.layout, found.problems, len(found.cases)) == ("nnunet", (), 250)
    assert {line.split(": ")[1] for line in found.ignored} == {"a number for every nucleus"}


@PNG
@pytest.mark.parametrize(("name", "folder"), [("SunnybrookLV", "Dataset202_SunnybrookLV"),
                                              ("DSB2018Fluorescence", "Dataset203_DSB2018Nuclei")])
def test_real_pictures_are_sound(real_data, name, folder):
    spec = load_spec(name)
    cases = scan(spec, real_data / folder).cases
    assert [problem for case in cases[::40] for problem in check_case(spec, case)] == []
