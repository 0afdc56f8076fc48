from __future__ import annotations

import math

import pytest

from autoseg.core.report import Record
from autoseg.metrics.patients import has_groups, patient_records


def record(unit: str, group: str, dice: float, hd95: float = 1.0) -> Record:
    return Record(unit, {"mean.dice": dice, "mean.hd95_mm": hd95}, group)


def test_a_patient_has_the_mean_of_its_units_whatever_their_number():
    records = [record("a1", "a", 0.9), record("b1", "b", 0.2, 4.0), record("a2", "a", 0.6), record("a3", "a", 0.3)]
    a, b = patient_records(records)
    assert (a.unit, a.scores["mean.dice"]) == ("a", pytest.approx(0.6))
    assert (b.unit, b.scores) == ("b", {"mean.dice": 0.2, "mean.hd95_mm": 4.0})


def test_undefined_and_infinite_scores_are_left_out_of_a_patient():
    records = [record("a1", "a", math.nan, math.inf), record("a2", "a", 0.5, 3.0), record("b1", "b", math.nan, math.inf)]
    a, b = patient_records(records)
    assert a.scores == {"mean.dice": 0.5, "mean.hd95_mm": 3.0}
    assert all(math.isnan(value) for value in b.scores.values())


def test_units_without_a_known_patient_are_their_own():
    assert not has_groups([record("a", "", 0.5), record("b", "", 0.5)])
    assert has_groups([record("a", "p", 0.5), record("b", "p", 0.5)])
    assert [r.unit for r in patient_records([record("a", "", 0.5), record("b", "", 0.5)])] == ["a", "b"]
