from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics
from tasks.classification.sets import binary, make_spec

from autoseg.core.report import Record
from autoseg.tasks.classification.kinds import Kind
from autoseg.tasks.classification.score import score
from autoseg.tasks.classification.summary import summarise
from autoseg.tasks.classification.target import Answer, Reading

SPEC = make_spec("ill")


def records(said, true, patients=None):
    groups = patients or [f"p{place}" for place in range(len(said))]
    return [Record(f"u{place}", score(one, other, SPEC), group)
            for place, (one, other, group) in enumerate(zip(said, true, groups, strict=True))]


def summary(*given, **more):
    return summarise(records(*given, **more), np.random.default_rng(0))


def test_two_classes_by_hand():
    # 0.9 and 0.4 are ill, 0.5 and 0.2 are not: 3 of 4 pairs in order; at 0.5 one hit, one missed, one false, one rejected
    found = summary([binary(p) for p in (0.9, 0.4, 0.5, 0.2)], [binary(t) for t in (1.0, 1.0, 0.0, 0.0)])
    assert found["mean.auc"] == found["ill.auc"]
    values = {name: found[f"ill.{name}"].mean for name in ("auc", "sensitivity", "specificity", "accuracy", "f1", "mcc", "brier")}
    assert values == pytest.approx({"auc": 0.75, "sensitivity": 0.5, "specificity": 0.5, "accuracy": 0.5, "f1": 0.5, "mcc": 0.0,
                                    "brier": (0.01 + 0.36 + 0.25 + 0.04) / 4})
    assert found["mean.log_score"].mean == pytest.approx(math.log(0.9 * 0.4 * 0.5 * 0.8) / 4)
    assert found["ill.auc"].count == 4


def test_decisions_follow_the_thresholds_of_the_predictions():
    found = summary([binary(p, thresholds=(0.3,)) for p in (0.9, 0.4, 0.2)], [binary(t) for t in (1.0, 1.0, 0.0)])
    assert found["ill.sensitivity"].mean == found["ill.specificity"].mean == 1.0


def random_classes(count=60):
    rng = np.random.default_rng(3)
    true = rng.integers(0, 3, count)
    said = rng.dirichlet((1, 1, 1), count) + 0.3 * np.eye(3)[true]
    return said / said.sum(axis=1, keepdims=True), true


def test_several_classes_as_scikit_learn_has_them():
    said, true = random_classes()
    classes = ("a", "b", "c")
    answers = [Answer((Reading("t", Kind.MULTICLASS, classes, tuple(row)),)) for row in said]
    truths = [Answer((Reading("t", Kind.MULTICLASS, classes, tuple(np.eye(3)[place])),)) for place in true]
    found = summary(answers, truths)
    decided = said.argmax(axis=1)
    expected = {"t.auc": metrics.roc_auc_score(true, said, multi_class="ovr", average="macro"),
                "t.accuracy": metrics.accuracy_score(true, decided), "t.mcc": metrics.matthews_corrcoef(true, decided),
                "t.balanced_accuracy": metrics.balanced_accuracy_score(true, decided),
                "t.f1": metrics.f1_score(true, decided, average="macro"),
                "t.b.auc": metrics.roc_auc_score(true == 1, said[:, 1]),
                "t.b.sensitivity": metrics.recall_score(true == 1, decided == 1),
                "t.average_precision": metrics.average_precision_score(np.eye(3)[true], said, average="macro")}
    assert {name: found[name].mean for name in expected} == pytest.approx(expected)
    assert found["t.auc"].lower < found["t.auc"].mean < found["t.auc"].upper


def test_several_labels_leave_out_what_is_not_known():
    said = [Answer((Reading("t", Kind.MULTILABEL, ("a", "b"), p),)) for p in ((0.9, 0.1), (0.2, 0.9), (0.8, 0.8), (0.5, 0.5))]
    true = [Answer((Reading("t", Kind.MULTILABEL, ("a", "b"), p),)) for p in ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0),
                                                                              (math.nan, math.nan))]
    found = summary(said, true)
    assert found["t.a.auc"].mean == 1.0 and found["t.b.auc"].mean == 1.0 and found["t.auc"].mean == 1.0
    assert found["t.a.specificity"].mean == 0.5 and found["t.b.specificity"].mean == 0.5
    assert found["t.specificity"].mean == 0.5 and found["t.a.auc"].count == 3


def test_grades_and_values_have_a_concordance():
    classes = ("1", "2", "3")
    said = [Answer((Reading("g", Kind.ORDINAL, classes, p),)) for p in ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0))]
    true = [Answer((Reading("g", Kind.ORDINAL, classes, p),)) for p in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))]
    assert summary(said, true)["g.auc"].mean == pytest.approx(2 / 3)  # of three pairs one is the wrong way round
    values = [Answer((Reading("v", Kind.CONTINUOUS, value=value),)) for value in (1.0, 2.0, 4.0)]
    truths = [Answer((Reading("v", Kind.CONTINUOUS, value=value),)) for value in (1.0, 3.0, 5.0)]
    found = summary(values, truths)
    assert {name: found[f"v.{name}"].mean for name in ("auc", "mae", "r_squared", "bias")} == pytest.approx(
        {"auc": 1.0, "mae": 2 / 3, "r_squared": 1 - 2 / 8, "bias": -2 / 3})


def test_intervals_draw_patients_whole():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 2, 40).astype(float)
    said = [binary(p) for p in np.clip(0.5 + 0.2 * (true - 0.5) + rng.normal(0, 0.2, 40), 0.01, 0.99)]
    alone = summary(said, [binary(t) for t in true])["ill.auc"]
    # every unit four times over says no more than once
    grouped = summary(said * 4, [binary(t) for t in true] * 4, patients=[f"p{place}" for place in range(40)] * 4)["ill.auc"]
    assert grouped.mean == pytest.approx(alone.mean) and grouped.groups == 40
    assert grouped.upper - grouped.lower == pytest.approx(alone.upper - alone.lower, rel=0.2)


def test_the_mean_is_over_targets():
    said = [Answer((*binary(p).readings, *binary(q, "other").readings)) for p, q in ((0.9, 0.1), (0.1, 0.9))]
    true = [Answer((*binary(1.0).readings, *binary(1.0, "other").readings)),
            Answer((*binary(0.0).readings, *binary(0.0, "other").readings))]
    found = summary(said, true)
    assert (found["ill.auc"].mean, found["other.auc"].mean, found["mean.auc"].mean) == (1.0, 0.0, 0.5)


def test_a_patient_whose_units_differ_has_no_truth():
    from autoseg.metrics.patients import patient_records

    given = records([binary(p) for p in (0.9, 0.2, 0.7)], [binary(t) for t in (1.0, 0.0, 1.0)], ["a", "a", "b"])
    assert math.isnan(summarise(patient_records(given), np.random.default_rng(0))["ill.auc"].mean)


def test_one_class_alone_has_no_auc_but_is_counted():
    found = summary([binary(0.5)] * 4, [binary(1.0)] * 4)
    assert math.isnan(found["mean.auc"].mean) and found["mean.auc"].count == 4
