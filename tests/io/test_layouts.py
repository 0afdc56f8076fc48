from __future__ import annotations

import os

import pytest

from autoseg.core.spec import LayoutSpec
from autoseg.io.layouts import collect, is_safe_id, list_files, pattern_regex


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    ("pattern", "name", "groups"),
    [
        ("imagesTr/{case}.nii.gz", "imagesTr/a_1.nii.gz", {"case": "a_1"}),
        ("imagesTr/{case}.nii.gz", "imagesTr/sub/a.nii.gz", None),
        ("imagesTr/{case}.nii.gz", "imagesTr/aXnii.gz", None),
        ("{case}/{case}_t1.nii.gz", "P1/P1_t1.nii.gz", {"case": "P1"}),
        ("{case}/{case}_t1.nii.gz", "P1/P2_t1.nii.gz", None),
        ("**/{case}/{case}.nii", "a/b/P1/P1.nii", {"case": "P1"}),
        ("**/{case}/{case}.nii", "P1/P1.nii", {"case": "P1"}),
        ("{group}/*/{case}.nii", "pat1/scan 3/c.nii", {"group": "pat1", "case": "c"}),
        ("{group}/*/{case}.nii", "pat1/x/y/c.nii", None),
        ("site*/{case}_v[1].nii", "siteA/c_v[1].nii", {"case": "c"}),
        ("{case}/**", "c/x/y.nii", {"case": "c"}),
    ],
)
def test_patterns_match_whole_names(pattern, name, groups):
    match = pattern_regex(pattern).fullmatch(name)
    assert (match.groupdict() if match else None) == groups


@pytest.mark.parametrize("case_id", ["a", "BraTS2021_00000", "1.2.840.113", "P-1_b", "x" * 128])
def test_ordinary_ids_are_safe(case_id):
    assert is_safe_id(case_id)


@pytest.mark.parametrize(
    "case_id",
    [
        "",
        "..",
        "../x",
        "/abs",
        "a/b",
        "a\\b",
        "a\0",
        "a\n",
        "-rf",
        ".x",
        " x",
        "CON",
        "nul.txt",
        "x" * 129,
        "é",
        "a ",
        "a.",
    ],
)
def test_ids_that_no_file_may_have_are_not_safe(case_id):
    assert not is_safe_id(case_id)


def test_hidden_files_and_mac_companions_are_left_out_silently(tmp_path):
    touch(tmp_path, "a.nii", "._a.nii", ".DS_Store", "s/b.nii", ".git/c.nii", "__MACOSX/s/._b.nii")
    files = list_files(tmp_path)
    assert files.names == ("a.nii", "s/b.nii") and files.skipped == ()


def test_links_to_files_count_and_other_things_are_skipped_with_the_reason(tmp_path):
    touch(tmp_path / "far", "real.nii", "deep/x.nii")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.nii").symlink_to(tmp_path / "far" / "real.nii")
    (folder / "gone.nii").symlink_to(tmp_path / "nowhere")
    (folder / "round").symlink_to(folder)
    os.mkfifo(folder / "pipe.nii")
    files = list_files(folder)
    assert files.names == ("a.nii",)
    assert [entry.split(":")[0] for entry in files.skipped] == ["gone.nii", "pipe.nii", "round"]
    assert "not a regular file" in files.skipped[1] and "not followed" in files.skipped[2]


def test_files_are_collected_by_case_and_role(tmp_path):
    touch(tmp_path, "i/b_0.nii", "i/b_1.nii", "i/a_0.nii", "l/b.nii", "odd.txt")
    found = collect(
        LayoutSpec("x", {"image": ("i/{case}_0.nii", "i/{case}_1.nii")}, {"label": "l/{case}.nii"}),
        list_files(tmp_path),
    )
    assert found.cases == {
        "b": {
            ("image", 0): tmp_path / "i/b_0.nii",
            ("image", 1): tmp_path / "i/b_1.nii",
            ("label", None): tmp_path / "l/b.nii",
        },
        "a": {("image", 0): tmp_path / "i/a_0.nii"},
    }
    assert found.unused == ("odd.txt",) and found.problems == ()


def test_two_files_for_one_channel_and_two_patients_for_one_case_are_problems(tmp_path):
    touch(tmp_path, "p1/s/c.nii", "p1/t/c.nii", "p2/s/d.nii", "p3/s/d.nii")
    found = collect(LayoutSpec("x", {"image": ("{group}/*/{case}.nii",)}), list_files(tmp_path))
    assert [(problem.case, problem.code) for problem in found.problems] == [
        ("c", "E_DUPLICATE"),
        ("d", "E_DUPLICATE"),
        ("d", "E_GROUP"),
    ]
    assert found.groups == {"c": "p1", "d": "p2"}


def test_unsafe_ids_are_problems(tmp_path):
    touch(tmp_path, "a b.nii", "-rf.nii", "ok.nii")
    found = collect(LayoutSpec("x", {"image": ("{case}.nii",)}), list_files(tmp_path))
    assert list(found.cases) == ["ok"]
    assert [(problem.case, problem.code) for problem in found.problems] == [("-rf", "E_CASE_ID"), ("a b", "E_CASE_ID")]


def test_the_pattern_with_most_literal_text_takes_a_file(tmp_path):
    touch(tmp_path, "a.png", "a_seg.png", "b.png", "b_seg.png")
    found = collect(LayoutSpec("x", {"image": ("{case}.png",)}, {"label": "{case}_seg.png"}), list_files(tmp_path))
    assert found.cases == {case: {("image", 0): tmp_path / f"{case}.png", ("label", None): tmp_path / f"{case}_seg.png"}
                           for case in ("a", "b")}


def test_patterns_of_equal_length_share_a_file(tmp_path):
    touch(tmp_path, "a.nii")
    found = collect(LayoutSpec("x", {"one": ("{case}.nii",), "two": ("{case}.nii",)}), list_files(tmp_path))
    assert set(found.cases["a"]) == {("one", 0), ("two", 0)}
