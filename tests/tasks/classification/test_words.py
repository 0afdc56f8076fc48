from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tasks.classification.sets import binary, make_cases, make_spec, make_units

from autoseg.core.report import Record
from autoseg.metrics.roc import auc_interval
from autoseg.tasks.classification.charts import charts
from autoseg.tasks.classification.kinds import Kind
from autoseg.tasks.classification.score import score
from autoseg.tasks.classification.spec import index_units
from autoseg.tasks.classification.summary import summarise
from autoseg.tasks.classification.target import Answer, Reading
from autoseg.tasks.classification.words import examine, facts, notes

TWENTY = [0, 1] * 10


def found(spec, **columns):
    return [(failure.unit, failure.code) for failure in examine(make_units(spec, **columns), spec)]


def test_nothing_is_wrong_with_enough_of_both_classes():
    assert found(make_spec("ill"), ill=TWENTY) == []


@pytest.mark.parametrize(("cells", "code"), [
    (["", "nan"] * 10, "E_TARGET_EMPTY"), ([1] * 20, "E_TARGET_CONSTANT"), (["well"] * 20, "E_TARGET_CONSTANT")])
def test_a_target_that_says_nothing_is_an_error(cells, code):
    assert found(make_spec("ill"), ill=cells) == [("target ill", code)]


def test_a_column_that_nobody_has_is_an_error():
    spec = make_spec("ill", "typo")
    failure, = examine(make_units(spec, ill=TWENTY), spec)
    assert (failure.code, failure.unit) == ("E_TARGET_COLUMN", "target typo") and "'typo'" in failure.message


def test_a_class_with_one_case_is_a_warning():
    assert found(make_spec("type"), type=["a"] * 10 + ["b"] * 10 + ["c"]) == [("target type", "W_CLASS_ONCE")]


def test_classes_are_counted_by_patients():
    """Six images of one patient are validated together, and ten of nine patients are nine."""
    spec = make_spec("type")
    cases = make_cases(type=["a"] * 10 + ["b"] * 10 + ["c"] * 6)
    cases = [replace(case, group="p") if place >= 20 else replace(case, group="q") if place in (10, 11) else case
             for place, case in enumerate(cases)]
    failures = examine(index_units(spec, cases), spec)
    assert [failure.code for failure in failures] == ["W_CLASS_ONCE", "W_CLASS_FEW"]
    assert "'c'" in failures[0].message and "class b (9);" in failures[1].message


def test_classes_of_few_cases_are_a_warning():
    assert found(make_spec("type"), type=["a"] * 10 + ["b"] * 9) == [("target type", "W_CLASS_FEW")]
    spec = make_spec({"column": "labels", "kind": "multilabel"})
    failure, = examine(make_units(spec, labels=["A|B"] * 9 + ["A"] * 9), spec)
    assert failure.code == "W_CLASS_FEW" and "B (9)" in failure.message


def test_a_listed_class_that_nobody_has_is_a_warning():
    spec = make_spec({"column": "type", "classes": ["a", "b", "c"]})
    assert found(spec, type=["a", "b"] * 10) == [("target type", "W_CLASS_ABSENT")]


def test_cells_that_are_no_class_are_listed_case_by_case():
    spec = make_spec({"column": "type", "classes": ["a", "b"]})
    assert found(spec, type=["a", "b"] * 10 + ["x"]) == [("c20", "E_CLASS_UNKNOWN")]


def test_exams_that_contradict_themselves_are_listed():
    spec = make_spec("ill", exam={"column": "exam"})
    units = make_units(spec, ill=TWENTY, exam=["e"] * 20)
    assert examine(units, spec) == ()  # exams of twenty patients
    spec = make_spec("ill", exam={"pattern": "^(c1)"})
    assert "E_EXAM_DIFFERS" in [failure.code for failure in examine(make_units(spec, ill=TWENTY * 2), spec)]


def test_facts_say_kinds_counts_and_what_is_missing():
    spec = make_spec("ill", "size")
    told = facts(spec, make_units(spec, ill=[0, 1, 1, ""], size=[1.5, 2.5, 1.5, 2.5]))
    assert told["target ill"] == "binary (cells of 'ill' are 0 and 1 in 3 cases): 0 1, 1 2; missing in 1"
    assert told["target size"].endswith("mean 2, standard deviation 0.5")
    assert facts(make_spec("typo"), make_units(spec, ill=[0], size=[1]))["target typo"] == "column 'typo', which no case has"


def records(said, true):
    spec = make_spec("ill")
    return [Record(f"u{place}", score(one, other, spec)) for place, (one, other) in enumerate(zip(said, true, strict=True))]


def of(kind, classes, *rows):
    return [Answer((Reading("t", kind, classes, row),)) for row in rows]


def test_charts_show_the_network_beside_the_baseline():
    true = [binary(float(place % 2)) for place in range(8)]
    drawn = charts(records([binary(0.1 * place + 0.1) for place in range(8)], true), records([binary(0.5)] * 8, true),
                   make_spec("ill"))
    assert len(drawn) == 3 and all(chart.startswith("<svg") for chart in drawn)
    assert "network, AUC" in drawn[0] and "baseline, AUC 0.5" in drawn[0]


def test_charts_of_every_kind():
    classes = ("a", "b", "c")
    rows = ((0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.1, 0.8)) * 2
    certain = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)) * 2
    several = charts(records(of(Kind.MULTICLASS, classes, *rows), of(Kind.MULTICLASS, classes, *certain)), [], make_spec("t"))
    assert len(several) == 4 and "true and predicted class" in several[2]
    labels = charts(records(of(Kind.MULTILABEL, classes, *rows), of(Kind.MULTILABEL, classes, *certain)), [], make_spec("t"))
    assert len(labels) == 2
    values = [Answer((Reading("t", Kind.CONTINUOUS, value=value),)) for value in (1.0, 2.0, 4.0)]
    assert len(charts(records(values, values[::-1]), records(values, values), make_spec("t"))) == 2


def test_what_is_not_known_has_no_chart():
    unknown = [Answer((replace(binary(0.5).readings[0], probabilities=(float("nan"),) * 2),))] * 3
    assert charts(records([binary(0.5)] * 3, unknown), [], make_spec("ill")) == ()


def test_notes_name_the_source_of_an_interval_where_it_is_no_bootstrap():
    """The interval of an AUC is DeLong's, as the notes say, and that of a rate is not."""
    said, truths = [0.1, 0.4, 0.35, 0.8, 0.7, 0.2], [0, 0, 1, 1, 1, 0]
    found = summarise(records([binary(value) for value in said], [binary(float(truth)) for truth in truths]),
                      np.random.default_rng(0))
    assert (found["ill.auc"].lower, found["ill.auc"].upper) == auc_interval(said, truths)[1:]
    (note,) = [note for note in notes(make_spec("ill")) if "DeLong" in note]
    assert "one AUC" in note and "bootstrap" in note


def test_notes_are_sentences():
    assert all(note.endswith(".") for note in notes(make_spec("ill")))
    assert len(notes(make_spec("ill", localise=True))) == len(notes(make_spec("ill"))) + 1


def test_boxes_around_what_no_target_knows_are_told(tmp_path):
    (tmp_path / "boxes.csv").write_text("case,label,width,height\nc0,yes,1,1\nc0,Nodule,1,1\nc1,Nodule,1,1\nc1,Jes,1,1\n")
    spec = make_spec({"column": "ill", "classes": {"0": "no", "1": "yes"}}, boxes={"table": "boxes.csv", "names": {"Jes": "yes"}})
    units = [replace(unit, cases=tuple(replace(case, inputs={"image": (tmp_path / f"{case.id}.png",)}) for case in unit.cases))
             for unit in make_units(spec, ill=[0, 1] * 10)]
    (told,) = examine(units, spec)
    assert told.code == "W_BOX_LABEL" and "Nodule (2)" in told.message
    (missing,) = examine(units, replace(spec, options={**spec.options, "boxes": {"table": "absent.csv"}}))
    assert missing.code == "E_TABLE"
