from __future__ import annotations

import math

import numpy as np
import pytest
from tasks.classification.sets import binary, make_spec

from autoseg.core.errors import DatasetError
from autoseg.core.report import Record
from autoseg.tasks.classification.kinds import Kind
from autoseg.tasks.classification.score import score
from autoseg.tasks.classification.summary import summarise
from autoseg.tasks.classification.target import Answer, Reading

SPEC = make_spec("ill")


def one(kind, classes, said, true):
    return score(Answer((Reading("t", kind, classes, said),)), Answer((Reading("t", kind, classes, true),)), SPEC)


def test_two_classes():
    assert score(binary(0.25), binary(1.0), SPEC) == pytest.approx({
        "ill.yes.probability": 0.25, "ill.truth": 1.0, "ill.decided": 0.0, "ill.log_score": math.log(0.25),
        "mean.log_score": math.log(0.25)})


def test_declared_costs_are_scored_by_decision():
    spec = make_spec("ill", "t", utility="cost", costs={"missed": 5.0, "false_alarm": 2.0})
    said = Answer((*binary(0.25).readings, Reading("t", Kind.MULTILABEL, ("a", "b", "c"), (0.9, 0.9, 0.1)),
                   Reading("v", Kind.CONTINUOUS, value=1.0)))
    true = Answer((*binary(1.0).readings, Reading("t", Kind.MULTILABEL, ("a", "b", "c"), (0.0, 1.0, 1.0)),
                   Reading("v", Kind.CONTINUOUS, value=1.0)))
    scores = score(said, true, spec)
    assert (scores["ill.utility"], scores["t.utility"], scores["mean.utility"]) == (-5.0, -2.0 - 5.0, -6.0)
    assert "v.utility" not in scores and "ill.utility" not in score(binary(0.25), binary(1.0), SPEC)
    found = summarise([Record("u", scores), Record("w", {**scores, "mean.utility": 0.0})], np.random.default_rng(0))
    assert found["mean.utility"].mean == -3.0
    unknown = score(binary(0.25), binary(math.nan), spec)
    assert math.isnan(unknown["ill.utility"]) and math.isnan(unknown["mean.utility"])


def test_several_classes():
    assert one(Kind.MULTICLASS, ("a", "b", "c"), (0.5, 0.2, 0.3), (0.0, 0.0, 1.0)) == pytest.approx({
        "t.a.probability": 0.5, "t.b.probability": 0.2, "t.c.probability": 0.3, "t.truth": 2.0, "t.decided": 0.0,
        "t.log_score": math.log(0.3), "mean.log_score": math.log(0.3)})


def test_grades_have_an_expected_grade():
    scores = one(Kind.ORDINAL, ("1", "2", "3"), (0.5, 0.2, 0.3), (0.0, 1.0, 0.0))
    assert scores["t.grade"] == pytest.approx(0.2 + 2 * 0.3) and scores["t.truth"] == 1.0


def test_several_labels_are_asked_one_by_one():
    scores = one(Kind.MULTILABEL, ("a", "b"), (0.75, 0.5), (1.0, 0.0))
    assert scores == pytest.approx({
        "t.a.probability": 0.75, "t.a.truth": 1.0, "t.a.decided": 1.0, "t.b.probability": 0.5, "t.b.truth": 0.0,
        "t.b.decided": 1.0, "t.log_score": (math.log(0.75) + math.log(0.5)) / 2,
        "mean.log_score": (math.log(0.75) + math.log(0.5)) / 2})


def test_a_value_is_scored_in_standard_deviations():
    said, true = Reading("t", Kind.CONTINUOUS, value=13.0, std=2.0), Reading("t", Kind.CONTINUOUS, value=10.0)
    scores = score(Answer((said,)), Answer((true,)), SPEC)
    assert scores == {"t.value": 13.0, "t.truth": 10.0, "t.absolute_error": 3.0, "t.log_score": -2.25, "mean.log_score": -2.25}


def test_what_is_not_known_has_no_score_and_does_not_spoil_the_mean():
    said = Answer((*binary(0.5).readings, *binary(0.9, "other").readings))
    true = Answer((*binary(math.nan).readings, *binary(1.0, "other").readings))
    scores = score(said, true, SPEC)
    assert math.isnan(scores["ill.truth"]) and math.isnan(scores["ill.log_score"])
    assert scores["mean.log_score"] == pytest.approx(math.log(0.9))
    assert math.isnan(score(binary(0.5), binary(math.nan), SPEC)["mean.log_score"])


def test_a_certain_mistake_costs_a_finite_amount():
    assert score(binary(0.0), binary(1.0), SPEC)["mean.log_score"] == pytest.approx(math.log(1e-6))


def test_classes_are_matched_by_name():
    said = Answer((Reading("t", Kind.BINARY, ("no", "yes"), (0.1, 0.9)),))
    true = Answer((Reading("t", Kind.BINARY, ("yes", "no"), (1.0, 0.0)),))
    assert score(said, true, SPEC)["t.truth"] == 1.0
    unknown = Answer((Reading("t", Kind.BINARY, ("maybe",), (1.0,)),))
    with pytest.raises(DatasetError, match="'maybe' of target 't' does not occur in what was learned, which knows no, yes"):
        score(said, unknown, SPEC)
    with pytest.raises(DatasetError, match="says nothing of target 'ill'"):
        score(said, binary(1.0), SPEC)
