"""Folders as an unlucky or a malicious hand made them: what is in them is named, neither opened nor left out silently."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import replace

import pytest

from autoseg.core.errors import DatasetError, UnsafeError
from autoseg.core.spec import ChannelSpec, DatasetSpec, GroupingSpec, InputSpec, LayoutSpec
from autoseg.io.dataset import list_inputs, scan, scan_all

ONE = DatasetSpec("Toy", "t", (LayoutSpec("n", {"image": ("i/{case}_0000.nii",)}, {"label": "l/{case}.nii"}),))
TWO = replace(ONE, layouts=(LayoutSpec("n", {"image": ("i/{case}_0000.nii", "i/{case}_0001.nii")}, {"label": "l/{case}.nii"}),),
              inputs=(InputSpec(channels=(ChannelSpec("A"), ChannelSpec("B"))),))


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(spec, folder):
    result = scan(spec, folder)
    return [case.id for case in result.cases], [(problem.case, problem.code) for problem in result.problems]


def test_missing_double_and_extra_channels_are_each_a_problem_of_their_case(tmp_path):
    touch(tmp_path, *(f"l/{case}.nii" for case in "abcde"), *(f"i/{case}_000{c}.nii" for case in "ac" for c in (0, 1)),
          "i/b_0000.nii", "i/c_0002.nii", "i/c_0007.nii", "i/e_0000.nii", "i/e_0001.nii", "i/sub/x.nii")
    cases, problems = found(TWO, tmp_path)
    assert problems == [("c", "E_CHANNEL_EXTRA"), ("c", "E_CHANNEL_EXTRA"), ("b", "E_CHANNEL_MISSING"), ("d", "E_NO_IMAGE")]
    assert "i/c_0002.nii" in scan(TWO, tmp_path).problems[0].message and cases == ["a", "c", "e"]


def test_a_channel_that_the_layout_leaves_out_with_a_reason_is_no_problem(tmp_path):
    touch(tmp_path, "l/a.nii", "i/a_0000.nii", "i/a_0001.nii")
    assert found(ONE, tmp_path)[1] == [("a", "E_CHANNEL_EXTRA")]
    layout = replace(ONE.layouts[0], leave_out={"i/*_0001.nii": "the T2, which is not used"})
    assert found(replace(ONE, layouts=(layout,)), tmp_path) == (["a"], [])
    touch(tmp_path / "new", "b_0000.nii", "b_0001.nii")  # to predict, in one folder
    assert list_inputs(replace(ONE, layouts=(layout,)), tmp_path / "new").problems == ()


def test_more_channels_than_the_model_has_are_refused_and_not_taken_for_cases(tmp_path):
    touch(tmp_path / "named", "p_0000.nii", "p_0001.nii", "q_0000.nii", "q_0001.nii")
    single = replace(ONE, layouts=(LayoutSpec("msd", {"image": ("i/{case}.nii",)}), *ONE.layouts))
    for spec in (ONE, single):
        result = list_inputs(spec, tmp_path / "named")
        assert result.cases == () and {problem.code for problem in result.problems} == {"E_CHANNEL_EXTRA"}
    touch(tmp_path / "numbered", "amos_0001.nii", "amos_0004.nii", "amos_0507.nii")  # numbers of cases, as in AMOS22
    assert len(list_inputs(single, tmp_path / "numbered").cases) == 3


def test_pipes_and_links_to_nowhere_are_problems_of_their_case_and_not_opened(tmp_path):
    touch(tmp_path, "l/a.nii", "l/b.nii", "l/c.nii", "i/a_0000.nii")
    os.mkfifo(tmp_path / "i" / "b_0000.nii")
    (tmp_path / "i" / "c_0000.nii").symlink_to(".git/annex/objects/MD5-c")
    (tmp_path / "l" / "d.nii").symlink_to("gone")
    (tmp_path / "i" / "d_0000.nii").symlink_to("gone")
    cases, problems = found(ONE, tmp_path)
    assert cases == ["a"]
    assert problems == [("b", "E_NOT_A_FILE"), ("c", "E_NOT_A_FILE"), ("d", "E_NOT_A_FILE"), ("d", "E_NOT_A_FILE"),
                        ("b", "E_NO_IMAGE"), ("c", "E_NO_IMAGE")]
    assert ".git/annex/objects/MD5-c" in scan(ONE, tmp_path).problems[1].message


def test_a_pipe_among_images_to_predict_is_a_refused_case(tmp_path):
    touch(tmp_path, "a_0000.nii")
    os.mkfifo(tmp_path / "b_0000.nii")
    result = list_inputs(ONE, tmp_path)
    assert [case.id for case in result.cases] == ["a"] and [p.case for p in result.problems] == ["b"]


def test_loops_end_and_links_out_of_the_folder_are_counted(tmp_path):
    data = tmp_path / "data"
    touch(tmp_path, "elsewhere/a.nii", "elsewhere/deep/x.nii")
    touch(data, "l/a.nii")
    (data / "i").mkdir()
    (data / "i" / "a_0000.nii").symlink_to(tmp_path / "elsewhere" / "a.nii")
    (data / "round").symlink_to(data)
    (data / "self").symlink_to("self")
    result = scan(ONE, data)
    assert [case.id for case in result.cases] == ["a"] and result.outside == (data / "i" / "a_0000.nii",)
    assert any("round: a link to a folder is not followed" in line for line in result.ignored)
    assert any(line.startswith("self: ") and "cannot be read" in line for line in result.ignored)


def test_a_folder_that_is_all_links_to_folders_says_so(tmp_path):
    touch(tmp_path, "far/a_0000.nii")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "i").symlink_to(tmp_path / "far")
    with pytest.raises(DatasetError, match="i: a link to a folder is not followed"):
        scan(ONE, tmp_path / "data")


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2Jb", "a\u202eb", "a\u2028b"])
def test_names_that_a_terminal_would_obey_are_problems_in_one_line(tmp_path, name):
    touch(tmp_path, f"i/{name}_0000.nii", f"l/{name}.nii", f"{name}.txt", "i/ok_0000.nii", "l/ok.nii")
    result = scan(ONE, tmp_path)
    assert [case.id for case in result.cases] == ["ok"]
    assert {problem.code for problem in result.problems} == {"E_FILE_NAME"}
    texts = [*(problem.case + problem.message for problem in result.problems), *result.ignored]
    assert len(result.ignored) == 3 and all(text.isprintable() for text in texts)


def test_names_that_are_not_utf8_are_problems_that_can_be_printed(tmp_path):
    try:
        (tmp_path / "i").mkdir()
        (tmp_path / "l").mkdir()
        for place in (b"i/\xff_0000.nii", b"l/\xff.nii"):
            open(os.path.join(os.fsencode(tmp_path), place), "w").close()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    result = scan_or_error(tmp_path)
    assert "E_FILE_NAME" in result and "\\udcff" in result and result.encode("utf-8")


def scan_or_error(folder):
    touch(folder, "i/ok_0000.nii", "l/ok.nii")
    return " ".join(f"{problem.code} {problem.message}" for problem in scan(ONE, folder).problems)


def test_ids_in_two_unicode_forms_are_both_refused(tmp_path):
    forms = [unicodedata.normalize(form, "é1") for form in ("NFC", "NFD")]
    touch(tmp_path, "i/ok_0000.nii", "l/ok.nii", *(f"i/{form}_0000.nii" for form in forms))
    cases, problems = found(ONE, tmp_path)
    assert cases == ["ok"] and {code for _, code in problems} == {"E_CASE_ID"}


def test_twins_by_letter_case_are_refused_in_planning_and_in_prediction(tmp_path):
    touch(tmp_path, "i/P1_0000.nii", "i/p1_0000.nii", "l/P1.nii", "l/p1.nii")
    if len(list((tmp_path / "i").iterdir())) < 2:
        pytest.skip("this file system does not tell letter cases apart")
    assert found(ONE, tmp_path)[1] == [("P1", "E_CASE_TWIN")]
    assert [problem.code for problem in list_inputs(ONE, tmp_path).problems] == ["E_CASE_TWIN"]


def test_traversal_in_parts_of_an_id_never_leaves_the_folder(tmp_path):
    """Ids are put together from path parts, of which `..` is none that a folder can hold; odd ones are refused as ids."""
    layout = LayoutSpec("x", {"image": ("{group}/{visit}.nii",)}, case_id="{group}_{visit}")
    touch(tmp_path, "..p/v.nii", "-rf/v.nii", "p/con.nii", "CON/.v.nii", " p/v.nii")
    result = scan(replace(ONE, layouts=(layout,)), tmp_path)
    assert [case.id for case in result.cases] == ["p_con"]  # only a whole name CON is a device
    assert [(problem.case, problem.code) for problem in result.problems] == [(" p_v", "E_CASE_ID"), ("-rf_v", "E_CASE_ID")]


@pytest.mark.parametrize("table", ["../secret.csv", "/etc/passwd", "a/../../secret.csv"])
def test_a_table_outside_the_folder_is_not_opened(tmp_path, table):
    (tmp_path / "secret.csv").write_text("case\na\n")
    touch(tmp_path / "data", "i/a_0000.nii", "l/a.nii")
    with pytest.raises(UnsafeError, match="lies outside the folder") as caught:
        scan(replace(ONE, grouping=GroupingSpec(table=table)), tmp_path / "data")
    assert caught.value.code == "E_PATH_ESCAPE" and caught.value.exit_code == 8


@pytest.mark.parametrize(("content", "words"), [
    ("case,patient\na,p,q\n", "row 2 does not have the 2 cells"), ("case,patient\na\n", "row 2 does not have the 2 cells"),
    ("case,patient\na,\x1b[2J\n", "control characters"), ("case,patient\n\"a,p\n", "cannot be read"),
    ("case,patient\n" + "a" * 200_000 + ",p\n", "cannot be read"), ("", "names no column"),
        ("name,patient\na,p\n", "column 'case'"),
])
def test_a_damaged_table_is_refused(tmp_path, content, words):
    touch(tmp_path, "i/a_0000.nii", "l/a.nii")
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(DatasetError, match=words) as caught:
        scan(replace(ONE, grouping=GroupingSpec(table="t.csv", group_column="patient")), tmp_path)
    assert caught.value.code == "E_TABLE" and str(caught.value).isprintable()


def test_a_table_that_is_a_pipe_is_a_problem_beside_the_others(tmp_path):
    touch(tmp_path, "i/a_0000.nii", "l/a.nii", "i/b_0000.nii")
    os.mkfifo(tmp_path / "t.csv")
    result = scan_all(replace(ONE, grouping=GroupingSpec(table="t.csv")), tmp_path)
    assert [(problem.case, problem.code) for problem in result.problems] == [
        ("the table of patients", "E_TABLE"), ("b", "E_NO_LABEL")]
