"""Which row belongs to which case, and what becomes of the values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autoseg.core.errors import DatasetError, UnsafeError
from autoseg.core.spec import DatasetSpec, GroupingSpec, InputSpec, LayoutSpec
from autoseg.io.dataset import list_inputs, scan, scan_all


def spec(path="images/{case}.png", case_id="{case}", **grouping):
    return DatasetSpec("Toy", "toy", (LayoutSpec("l", {"image": (path,)}, case_id=case_id),), (InputSpec(lossy=True),),
                       grouping=GroupingSpec(**grouping))


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def values(found, column):
    return [(case.id, case.values[column]) for case in found.cases]


@pytest.mark.parametrize("cells", [
    ("a", "b.c"), ("a.png", "b.c.png"), ("a.jpeg", "b.c.DCM"), ("images/a.png", "images/b.c.png"),
    ("Toy-v1/images/a.png", "/data/Toy/images/b.c.png"), ("Toy\\images\\a.png", ".\\b.c.png"), (" a.nii.gz ", "x/b.c.tif"),
])
def test_cells_name_cases_by_id_file_name_or_path(tmp_path, cells):
    touch(tmp_path, "images/a.png", "images/b.c.png")
    (tmp_path / "t.csv").write_text(f"file,label\n{cells[0]},x\n{cells[1]},y\n")
    found = scan(spec(table="t.csv", case_column="file"), tmp_path)
    assert found.problems == found.ignored == ()
    assert values(found, "label") == [("a", "x"), ("b.c", "y")]
    assert values(found, "file") == [("a", cells[0]), ("b.c", cells[1])]


def test_a_path_names_a_case_whose_id_is_made_of_its_parts(tmp_path):
    touch(tmp_path, *(f"train/{patient}/study1/view{view}.jpg" for patient in ("p1", "p2") for view in (1, 2)))
    (tmp_path / "train.csv").write_text("Path,Edema\n" + "".join(
        f"CheXpert/train/{patient}/study1/view{view}.jpg,{view}.0\n" for patient in ("p2", "p1") for view in (1, 2)))
    found = scan(spec("train/{group}/{study}/{view}.jpg", "{group}_{study}_{view}", table="train.csv", case_column="Path"),
                 tmp_path)
    assert found.problems == ()
    assert [(case.id, case.group, case.values["Edema"], case.values["study"]) for case in found.cases] == [
        ("p1_study1_view1", "p1", "1.0", "study1"), ("p1_study1_view2", "p1", "2.0", "study1"),
        ("p2_study1_view1", "p2", "1.0", "study1"), ("p2_study1_view2", "p2", "2.0", "study1")]


def test_rows_without_a_file_are_one_warning_and_files_without_a_row_are_problems(tmp_path):
    touch(tmp_path, "images/a.png", "images/b.png", "images/c.png")
    (tmp_path / "t.csv").write_text("case,label\na,x\n" + "".join(f"no{number},y\n" for number in range(5)))
    found = scan(spec(table="t.csv"), tmp_path)
    assert [(problem.case, problem.code, problem.severity) for problem in found.problems] == [
        ("t.csv", "W_NO_FILE", "warning"), ("b", "E_NOT_IN_TABLE", "error"), ("c", "E_NOT_IN_TABLE", "error")]
    assert "5 rows" in found.problems[0].message and "no0, no1, no2 and 2 more" in found.problems[0].message
    assert values(found, "label") == [("a", "x")]


def test_a_table_of_other_images_is_refused_with_an_example_of_both(tmp_path):
    touch(tmp_path, "images/a.png")
    (tmp_path / "t.csv").write_text("case,file\n1,z.png\n")
    with pytest.raises(DatasetError, match="'case' holds cells such as '1', and cases are called 'a'"):
        scan(spec(table="t.csv"), tmp_path)
    assert [problem.code for problem in scan_all(spec(table="t.csv"), tmp_path).problems] == ["E_TABLE"]


def test_two_rows_for_one_case_are_refused_also_under_different_names(tmp_path):
    touch(tmp_path, "images/a.png")
    (tmp_path / "t.csv").write_text("case\na\nimages/a.png\n")
    with pytest.raises(DatasetError, match="two rows for case a, the second is row 3"):
        scan(spec(table="t.csv"), tmp_path)


def test_parts_of_the_path_are_values_and_can_be_patient_and_stratum(tmp_path):
    touch(tmp_path, "HYP/p1_1.png", "HYP/p1_2.png", "N/p2_1.png")
    found = scan(spec("{class}/{case:*}.png", stratify_column="class", pattern="^(p[0-9])"), tmp_path)
    assert [(case.id, case.group, case.stratum, case.values) for case in found.cases] == [
        ("p1_1", "p1", "HYP", {"class": "HYP"}), ("p1_2", "p1", "HYP", {"class": "HYP"}), ("p2_1", "p2", "N", {"class": "N"})]
    with pytest.raises(DatasetError, match="'clas' is not known; known are class.*Did you mean 'class'"):
        scan(spec("{class}/{case}.png", stratify_column="clas"), tmp_path)


def test_equal_file_names_in_two_classes_are_two_cases_where_the_id_says_so(tmp_path):
    touch(tmp_path, "A/1.png", "B/1.png", "B/2.png")
    found = scan(spec("{class}/{case}.png", "{class}_{case}"), tmp_path)
    assert values(found, "class") == [("A_1", "A"), ("B_1", "B"), ("B_2", "B")] and found.problems == ()
    problems = scan(spec("{class}/{case}.png"), tmp_path).problems
    assert [(problem.case, problem.code) for problem in problems] == [("1", "E_DUPLICATE"), ("1", "E_VALUE")]
    assert "case_id" in problems[0].message


def test_a_table_that_contradicts_a_path_is_a_problem_of_the_case(tmp_path):
    touch(tmp_path, "A/1.png", "B/2.png")
    (tmp_path / "t.csv").write_text("case,class\n1,A\n2,A\n")
    found = scan(spec("{class}/{case}.png", table="t.csv"), tmp_path)
    assert [case.id for case in found.cases] == ["1"]
    assert [(problem.case, problem.code) for problem in found.problems] == [("2", "E_VALUE")]


def test_several_tables_are_joined_and_a_case_needs_a_row_in_each(tmp_path):
    touch(tmp_path, *(f"images/{case}.png" for case in "abc"))
    (tmp_path / "one.csv").write_text("image,MEL,NV\na,1.0,0.0\nb,0,1\nc,0,1\n")
    (tmp_path / "two.csv").write_text("image;lesion\na;L1\nb;L1\n")
    grouping = {"table": "one.csv", "more_tables": ("two.csv",), "case_column": "image", "group_column": "lesion",
                "one_of": {"dx": ("MEL", "NV")}}
    found = scan(spec(**grouping), tmp_path)
    assert [(case.id, case.group, case.values["dx"], case.values["NV"]) for case in found.cases] == [
        ("a", "L1", "MEL", "0.0"), ("b", "L1", "NV", "1")]
    assert [(problem.case, problem.code) for problem in found.problems] == [("c", "E_NOT_IN_TABLE")]
    for text, words in (("image,MEL,NV\na,1,1\n", "case a: exactly one of the columns must be 1"),
                        ("image,MEL,NV\na,0.5,0\n", "exactly one"), ("image,MEL\na,1\n", "names the column 'NV'"),
                        ("image,MEL,NV,lesion\na,1,0,x\n", "'lesion' is in an earlier table"),
                        ("image,MEL,NV,dx\na,1,0,x\n", "is called like a column")):
        (tmp_path / "one.csv").write_text(text)
        with pytest.raises(DatasetError, match=words):
            scan(spec(**grouping), tmp_path)


def test_lists_of_a_given_split_become_a_value(tmp_path):
    touch(tmp_path, *(f"images/{case}.png" for case in "abc"))
    (tmp_path / "train.txt").write_text("a.png\r\n\r\nelsewhere.png\r\n")
    (tmp_path / "test.txt").write_text("images/b.png")
    splits = {"train_val": "train.txt", "test": "test.txt"}
    found = scan(spec(splits=splits, stratify_column="split"), tmp_path)
    assert [(case.id, case.values, case.stratum) for case in found.cases] == [
        ("a", {"split": "train_val"}, "train_val"), ("b", {"split": "test"}, "test")]
    assert [(problem.case, problem.code) for problem in found.problems] == [("c", "E_NOT_IN_TABLE")]
    (tmp_path / "test.txt").write_text("a\n")
    with pytest.raises(DatasetError, match="names case a, which is in the split 'train_val' too"):
        scan(spec(splits=splits), tmp_path)


def test_cases_are_left_out_by_a_column_with_the_reason_but_are_predicted(tmp_path):
    touch(tmp_path, *(f"images/{case}.png" for case in "abcd"))
    (tmp_path / "t.csv").write_text("case,modality,view\na,X-ray,PA\nb,CT,Axial\nc,X-ray,L\nd,CT,Axial\n")
    grouping = {"table": "t.csv", "leave_out": {"modality": {"CT": "a slice of a CT"}, "view": {"L": "lateral"}}}
    found = scan(spec(**grouping), tmp_path)
    assert [case.id for case in found.cases] == ["a"] and found.problems == ()
    assert found.ignored == ("2 cases: a slice of a CT", "1 case: lateral")
    assert [case.id for case in list_inputs(spec(**grouping), tmp_path).cases] == ["a", "b", "c", "d"]
    with pytest.raises(DatasetError, match="'modalty' is not known"):
        scan(spec(table="t.csv", leave_out={"modalty": {"CT": "x"}}), tmp_path)


def test_the_name_of_a_table_may_differ_between_releases(tmp_path):
    touch(tmp_path, "images/a.png")
    with pytest.raises(DatasetError, match=r"no table that is called Data_Entry\*\.csv"):
        scan(spec(table="Data_Entry*.csv"), tmp_path)
    (tmp_path / "Data_Entry_2020.csv").write_text("case\na\n")
    found = scan(spec(table="Data_Entry*.csv"), tmp_path)
    assert len(found.cases) == 1 and found.ignored == ()
    (tmp_path / "Data_Entry_2017.csv").write_text("case\na\n")
    with pytest.raises(DatasetError, match="2 tables"):
        scan(spec(table="Data_Entry*.csv"), tmp_path)


@pytest.mark.parametrize("grouping", [{"table": "../t.csv"}, {"table": "t.csv", "more_tables": ("/t.csv",)},
                                      {"splits": {"a": "../../list.txt"}}])
def test_tables_outside_of_the_folder_are_refused(tmp_path, grouping):
    touch(tmp_path, "images/a.png")
    with pytest.raises(UnsafeError, match="outside the folder"):
        scan(spec(**grouping), tmp_path)


def test_a_patient_of_several_lines_is_a_problem(tmp_path):
    touch(tmp_path, "images/a.png")
    (tmp_path / "t.csv").write_text('case,patient\na,"one\ntwo"\n')
    found = scan(spec(table="t.csv", group_column="patient"), tmp_path)
    assert [(problem.case, problem.code) for problem in found.problems] == [("a", "E_TABLE")]


def test_a_table_of_the_size_of_chestxray14_is_read(tmp_path):
    touch(tmp_path, "images/00000001_000.png", "images/00030805_000.png")
    lines = [f"{number:08d}_000.png,Cardiomegaly|Emphysema,0,{number},57,M,PA,2682,2749,0.143,0.143"
             for number in range(1, 112_121)]
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage[Width," \
             "Height],OriginalImagePixelSpacing[x,y]"
    (tmp_path / "t.csv").write_text("\n".join([header, *lines]) + "\n")
    found = scan(spec(table="t.csv", case_column="Image Index", group_column="Patient ID"), tmp_path)
    assert [(case.id, case.group) for case in found.cases] == [("00000001_000", "1"), ("00030805_000", "30805")]
    assert found.cases[0].values["Finding Labels"] == "Cardiomegaly|Emphysema"
    assert "112118 rows" in found.problems[0].message


def test_without_a_table_nothing_but_parts_is_known(tmp_path):
    touch(tmp_path, "images/a.png")
    plain = spec()
    assert scan(plain, tmp_path).cases[0].values == {} and plain == replace(plain, grouping=GroupingSpec())
    with pytest.raises(ValueError, match="need a table"):
        GroupingSpec(more_tables=("a.csv",))
    with pytest.raises(ValueError, match="two columns at least"):
        GroupingSpec(table="t.csv", one_of={"dx": ("A", "A")})
