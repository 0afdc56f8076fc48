from __future__ import annotations

from dataclasses import replace

import pytest

from autoseg.core.errors import DatasetError, IncompatibleError
from autoseg.core.spec import ChannelSpec, DatasetSpec, GroupingSpec, InputSpec, LabelSpec, LayoutSpec, RegionSpec
from autoseg.io.specs import load_spec, read_spec, write_spec

MINIMAL = """
name: Toy
task: segmentation
layouts:
  flat:
    inputs: {image: "{case}.nii.gz"}
"""

FULL = DatasetSpec(
    name="Toy",
    task="segmentation",
    description="größe: yes",
    source="s",
    licence="l",
    reference="r",
    layouts=(
        LayoutSpec(
            "as downloaded",
            {"image": ("{case}_a.nii", "{case}_b.nii"), "text": ("{case}.txt",)},
            {"label": "l/{case}.nii"},
            values={"one": 3},
            leave_out={"t/**": "test cases"},
        ),
        LayoutSpec("parts", {"image": ("{group}/{visit}.nii",), "text": ("{group}/{visit}.txt",)}, case_id="{group}_{visit}"),
        LayoutSpec("4-D", {"image": ("{case}.nii",), "text": ("{case}.txt",)}),
    ),
    inputs=(InputSpec("image", "image", (ChannelSpec("CT", "none"), ChannelSpec("no"))), InputSpec("text", "text")),
    labels=(LabelSpec("one", 1), LabelSpec("four", 4, {"SCT": "123"})),
    regions=(RegionSpec("both", ("four", "one")), RegionSpec("core", ("one",), "four")),
    ignore=9,
    grouping=GroupingSpec(pattern="^(..)", table="t.csv", case_column="id", stratify_column="site"),
    exclude=("bad", "12"),
    options={"weights": {"one": 0.5}},
)


def written(tmp_path, text):
    path = tmp_path / "toy.yaml"
    path.write_text(text)
    return path


def test_brats_says_what_the_challenge_says():
    spec = load_spec("BraTS")
    assert [(label.name, label.value) for label in spec.labels] == [
        ("necrotic_core", 1),
        ("edema", 2),
        ("enhancing", 4),
    ]
    assert {region.name: set(region.labels) for region in spec.regions} == {
        "whole_tumour": {"necrotic_core", "edema", "enhancing"},
        "tumour_core": {"necrotic_core", "enhancing"},
        "enhancing_tumour": {"enhancing"},
    }
    assert [channel.name for channel in spec.inputs[0].channels] == ["T1", "T1ce", "T2", "FLAIR"]


def test_names_of_shipped_specs_match_in_any_letter_case():
    assert load_spec("hippoCAMPUS") == load_spec("Hippocampus")


def test_paths_of_specs_are_read(tmp_path):
    spec = load_spec(str(written(tmp_path, MINIMAL)))
    assert spec.name == "Toy" and spec.layouts == (LayoutSpec("flat", {"image": ("{case}.nii.gz",)}),)


def test_unknown_name_lists_the_known_ones_and_the_nearest(tmp_path):
    with pytest.raises(DatasetError, match=r"'Hipocampus'.*BraTS, .*Hippocampus, .*Did you mean 'Hippocampus'") as caught:
        load_spec("Hipocampus")
    assert caught.value.hint == "autoseg datasets"


def test_unknown_name_with_a_described_folder_is_the_name_of_that_dataset(tmp_path):
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}}')
    assert load_spec("Mine", data_folder=tmp_path).name == "Mine"
    with pytest.raises(DatasetError, match="Did you mean"):
        load_spec("Hipocampus", data_folder=tmp_path)
    with pytest.raises(DatasetError, match="not known"):
        load_spec("Mine", data_folder=tmp_path / "none")


@pytest.mark.parametrize(
    "spec",
    [
        FULL,
        replace(FULL, grouping=GroupingSpec(strata={"yes": "^y"})),
        replace(FULL, layouts=FULL.layouts[1:], options={}, exclude=(), grouping=GroupingSpec(), regions=(), labels=(),
                ignore=None),
    ],
)
def test_written_specs_come_back_equal(tmp_path, spec):
    write_spec(tmp_path / "a.yaml", spec)
    assert read_spec(tmp_path / "a.yaml") == spec


def test_written_specs_look_like_those_of_people(tmp_path):
    write_spec(tmp_path / "a.yaml", FULL)
    text = (tmp_path / "a.yaml").read_text()
    assert "labels:\n  one: 1\n  four:\n    value: 4\n" in text
    assert "regions:\n  both:\n  - four\n  - one\n" in text
    assert "größe" in text
    assert "case_id: '{case}'" not in text and "{}" not in text


def test_lists_of_entries_are_understood_like_mappings(tmp_path):
    by_list = (
        MINIMAL
        + "labels: [{name: a, value: 1}]\ninputs: [{role: image, channels: [{name: CT, normalization: none}]}]\n"
    )
    by_name = MINIMAL + "labels: {a: 1}\ninputs: {image: {channels: [{name: CT, normalization: none}]}}\n"
    assert read_spec(written(tmp_path, by_list)) == read_spec(written(tmp_path, by_name))


@pytest.mark.parametrize(
    ("addition", "words"),
    [
        ("lables: {a: 1}\n", ["'lables'", "Did you mean 'labels'"]),
        (
            "labels: {a: {valeu: 1}}\n",
            ["'labels.a.valeu'", "Did you mean 'labels.a.value'", "'labels.a.value' is missing"],
        ),
        ("labels: {a: one}\n", ["labels.a.value", "'one'"]),
        ("labels: {no: 1}\n", ["False", "quotes"]),
        ("labels: {a: 0}\n", ["background"]),
        ("labels: {a: 1}\nregions: {r: [b]}\n", ["'r'", "'b'"]),
        ("labels: {a: 1}\nregions: {r: {labels: [a], paints: b}}\n", ["'r'", "'b'"]),
        ("labels: {a: 1, b: 2}\nregions: {a: [a, b]}\n", ["'a'", "like a label"]),
        ("labels: {a: 1}\nregions: {r: []}\n", ["'r'", "no labels"]),
        ("labels: {a: 1}\nignore: 1\n", ["ignore is the value 1"]),
        ("labels: {a: 1}\nignore: 0\n", ["ignore is the value 0"]),
        ("inputs: {image: 3}\n", ["inputs.image", "3"]),
        ("inputs: {image: {channels: [CT, {name: MR, normalisation: none}]}}\n", ["normalisation", "normalization"]),
        ("grouping: {pattern: abc}\n", ["parentheses"]),
        ("grouping: {pattern: '(abc'}\n", ["'(abc'", "not a regular expression"]),
        ("grouping: {strata: {a: '[b'}}\n", ["'[b'", "not a regular expression"]),
        ("grouping: {strata: {a: b}, table: t.csv, stratify_column: c}\n", ["not from both"]),
        ("format: 99\n", ["99", "update autoseg"]),
    ],
)
def test_mistakes_are_named_with_file_key_and_nearest_valid_name(tmp_path, addition, words):
    with pytest.raises(IncompatibleError) as caught:
        read_spec(written(tmp_path, MINIMAL + addition))
    for word in ["toy.yaml", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ("values: {c: 3}", ["'flat'", "['c']", "['a', 'b']"]),
        ("values: {a: 2}", ["'flat'", "unique", "{'a': 2, 'b': 2}"]),
        ("values: {a: 0}", ["neither 0"]),
        ('case_id: "{group}_{case}"', ["['group']", "'{case}.nii.gz'"]),
        ('leave_outs: {"x": y}', ["leave_outs", "Did you mean 'layouts.flat.leave_out'"]),
    ],
)
def test_mistakes_in_a_layout_are_named(tmp_path, layout, words):
    with pytest.raises(IncompatibleError) as caught:
        read_spec(written(tmp_path, f"{MINIMAL}    {layout}\nlabels: {{a: 1, b: 2}}\n"))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: a\nname: b\n", "line 2.*'name' occurs twice"),
        ("a: {b: 1, b: 2}\n", "'b' occurs twice"),
        ("a: &x [1]\nb: *x\n", "line 2.*aliases"),
        ("a: [1\n", "line 2"),
        ("a: !!python/object/apply:os.system ['echo']\n", "line 1, column 4: the tag .*os.system is not allowed"),
        ("a: !!python/name:os.system\n", "tag"),
        ("a: !!float ''\n", "tag"),
        ("a: &a [x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n", "line 2.*aliases"),
        ("a: 2020-99-99\n", "put texts in quotes"),
        ("a: " + "9" * 5000 + "\n", "put texts in quotes"),
        ("a: 2020-01-01\n", "read as date"),
        ("a: .nan\n", "nan is not a number"),
        ('a: "\\e[31m"\n', "control characters"),
        ("a: [1,\n  {b: [}\n", "line 2, column 8"),
        ("[" * 2000, "nested"),
        ("a: '" + "x" * 2**20 + "'", "bytes"),
    ],
)
def test_unsafe_or_broken_yaml_is_refused_with_its_place(tmp_path, text, words):
    with pytest.raises(DatasetError, match=words) as caught:
        read_spec(written(tmp_path, text))
    assert "toy.yaml" in str(caught.value)


def test_refusals_of_yaml_run_nothing(tmp_path):
    mark = tmp_path / "mark"
    with pytest.raises(DatasetError) as caught:
        read_spec(written(tmp_path, f"name: !!python/object/apply:os.system ['touch {mark}']\n"))
    assert caught.value.code == "E_YAML" and not mark.exists()


def test_a_pipe_is_no_specification(tmp_path):
    import os

    os.mkfifo(tmp_path / "a.yaml")
    with pytest.raises(DatasetError, match="not a regular file"):
        load_spec(str(tmp_path / "a.yaml"))


def test_a_byte_order_mark_is_understood(tmp_path):
    path = written(tmp_path, "")
    path.write_text(MINIMAL, encoding="utf-8-sig")
    assert read_spec(path).name


def test_a_document_that_is_no_mapping_is_refused(tmp_path):
    with pytest.raises(IncompatibleError, match="mapping"):
        read_spec(written(tmp_path, "- a\n"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match="none.yaml does not exist"):
        load_spec(str(tmp_path / "none.yaml"))


def test_reading_specs_needs_no_image_library():
    import subprocess
    import sys

    code = (
        "import sys, autoseg.io.specs, autoseg.io.atomic, autoseg.io.values; "
        "print([m for m in ('torch', 'SimpleITK', 'nibabel', 'pandas') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
