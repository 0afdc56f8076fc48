from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from autoseg.core.errors import DatasetError
from autoseg.core.geometry import Geometry
from autoseg.core.image import Image
from autoseg.core.spec import ChannelSpec, DatasetSpec, GroupingSpec, InputSpec, LabelSpec, LayoutSpec
from autoseg.io.dataset import Problem, check_case, list_inputs, require_no_problems, scan, spec_of_folder
from autoseg.io.images import write_label_map, write_volume
from autoseg.io.specs import load_spec

HIPPOCAMPUS = load_spec("Hippocampus")
BRATS = load_spec("BraTS")


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def brats_names(case, *, without=()):
    return [f"{case}/{case}_{part}.nii.gz" for part in ("t1", "t1ce", "t2", "flair", "seg") if part not in without]


def codes(problems):
    return [(problem.case, problem.code) for problem in problems]


def test_decathlon_folder_as_downloaded_is_understood(tmp_path):
    touch(
        tmp_path,
        "dataset.json",
        "imagesTr/h_2.nii.gz",
        "imagesTr/h_1.nii.gz",
        "imagesTr/._h_1.nii.gz",
        "labelsTr/h_1.nii.gz",
        "labelsTr/h_2.nii.gz",
        "labelsTr/._h_2.nii.gz",
        "imagesTs/h_3.nii.gz",
    )
    found = scan(HIPPOCAMPUS, tmp_path)
    assert found.layout == "msd" and found.problems == ()
    assert [case.id for case in found.cases] == ["h_1", "h_2"]
    assert found.cases[0].inputs == {"image": (tmp_path / "imagesTr/h_1.nii.gz",)}
    assert found.cases[0].targets == {"label": tmp_path / "labelsTr/h_1.nii.gz"}
    assert found.cases[0].group == "h_1"
    assert found.ignored == ("imagesTs/h_3.nii.gz: a test case, which has no label",)


def test_the_layout_with_most_complete_cases_wins(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/b_0000.nii.gz", "labelsTr/a.nii.gz", "labelsTr/b.nii.gz")
    found = scan(HIPPOCAMPUS, tmp_path)
    assert found.layout == "nnunet" and [case.id for case in found.cases] == ["a", "b"]


def test_brats_folder_as_downloaded_is_understood_with_channels_in_order(tmp_path):
    touch(
        tmp_path, *brats_names("BraTS2021_00002"), *(f"TrainingData/{name}" for name in brats_names("BraTS2021_00000"))
    )
    found = scan(BRATS, tmp_path)
    assert found.layout == "as downloaded" and found.problems == () and found.ignored == ()
    assert [case.id for case in found.cases] == ["BraTS2021_00000", "BraTS2021_00002"]
    assert [path.name.rsplit("_", 1)[1] for path in found.cases[1].inputs["image"]] == [
        "t1.nii.gz",
        "t1ce.nii.gz",
        "t2.nii.gz",
        "flair.nii.gz",
    ]


def test_missing_files_are_problems_that_name_them(tmp_path):
    touch(
        tmp_path,
        *brats_names("ok"),
        *brats_names("c", without=("t2",)),
        *brats_names("l", without=("seg",)),
        "i/i_seg.nii.gz",
        "README.txt",
    )
    found = scan(BRATS, tmp_path)
    assert [case.id for case in found.cases] == ["ok"]
    assert codes(found.problems) == [("c", "E_CHANNEL_MISSING"), ("i", "E_NO_IMAGE"), ("l", "E_NO_LABEL")]
    assert "{case}_t2.nii.gz" in found.problems[0].message
    assert found.ignored == ("README.txt: matches no pattern of layout as downloaded",)


def test_ids_that_differ_in_letter_case_only_are_a_problem(tmp_path):
    touch(tmp_path, "imagesTr/P1.nii.gz", "imagesTr/p1.nii.gz", "labelsTr/P1.nii.gz", "labelsTr/p1.nii.gz")
    found = scan(HIPPOCAMPUS, tmp_path)
    assert codes(found.problems) == [("P1", "E_CASE_TWIN")] and "P1, p1" in found.problems[0].message


def test_the_layout_of_a_folder_in_which_every_case_is_broken_is_still_recognised(tmp_path):
    touch(tmp_path, "imagesTr/a.nii.gz", "labelsTr/b.nii.gz")
    found = scan(HIPPOCAMPUS, tmp_path)
    assert (found.layout, codes(found.problems)) == ("msd", [("a", "E_NO_LABEL"), ("b", "E_NO_IMAGE")])


def test_the_label_values_of_a_folder_are_those_of_its_layout(tmp_path):
    touch(tmp_path / "official", *brats_names("a"))
    touch(tmp_path / "nnunet", *(f"imagesTr/a_000{index}.nii.gz" for index in range(4)), "labelsTr/a.nii.gz")

    def values(folder):
        return {label.name: label.value for label in spec_of_folder(BRATS, folder).labels}

    assert values(tmp_path / "official") == {"necrotic_core": 1, "edema": 2, "enhancing": 4}
    assert values(tmp_path / "nnunet") == {"necrotic_core": 2, "edema": 1, "enhancing": 3}
    assert spec_of_folder(BRATS, tmp_path / "none") is BRATS


@pytest.mark.parametrize(("labels", "words"), [
    ({"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]}, None),
    ({"background": 0, "whole tumor": [1, 2, 3], "tumor core": [1, 3], "enhancing tumor": [3]},
     r"tumorcore is \[1, 3\] there and \[2, 3\] in the specification"),
    ({"background": 0, "Edema": 2, "necrosis": 1, "enhancing": 3}, r"edema is \[2\] there and \[1\]"),
    ({"background": 0, "a": 1, "b": 2, "c": 3, "d": 7}, r"does not list the values \[7\]"),
    ({"background": 0, "a": 1}, None),
])
def test_a_dataset_json_that_says_otherwise_is_refused(tmp_path, labels, words):
    touch(tmp_path, *(f"imagesTr/a_000{index}.nii.gz" for index in range(4)), "labelsTr/a.nii.gz")
    names = {str(index): name for index, name in enumerate(("T1", "T1ce", "T2", "FLAIR"))}
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": names, "labels": labels}))
    if words is None:
        assert spec_of_folder(BRATS, tmp_path).labels[1].value == 1
    else:
        with pytest.raises(DatasetError, match=words) as caught:
            spec_of_folder(BRATS, tmp_path)
        assert caught.value.hint == f"autoseg check -d {tmp_path}"


def test_a_damaged_dataset_json_beside_a_known_specification_is_refused(tmp_path):
    touch(tmp_path, "imagesTr/h_1.nii.gz", "labelsTr/h_1.nii.gz")
    for text, code in (('{"labels": {}, "labels": {}}', "E_JSON"), ("", "E_JSON"), ('{"a": 1e999}', "E_DOCUMENT")):
        (tmp_path / "dataset.json").write_text(text)
        with pytest.raises(DatasetError, match="Repair the file, or remove it") as caught:
            spec_of_folder(HIPPOCAMPUS, tmp_path)
        assert caught.value.code == code
    (tmp_path / "dataset.json").write_text('{"what": "ever"}')  # another dialect says nothing
    assert spec_of_folder(HIPPOCAMPUS, tmp_path) == HIPPOCAMPUS


def test_excluded_cases_are_left_out_with_their_problems_and_listed(tmp_path):
    touch(tmp_path, *brats_names("ok"), *brats_names("bad", without=("t2",)))
    found = scan(replace(BRATS, exclude=("bad", "never seen")), tmp_path)
    assert [case.id for case in found.cases] == ["ok"] and found.problems == ()
    assert found.ignored == ("case bad: excluded by the specification",)


def test_a_folder_of_something_else_says_what_was_looked_for_and_what_is_there(tmp_path):
    touch(tmp_path, *(f"{index}.dcm" for index in range(7)))
    with pytest.raises(DatasetError, match=r"imagesTr/\{case\}\.nii\.gz.*0\.dcm.* and 2 more"):
        scan(HIPPOCAMPUS, tmp_path)
    with pytest.raises(DatasetError, match="none is not a folder"):
        scan(HIPPOCAMPUS, tmp_path / "none")


def test_patients_come_from_a_pattern_in_the_id(tmp_path):
    touch(tmp_path, *(f"{kind}Tr/{case}.nii.gz" for kind in ("images", "labels") for case in ("p1_a", "p1_b", "q")))
    found = scan(replace(HIPPOCAMPUS, grouping=GroupingSpec(pattern=r"^(p\d)_")), tmp_path)
    assert [(case.id, case.group) for case in found.cases] == [("p1_a", "p1"), ("p1_b", "p1")]
    assert codes(found.problems) == [("q", "E_NO_GROUP")]


def test_strata_come_from_patterns_in_the_id_and_the_first_that_is_found_counts(tmp_path):
    touch(tmp_path, *(f"{kind}Tr/{case}.nii.gz" for kind in ("images", "labels") for case in ("HF_1", "HFX_2", "N_3", "q")))
    grouping = GroupingSpec(strata={"failure, other": "^HFX", "failure": "^HF", "normal": "^N_"})
    found = scan(replace(HIPPOCAMPUS, grouping=grouping), tmp_path)
    assert [(case.id, case.stratum) for case in found.cases] == [
        ("HFX_2", "failure, other"), ("HF_1", "failure"), ("N_3", "normal")]
    assert codes(found.problems) == [("q", "E_NO_STRATUM")] and "^HFX" in found.problems[0].message


def test_patients_come_from_the_path(tmp_path):
    spec = replace(
        HIPPOCAMPUS, layouts=(LayoutSpec("x", {"image": ("{group}/{case}.nii",)}, {"label": "{group}/l/{case}.nii"}),)
    )
    touch(tmp_path, "p1/a.nii", "p1/l/a.nii", "p2/b.nii", "p2/l/b.nii")
    assert [(case.id, case.group) for case in scan(spec, tmp_path).cases] == [("a", "p1"), ("b", "p2")]


def test_patient_site_date_and_stratum_come_from_a_table(tmp_path):
    touch(tmp_path, *(f"{kind}Tr/{case}.nii.gz" for kind in ("images", "labels") for case in ("a", "b", "c")))
    (tmp_path / "t.tsv").write_text(
        "id\tpatient\tplace\twhen\tgrade\na\tp1\tRome\t2020\thigh\nb\tp1\t\t\t\n", encoding="utf-8-sig"
    )
    grouping = GroupingSpec(
        table="t.tsv",
        case_column="id",
        group_column="patient",
        site_column="place",
        date_column="when",
        stratify_column="grade",
    )
    found = scan(replace(HIPPOCAMPUS, grouping=grouping), tmp_path)
    assert [(case.group, case.site, case.date, case.stratum) for case in found.cases] == [
        ("p1", "Rome", "2020", "high"),
        ("p1", None, None, None),
    ]
    assert codes(found.problems) == [("c", "E_NOT_IN_TABLE")]
    assert found.ignored == ()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("id,patient\na,1\na,2\n", "two rows for case a"),
        ("id,patent\na,1\n", "'patent'|patient"),
        (None, "cannot be read"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path, content, words):
    touch(tmp_path, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz")
    if content is not None:
        (tmp_path / "t.csv").write_text(content)
    grouping = GroupingSpec(table="t.csv", case_column="id", group_column="patient")
    with pytest.raises(DatasetError, match=words):
        scan(replace(HIPPOCAMPUS, grouping=grouping), tmp_path)


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"], ["a"]),
        (["b.nii.gz", "a.nii.gz"], ["a", "b"]),
        (["a_0000.nii.gz", "b_0000.nii.gz"], ["a", "b"]),
        (["a_0000.nrrd", "b_0000.nrrd"], ["a", "b"]),
        (["a.mha", "b.nrrd", "notes.txt"], ["a", "b"]),
    ],
)
def test_images_to_predict_are_found_in_every_usual_form(tmp_path, names, ids):
    touch(tmp_path, *names)
    cases = list_inputs(HIPPOCAMPUS, tmp_path).cases
    assert [case.id for case in cases] == ids
    assert all(case.targets == {} and len(case.inputs["image"]) == 1 for case in cases)


def test_several_channels_to_predict_are_found_flat_nested_and_with_numbers(tmp_path):
    for folder, names in (
        ("nested", [f"P/P_{part}.nii.gz" for part in ("t1", "t1ce", "t2", "flair")]),
        ("flat", [f"P_{part}.nii.gz" for part in ("t1", "t1ce", "t2", "flair")]),
        ("numbers", [f"P_000{index}.mha" for index in range(4)]),
    ):
        touch(tmp_path / folder, *names)
        [case] = list_inputs(BRATS, tmp_path / folder).cases
        assert case.id == "P" and case.inputs["image"] == tuple(tmp_path / folder / name for name in names)


def test_a_single_file_is_a_case(tmp_path):
    touch(tmp_path, "x_0000.nii.gz", "a b.nii.gz", "x.txt")
    [case] = list_inputs(HIPPOCAMPUS, tmp_path / "x_0000.nii.gz").cases
    assert case.id == "x" and case.inputs == {"image": (tmp_path / "x_0000.nii.gz",)}
    for name in ("a b.nii.gz", "x.txt"):
        with pytest.raises(DatasetError):
            list_inputs(HIPPOCAMPUS, tmp_path / name)


def test_missing_channels_and_twins_are_problems_and_the_other_cases_are_predicted(tmp_path):
    touch(
        tmp_path,
        *(f"P_{part}.nii.gz" for part in ("t1", "t1ce")),
        *(f"Q_{part}.nii.gz" for part in ("t1", "t1ce", "t2", "flair")),
    )
    found = list_inputs(BRATS, tmp_path)
    assert [case.id for case in found.cases] == ["Q"]
    [problem] = found.problems
    assert problem.case == "P" and "{case}_t2.nii.gz, {case}_flair.nii.gz" in problem.message
    touch(tmp_path / "b", "p.nii", "p.nrrd", "q.nii")
    twins = list_inputs(HIPPOCAMPUS, tmp_path / "b")
    assert [case.id for case in twins.cases] == ["q"] and {problem.code for problem in twins.problems} == {"E_DUPLICATE"}
    touch(tmp_path / "c", "notes.txt")
    with pytest.raises(DatasetError, match="holds no case"):
        list_inputs(HIPPOCAMPUS, tmp_path / "c")


def check_all(spec, cases):
    return tuple(problem for case in cases for problem in check_case(spec, case))


@pytest.fixture
def dataset(tmp_path):
    """Four cases of two channels: good, a label that is not listed, a shifted label map and nan; and an empty one."""
    spec = DatasetSpec(
        "Toy",
        "t",
        (LayoutSpec("x", {"image": ("{case}_0.nii", "{case}_1.nii")}, {"label": "l/{case}.nii"}),),
        (InputSpec(channels=(ChannelSpec("A"), ChannelSpec("B"))),),
        (LabelSpec("one", 1), LabelSpec("five", 5)),
    )
    grid = Geometry((3, 4, 5), (2.5, 0.7, 1.3))
    moved = Geometry((3, 4, 5), (2.5, 0.7, 1.3), (0.0, 3.0, 0.0))
    voxels = np.arange(60, dtype=np.float32).reshape(1, 3, 4, 5)
    for case, value, label_grid in (
        ("empty", 0, grid),
        ("good", 5, grid),
        ("label", 3, grid),
        ("moved", 5, moved),
        ("nan", 1, grid),
    ):
        for channel in (0, 1):
            hole = voxels.copy()
            hole[0, 0, 0, 0] = np.nan if case == "nan" and channel else 0
            write_volume(tmp_path / f"{case}_{channel}.nii", hole, Image.canonical(voxels, grid))
        label = np.zeros((3, 4, 5), np.uint8)
        label[1, 2, 3] = value
        write_label_map(tmp_path / "l" / f"{case}.nii", label, Image.canonical(voxels, label_grid))
    return spec, tmp_path


def test_reading_every_file_finds_every_problem(dataset):
    spec, folder = dataset
    cases = scan(spec, folder).cases
    problems = check_all(spec, cases)
    assert codes(problems) == [
        ("empty", "W_LABEL_EMPTY"),
        ("label", "E_LABEL_VALUE"),
        ("moved", "E_GRID"),
        ("nan", "E_NONFINITE"),
    ]
    assert "label values 3 (1 voxel) are not" in problems[1].message and "1 one, 5 five" in problems[1].message


def test_a_folder_of_masks_is_checked_file_by_file(dataset):
    spec, folder = dataset
    layout = LayoutSpec("x", {"image": ("{case}_0.nii", "{case}_1.nii")}, {"label": "masks/{case}/"})
    image = Image.canonical(np.zeros((1, 3, 4, 5), np.float32), Geometry((3, 4, 5), (2.5, 0.7, 1.3)))
    for name, value in (("first", 1), ("second", 5)):
        label = np.zeros((3, 4, 5), np.uint8)
        label[0, 0, 0] = value
        write_label_map(folder / "masks" / "good" / f"{name}.nii", label, image)
    spec = replace(spec, layouts=(layout,), labels=spec.labels[:1])
    [case] = scan(spec, folder).cases
    [problem] = check_case(spec, case)
    assert problem.code == "E_LABEL_VALUE" and "label values 5 (1 voxel) are not" in problem.message


def test_problems_are_raised_as_one_error_that_lists_them(dataset):
    spec, folder = dataset
    problems = check_all(spec, scan(spec, folder).cases)
    with pytest.raises(DatasetError) as caught:
        require_no_problems(problems, spec)
    lines = str(caught.value).splitlines()
    assert lines[0] == "dataset Toy: 3 cases have problems:"
    assert [line.split(":")[0].strip() for line in lines[1:4]] == ["label", "moved", "nan"]
    assert caught.value.hint == "autoseg check -d Toy"


def test_one_problem_of_many_cases_is_one_line(dataset):
    problems = [Problem(f"c{number}", "E_NOT_IN_TABLE", "has no row") for number in range(9)] + [Problem("z", "E_GRID", "moved")]
    with pytest.raises(DatasetError) as caught:
        require_no_problems(problems, dataset[0])
    assert str(caught.value).splitlines()[:3] == [
        "dataset Toy: 10 cases have problems:", "  c0, c1, c2, c3, c4 and 4 more: has no row [E_NOT_IN_TABLE]",
        "  z: moved [E_GRID]"]


def test_warnings_do_not_stop(dataset):
    require_no_problems([Problem("a", "W_LABEL_EMPTY", "m", "warning")], dataset[0])


def test_targets_that_are_images_must_lie_on_the_grid_of_the_image(dataset):
    spec, folder = dataset
    problems = check_all(replace(spec, labels=()), scan(spec, folder).cases)
    assert codes(problems) == [("empty", "W_CONSTANT"), ("moved", "E_GRID"), ("nan", "E_NONFINITE")]


def test_real_hippocampus_has_200_sound_cases(real_data):
    found = scan(HIPPOCAMPUS, real_data / "Dataset004_Hippocampus")
    assert (len(found.cases), found.layout, found.problems, found.ignored) == (200, "nnunet", (), ())
    assert check_all(HIPPOCAMPUS, found.cases[::20]) == ()
