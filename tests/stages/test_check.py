from __future__ import annotations

import gzip
import shutil
from dataclasses import replace

import numpy as np
import pytest
from toy_tasks.datasets import SPECS, open_toy, write_cases, write_table_cases

from autoseg import pipeline
from autoseg.core.budget import Budget
from autoseg.core.case import Unit
from autoseg.core.errors import DatasetError
from autoseg.core.progress import silent
from autoseg.core.spec import DatasetSpec, GroupingSpec
from autoseg.core.task import PlanRequest
from autoseg.io.images import read_image, read_label_map, write_label_map, write_volume
from autoseg.stages.check import divided_patients
from autoseg.stages.suspects import copy_warnings
from autoseg.workspace import open_workspace


@pytest.fixture
def checked(tmp_path):
    """What `autoseg check` says of a toy whose specification was changed."""
    def check(name, old, new):
        tmp_path.joinpath("spec.yaml").write_text(SPECS[name].replace(old, new))
        write_cases(tmp_path, name)
        return pipeline.check(open_toy(name, tmp_path, tmp_path / "home"), executor=None)
    return check


def test_a_channel_called_ct_that_is_none_is_one_warning_for_all_cases(checked):
    found = checked("segmentation", "[MRI]", "[CT]")
    assert [(warning.unit, warning.code) for warning in found.warnings] == [("p0_scan0 and 7 more", "W_MODALITY")]
    assert "not Hounsfield units" in found.warnings[0].message and found.problems == ()


def test_a_stated_normalization_is_not_questioned(checked):
    assert checked("segmentation", "[MRI]", "[{name: CT, normalization: zscore}]").warnings == ()


def test_ignored_values_are_known_and_said(checked):
    found = checked("regions", "x", "x")
    assert found.problems == found.warnings == ()
    assert any(line.startswith("ignored    5") for line in found.lines)


def test_regions_that_cannot_be_outputs_stop_the_check(checked):
    with pytest.raises(DatasetError, match="unclear which label"):
        checked("regions", "regions: {whole: [bright, rim], core: [bright]}", "regions: {core: [bright], whole: [bright, rim]}")


def test_problems_of_single_cases_stay_apart(checked):
    found = checked("regions", "ignore: 5", "")
    assert [problem.unit for problem in found.problems] == ["p0_scan1", "p1_scan3", "p2_scan5", "p3_scan7"]
    assert {replace(problem, unit="", message="").code for problem in found.problems} == {"E_LABEL_VALUE"}


def test_references_in_a_table_are_counted_and_cases_kept_for_evaluation_are_apart(tmp_path):
    tmp_path.joinpath("spec.yaml").write_text(SPECS["classification"] + "  official_split: {column: part, test: [test]}\n")
    write_table_cases(tmp_path, "classification")
    head, *rows = (tmp_path / "labels.csv").read_text().splitlines()
    rows = [f"{row.split(',')[0]},,,,train" if place == 0  # nothing is known
            else f"{row.split(',')[0]},,,44.5,train" if place == 1  # one of three targets is
            else f"{row},{'test' if place in (4, 5) else 'train'}" for place, row in enumerate(rows)]
    (tmp_path / "labels.csv").write_text("\n".join([f"{head},part", *rows]) + "\n")
    lines = check_folder("classification", tmp_path, tmp_path / "home").lines
    assert "cases      18, of 9 patients, 17 with reference; 2 more are not trained on" in lines


def test_references_that_are_files_are_counted(cases):
    assert "cases      8, of 4 patients, 8 with reference" in check_folder("segmentation", cases, cases / "home").lines


def test_ids_that_look_as_if_patients_had_several_cases_are_one_warning(real_data, tmp_path):
    """Thirty patients of some 18 slices each; the folder's own dataset.json says nothing of patients."""
    folder = real_data / "Dataset202_SunnybrookLV"
    units = [Unit(name, (), name) for path in sorted((folder / "labelsTr").iterdir()) for name in [path.stem]]
    spec = open_workspace(tmp_path, str(folder), None, silent).spec
    (warning,) = divided_patients(spec, [unit.id for unit in units], len(units))
    assert warning.code == "W_GROUPING" and "there are 30, folds divide them" in warning.message
    assert divided_patients(replace(spec, grouping=GroupingSpec(pattern="(.+)-IM")), [unit.id for unit in units], 30) == []


def test_numbered_cases_are_not_taken_for_patients():
    ids = [f"case_{number:03d}" for number in range(40)]
    assert divided_patients(DatasetSpec("x", "segmentation", ()), ids, 40) == []


# What is odd only beside other cases, and what is wrong with the dataset as a whole.

def check_folder(name, folder, home):
    return pipeline.check(open_toy(name, folder, home), executor=None)


@pytest.fixture
def cases(tmp_path):
    """A toy in a folder of its own, to be spoilt."""
    tmp_path.joinpath("spec.yaml").write_text(SPECS["segmentation"])
    write_cases(tmp_path, "segmentation")
    return tmp_path


def test_a_label_that_no_case_has_is_a_problem_of_the_dataset(cases):
    cases.joinpath("spec.yaml").write_text(SPECS["segmentation"].replace("dark: 3", "dark: 3, rare: 9"))
    found = check_folder("segmentation", cases, cases / "home")
    assert [(problem.unit, problem.code) for problem in found.problems] == [("8 cases", "E_LABEL_ABSENT")]
    assert "rare (9)" in found.problems[0].message and "dark" not in found.problems[0].message


def test_labels_that_are_all_background_are_one_problem_and_a_warning_per_case(cases):
    for path in sorted((cases / "labels").iterdir()):
        label = read_label_map(path)
        write_label_map(path, np.zeros_like(label.voxels[0]), label)
    found = check_folder("segmentation", cases, cases / "home")
    assert [problem.code for problem in found.problems] == ["E_LABEL_ABSENT"]
    assert "bright (7), dark (3)" in found.problems[0].message
    assert [warning.code for warning in found.warnings] == ["W_LABEL_EMPTY"] * 8


def test_a_label_map_that_cannot_be_read_may_hold_the_missing_label(cases):
    cases.joinpath("spec.yaml").write_text(SPECS["segmentation"].replace("dark: 3", "dark: 3, rare: 9"))
    first = sorted((cases / "labels").iterdir())[0]
    first.write_bytes(first.read_bytes()[:-200])
    assert [problem.code for problem in check_folder("segmentation", cases, cases / "home").problems] == ["E_TRUNCATED"]


def test_planning_refuses_a_label_that_no_case_has(cases):
    cases.joinpath("spec.yaml").write_text(SPECS["segmentation"].replace("dark: 3", "dark: 3, rare: 9"))
    with pytest.raises(DatasetError, match=r"rare \(9\)") as caught:
        pipeline.plan(open_toy("segmentation", cases, cases / "home"), Budget("cpu", 4 * 2**30),
                      PlanRequest("default", "default"), executor=None)
    assert caught.value.code == "E_LABEL_ABSENT" and not list((cases / "home").glob("*/plans/*/plan.json"))


def test_copies_under_two_patients_are_warned_of_and_share_a_fold(cases, caplog):
    """Other compression, same voxels: the copy is not the same file."""
    one, other = (cases / "images" / f"{name}.nii.gz" for name in ("p0_scan0", "p3_scan6"))
    with gzip.open(one) as source, gzip.open(other, "wb", compresslevel=1) as copy:
        copy.write(source.read())
    shutil.copy(cases / "labels" / "p0_scan0.nii.gz", cases / "labels" / "p3_scan6.nii.gz")
    assert one.read_bytes() != other.read_bytes()
    found = check_folder("segmentation", cases, cases / "home")
    assert [(warning.unit, warning.code) for warning in found.warnings] == [("p0_scan0 and p3_scan6", "W_COPY")]
    workspace = open_toy("segmentation", cases, cases / "home")
    pipeline.plan(workspace, Budget("cpu", 4 * 2**30), PlanRequest("default", "default"), executor=None)
    assert "[W_COPY]" in caplog.text
    for fold in open_toy("segmentation", cases, cases / "home").folds():
        assert len({"p0_scan0", "p0_scan1", "p3_scan6", "p3_scan7"} & set(fold.validation)) in (0, 4)


def test_many_copies_are_one_warning_with_the_first_names():
    sets = [(f"a{number}", f"b{number}") for number in range(4)] + [tuple(f"c{number}" for number in range(9))]
    (warning,) = copy_warnings(sets)
    assert (warning.unit, warning.code) == ("17 cases", "W_COPY")
    assert warning.message.startswith("hold 5 images, each of them several times: a0 and b0; a1 and b1; a2 and b2; 2 more; they")
    (alone,) = copy_warnings(sets[-1:])
    assert alone.unit == "c0 and c1 and c2 and c3 and 5 more" and alone.message.startswith("hold the same image; ")
    assert copy_warnings(()) == []


def test_one_and_two_patients_are_warned_of(cases):
    for count, words in ((2, "2 folds instead of 5"), (1, "no fold can be validated")):
        for folder in ("images", "labels"):
            for path in sorted((cases / folder).iterdir())[count:]:
                path.unlink()
        cases.joinpath("spec.yaml").write_text(SPECS["segmentation"].replace('grouping: {pattern: "^(p[0-9]+)_"}', ""))
        [warning] = [w for w in check_folder("segmentation", cases, cases / "home").warnings if w.code == "W_FEW_PATIENTS"]
        assert words in warning.message and warning.unit == ("2 cases" if count == 2 else "1 case")


def test_swapped_channels_are_one_warning_that_names_both(tmp_path):
    spec = SPECS["segmentation"].replace("[MRI]", "[T1, T2]").replace('["images/{case}.nii.gz"]',
                                                                       '["images/{case}_t1.nii.gz", "images/{case}_t2.nii.gz"]')
    tmp_path.joinpath("spec.yaml").write_text(spec)
    write_cases(tmp_path, "segmentation")
    for path in sorted((tmp_path / "images").iterdir()):
        image = read_image([path])
        stem = path.name.removesuffix(".nii.gz")
        inverted = np.exp(10 - image.voxels)  # another contrast: what was bright is dark, and the histogram is skewed
        names = ("t2", "t1") if stem == "p2_scan4" else ("t1", "t2")
        for channel, voxels in zip(names, (image.voxels, inverted), strict=True):
            write_volume(path.with_name(f"{stem}_{channel}.nii.gz"), voxels, image)
        path.unlink()
    found = check_folder("segmentation", tmp_path, tmp_path / "home")
    assert [(warning.unit, warning.code) for warning in found.warnings] == [("p2_scan4", "W_CHANNEL_SUSPECT")]
    assert "T1 looks like T2, T2 looks like T1" in found.warnings[0].message


def test_links_out_of_the_folder_are_one_warning(cases, tmp_path):
    for path in sorted((cases / "images").iterdir())[:2]:
        far = tmp_path.parent / f"{tmp_path.name}_far_{path.name}"
        path.rename(far)
        path.symlink_to(far)
    [warning] = check_folder("segmentation", cases, cases / "home").warnings
    assert (warning.unit, warning.code) == ("2 files", "W_LINK") and "_far_p0_scan0" in warning.message


def test_problems_of_names_table_and_content_come_in_one_list(cases):
    cases.joinpath("spec.yaml").write_text(SPECS["segmentation"].replace(
        'grouping: {pattern: "^(p[0-9]+)_"}', "grouping: {table: none.csv}"))
    images = sorted((cases / "images").iterdir())
    images[0].write_bytes(images[0].read_bytes()[:-100])
    images[1].unlink()
    codes = [(problem.unit, problem.code) for problem in check_folder("segmentation", cases, cases / "home").problems]
    assert codes == [("the table of patients", "E_TABLE"), ("p0_scan1", "E_NO_IMAGE"), ("p0_scan0", "E_TRUNCATED")]
