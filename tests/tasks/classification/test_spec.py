from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError
from tasks.classification.sets import make_cases, make_spec, make_units

from autoseg.core.case import Case
from autoseg.core.errors import DatasetError
from autoseg.stages.fingerprint import digest_unit
from autoseg.tasks.classification.spec import BoxOptions, ClassificationOptions, TargetOptions, index_units, units_to_evaluate


def test_numbers_of_yaml_are_cells():
    target = TargetOptions(column="label", classes={0: "normal", 1: "pneumonia"}, missing=["", -1])
    assert target.classes == {"0": "normal", "1": "pneumonia"} and target.missing == ("", "-1")


def test_a_misspelt_option_is_refused():
    with pytest.raises(ValidationError, match="colum"):
        ClassificationOptions(targets=[{"colum": "label"}])


def test_two_targets_of_one_name_are_refused():
    with pytest.raises(ValidationError, match="unique"):
        ClassificationOptions(targets=[{"column": "a", "name": "x"}, {"column": "x"}])


@pytest.mark.parametrize("options", [{"utility": "cost"}, {"costs": {"missed": 5, "false_alarm": 1}},
                                     {"utility": "cost", "costs": {"missed": 0, "false_alarm": 1}}])
def test_costs_and_their_utility_belong_together(options):
    with pytest.raises(ValidationError, match="cost"):
        ClassificationOptions(targets=[{"column": "label"}], **options)


def test_a_specification_without_targets_is_an_error():
    with pytest.raises(DatasetError, match="says no target") as error:
        index_units(make_spec(), [])
    assert error.value.code == "E_NO_TARGET"


def test_every_case_is_a_unit_stratified_by_the_first_target():
    units = make_units(make_spec("ill", "age"), ill=[0, 1, 1, ""], age=[1.5, 2.5, 3.5, 4.5])
    assert [unit.id for unit in units] == ["c0", "c1", "c2", "c3"]
    assert [unit.stratum for unit in units] == ["0", "1", "1", None]


def test_several_labels_are_stratified_by_the_rarest_and_values_by_fifths():
    spec = make_spec({"column": "labels", "kind": "multilabel", "fewest": 1})
    assert [unit.stratum for unit in make_units(spec, labels=["A", "A|B", "A", "other", ""])] == ["A", "B", "A", "other", None]
    values = make_units(make_spec("size"), size=[number + 0.5 for number in range(10)])
    assert [unit.stratum for unit in values] == [f"fifth {number // 2}" for number in range(10)]


def test_a_stratum_of_the_dataset_is_kept():
    cases = [replace(case, stratum="site A") for case in make_cases(ill=[0, 1])]
    assert [unit.stratum for unit in index_units(make_spec("ill"), cases)] == ["site A", "site A"]


def exam_cases():
    rows = [("p1_s1_a", "p1", "e1"), ("p1_s1_b", "p1", "e1"), ("p1_s2_a", "p1", "e2"), ("p2_s1_a", "p2", "e1")]
    return [Case(case, group, {"image": ()}, values={"ill": "1" if group == "p1" else "0", "exam": exam})
            for case, group, exam in rows]


def test_images_of_one_exam_and_patient_are_one_unit():
    by_pattern = index_units(make_spec("ill", exam={"pattern": "^(p[0-9]_s[0-9])_"}), exam_cases())
    assert {unit.id: [case.id for case in unit.cases] for unit in by_pattern} == {
        "p1_s1": ["p1_s1_a", "p1_s1_b"], "p1_s2": ["p1_s2_a"], "p2_s1": ["p2_s1_a"]}
    by_column = index_units(make_spec("ill", exam={"column": "exam"}), exam_cases())
    assert {unit.id: len(unit.cases) for unit in by_column} == {"p1_e1": 2, "e2": 1, "p2_e1": 1}


def test_cases_to_predict_become_exams_too():
    cases = [Case(case.id, case.id, {"image": ()}) for case in exam_cases()]
    units = index_units(make_spec("ill", exam={"pattern": "^(p[0-9]_s[0-9])_"}), cases)
    assert {unit.id: len(unit.cases) for unit in units} == {"p1_s1": 2, "p1_s2": 1, "p2_s1": 1}
    assert all(unit.stratum is None for unit in units)


SPLIT = {"official_split": {"column": "split", "test": ["test"]}}


def test_the_test_part_is_never_trained_on_and_evaluated_alone():
    spec = make_spec("ill", **SPLIT)
    cases = make_cases(ill=[0, 1, 0, 1], split=["train", "train", "test", "val"])
    assert [unit.id for unit in index_units(spec, cases)] == ["c0", "c1", "c3"]
    assert [unit.id for unit in units_to_evaluate(spec, cases)] == ["c2"]


def test_cases_to_predict_are_in_no_split():
    assert len(index_units(make_spec("ill", **SPLIT), make_cases(split=["train", "test"]))) == 2


def test_a_patient_on_both_sides_of_the_split_is_an_error():
    cases = [replace(case, group="anna") for case in make_cases(ill=[0, 1], split=["train", "test"])]
    with pytest.raises(DatasetError, match=r"1 patient\(s\) on both sides \(anna\)") as error:
        index_units(make_spec("ill", **SPLIT), cases)
    assert error.value.code == "E_SPLIT_PATIENT"


def digests(spec, **columns):
    return [digest_unit(unit) for unit in make_units(spec, **columns)]


def test_only_cells_that_are_learned_make_a_case_another_one():
    """By these digests cases are measured and prepared anew."""
    spec = make_spec("ill", {"column": "type"})
    columns = {"ill": [0, 1] * 10, "type": ["a", "b", "c", "a"] * 5}
    before = digests(spec, **columns)
    assert digests(spec, **columns, remark=["x"] * 20) == before
    assert digests(spec, ill=[1, *columns["ill"][1:]], type=columns["type"])[1:] == before[1:]
    assert digests(spec, ill=[1, *columns["ill"][1:]], type=columns["type"])[0] != before[0]
    longer = digests(spec, ill=[*columns["ill"], 1], type=[*columns["type"], "b"])
    assert longer[:20] == before
    # a new class changes what every cell means
    assert not set(digests(spec, ill=columns["ill"], type=["d", *columns["type"][1:]])) & set(before)


def test_columns_of_units_without_a_truth_do_not_matter_either():
    spec = make_spec("ill")
    assert digests(spec, remark=["x", "y"]) == digests(spec, remark=["z", "z"])


@pytest.mark.parametrize("columns", [{"x_column": "x"}, {"x_column": "x", "y_column": "y", "z_column": "z"},
                                     {"z_column": "z", "depth_column": "d"}])
def test_boxes_have_whole_corners(columns):
    with pytest.raises(ValueError, match="boxes have a place along"):
        BoxOptions("boxes.csv", **columns)
