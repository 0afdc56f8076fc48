from __future__ import annotations

import os

import pytest

from autoseg.core.spec import DatasetSpec, LabelSpec, LayoutSpec
from autoseg.io.layouts import collect, is_safe_id, layout_values, list_files, pattern_regex


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
        ("{case:p???_f??}.nii", "p001_f12.nii", {"case": "p001_f12"}),
        ("{case:p???_f??}.nii", "p001_f12_gt.nii", None),
        ("{case:p???_f??}.nii", "p001_4d.nii", None),
        ("{case:a_0[0-4]*}.nii", "a_0499.nii", {"case": "a_0499"}),
        ("{case:a_0[0-4]*}.nii", "a_0500.nii", None),
        ("{case:a_0[!0-4]*}.nii", "a_0500.nii", {"case": "a_0500"}),
        ("{case:a.b(c)}.nii", "a.b(c).nii", {"case": "a.b(c)"}),
        ("{case:a.b}.nii", "aXb.nii", None),
        ("{case}/{case:x*}.nii", "x1/x1.nii", {"case": "x1"}),
        ("{case}/{case:x*}.nii", "y1/y1.nii", None),
        ("{site}/{group}/{case}.nii", "A/p/c.nii", {"site": "A", "group": "p", "case": "c"}),
        ("{case}/masks/", "c/masks/any name.png", {"case": "c"}),
        ("{case}/masks/", "c/masks/deep/x.png", None),
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


def test_case_ids_are_put_together_from_parts_of_the_path(tmp_path):
    touch(tmp_path, "p1/t1/scan.nii", "p1/t2/scan.nii", "p2/t1/scan.nii", "p2/t1/label.nii")
    layout = LayoutSpec("x", {"image": ("{group}/{visit}/scan.nii",)}, {"label": "{group}/{visit}/label.nii"},
                        case_id="{group}_{visit}")
    found = collect(layout, list_files(tmp_path))
    assert sorted(found.cases) == ["p1_t1", "p1_t2", "p2_t1"] and found.problems == ()
    assert found.cases["p2_t1"][("label", None)] == tmp_path / "p2/t1/label.nii"
    assert found.groups == {"p1_t1": "p1", "p1_t2": "p1", "p2_t1": "p2"}


def test_files_that_the_layout_leaves_out_belong_to_no_case_and_keep_the_reason(tmp_path):
    touch(tmp_path, "a.nii", "test/b.nii", "c_4d.nii", "notes.txt")
    layout = LayoutSpec("x", {"image": ("**/{case}.nii",)}, leave_out={"test/**": "a test case", "*_4d.nii": "a film"})
    found = collect(layout, list_files(tmp_path))
    assert list(found.cases) == ["a"] and found.unused == ("notes.txt",)
    assert found.left_out == (("c_4d.nii", "a film"), ("test/b.nii", "a test case"))


def test_a_folder_of_masks_is_one_target_and_other_files_in_it_are_not_used(tmp_path):
    touch(tmp_path, "c/i.nii", "c/masks/1.nii.gz", "c/masks/2.nii.gz", "c/masks/Thumbs.db")
    found = collect(LayoutSpec("x", {"image": ("{case}/i.nii",)}, {"label": "{case}/masks/"}), list_files(tmp_path))
    assert found.cases == {"c": {("image", 0): tmp_path / "c/i.nii", ("label", None): tmp_path / "c/masks"}}
    assert found.problems == () and found.unused == ("c/masks/Thumbs.db",)


def test_label_values_of_a_layout_replace_those_of_the_specification_and_can_be_replaced_again():
    first = LayoutSpec("first", {"image": ("{case}.nii",)})
    second = LayoutSpec("second", {"image": ("{case}.mha",)}, values={"a": 2, "b": 1})
    spec = DatasetSpec("Toy", "t", (first, second), labels=(LabelSpec("a", 1), LabelSpec("b", 2), LabelSpec("c", 4)))
    bound = layout_values(spec, second)
    assert [(label.name, label.value) for label in bound.labels] == [("a", 2), ("b", 1), ("c", 4)]
    assert layout_values(bound, bound.layouts[1]) == bound
    assert layout_values(bound, bound.layouts[0]).labels == spec.labels
    same = DatasetSpec("Toy", "t", (first,), labels=spec.labels)
    assert layout_values(same, first) is same
