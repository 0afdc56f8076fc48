"""The comparison of a classification with its baseline, on records whose AUC is known."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.core.report import Record
from benchmarks.classification import Fold, compared, mean_record, scored_columns


def record(unit: str, truth: float, probability: float) -> Record:
    scores = {"ill.yes.probability": probability, "ill.truth": truth, "ill.decided": float(probability > 0.5),
              "ill.log_score": -1.0, "mean.log_score": -1.0}
    return Record(unit, scores, unit)


def fold(name: str, network: list[float], baseline: list[float], truths: list[int]) -> Fold:
    units = [f"{name}{place}" for place in range(len(truths))]
    models = [[record(*entry) for entry in zip(units, truths, said, strict=True)] for said in (network, baseline)]
    average = [mean_record(*pair) for pair in zip(*models, strict=True)]
    return Fold({"network": models[0], "baseline": models[1], "average": average})


def test_aucs_are_taken_within_folds_and_differences_are_paired():
    truths = [0, 0, 1, 1]
    # First fold: the network orders all 4 pairs, the baseline 2 of them. Second: 3 and 4.
    folds = [fold("a", [0.1, 0.2, 0.3, 0.4], [0.4, 0.1, 0.3, 0.2], truths),
             fold("b", [0.125, 0.75, 0.5, 0.875], [0.0, 0.25, 0.5, 0.75], truths)]
    found = compared(folds)
    assert found["auc"]["network"] == [1.0, 0.75] and found["auc"]["baseline"] == [0.5, 1.0]
    # Means 0.25, 0.15, 0.30, 0.30 and 0.06, 0.50, 0.50, 0.81: all pairs in order, one of the second fold tied.
    assert found["auc"]["average"] == [1.0, pytest.approx(0.875)]
    assert found["difference"]["network"][0] == pytest.approx((0.5 - 0.25) / 2)
    assert found["units"] == found["patients"] == 8


def test_the_interval_of_a_difference_shrinks_with_the_cases_and_holds_zero_for_equal_models():
    rng = np.random.default_rng(0)

    def width(count: int) -> float:
        truths = rng.integers(2, size=count)
        said = 1 / (1 + np.exp(-truths - rng.normal(size=(2, count))))
        mean, lower, upper = compared([fold("a", *said.tolist(), truths.tolist())])["difference"]["network"]
        assert lower < mean < upper and lower < 0 < upper
        return upper - lower

    assert width(800) < 0.7 * width(100)


def test_a_finding_of_few_patients_is_left_out_where_there_are_several():
    def with_findings(place: int) -> Record:
        scores = {f"finding.{name}.{what}": value for name, limit in (("common", 15), ("rare", 5))
                  for what, value in (("probability", place / 30), ("truth", float(place < limit)), ("decided", 0.0))}
        return Record(str(place), scores | {"finding.log_score": -1.0}, str(place))

    records = [with_findings(place) for place in range(30)]
    assert scored_columns([Fold({"network": records})]) == ("finding.common",)


def test_of_classes_that_exclude_each_other_none_is_left_out():
    records = [Record(str(place), {f"group.{name}.probability": 0.3 for name in "abc"} | {"group.truth": place % 3}, str(place))
               for place in range(6)]
    assert scored_columns([Fold({"network": records})]) == ("group.a", "group.b", "group.c")
