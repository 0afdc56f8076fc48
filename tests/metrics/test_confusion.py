from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sklearn

from autoseg.metrics.confusion import confusion, overall, rates


def drawn(seed: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truths = rng.integers(0, classes, 80)
    return np.where(rng.random(80) < 0.6, truths, rng.integers(0, classes, 80)), truths


def test_rows_are_true_classes_and_columns_predicted_ones():
    assert confusion([0, 1, 1, 2], [0, 0, 0, 1], 3).tolist() == [[1, 2, 0], [0, 0, 1], [0, 0, 0]]


def test_counts_are_those_of_scikit_learn():
    predicted, truths = drawn(0, 4)
    assert (confusion(predicted, truths, 4) == sklearn.confusion_matrix(truths, predicted)).all()


@pytest.mark.parametrize("missing", [-1, math.nan])
def test_cases_without_a_known_class_are_left_out(missing):
    assert confusion([0, 1, 1], [0, missing, 1], 2).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(("predicted", "truths"), [
    ([0, 2], [0, 1]), ([0, 1], [0, 2]), ([0], [0, 1]), ([0, 0.5], [0, 1]), ([-1], [0])])
def test_classes_outside_are_refused(predicted, truths):
    with pytest.raises(ValueError):
        confusion(predicted, truths, 2)


def test_rates_by_hand():
    # 40 true, 10 missed, 20 false, 130 rest
    found = rates(np.array([[130, 20], [10, 40]]), 1)
    assert found["accuracy"] == pytest.approx(170 / 200)
    assert (found["sensitivity"], found["specificity"]) == pytest.approx((40 / 50, 130 / 150))
    assert (found["ppv"], found["npv"], found["f1"]) == pytest.approx((40 / 60, 130 / 140, 80 / 110))
    assert found["balanced_accuracy"] == pytest.approx((40 / 50 + 130 / 150) / 2)
    assert found["mcc"] == pytest.approx((40 * 130 - 20 * 10) / math.sqrt(60 * 50 * 150 * 140))


@pytest.mark.parametrize("index", range(3))
def test_rates_of_one_class_of_three_are_those_of_scikit_learn(index: int):
    predicted, truths = drawn(3, 3)
    found = rates(confusion(predicted, truths, 3), index)
    one, other = truths == index, predicted == index
    assert found["sensitivity"] == pytest.approx(sklearn.recall_score(one, other))
    assert found["specificity"] == pytest.approx(sklearn.recall_score(~one, ~other))
    assert found["ppv"] == pytest.approx(sklearn.precision_score(one, other))
    assert found["npv"] == pytest.approx(sklearn.precision_score(~one, ~other))
    assert found["f1"] == pytest.approx(sklearn.f1_score(one, other))
    assert found["mcc"] == pytest.approx(sklearn.matthews_corrcoef(one, other))
    assert found["balanced_accuracy"] == pytest.approx(sklearn.balanced_accuracy_score(one, other))


def test_rates_with_an_empty_denominator_are_nan():
    nobody = rates(np.array([[5, 0], [0, 0]]), 1)
    assert nobody["specificity"] == nobody["accuracy"] == nobody["npv"] == 1.0
    assert all(math.isnan(nobody[name]) for name in ("sensitivity", "ppv", "f1", "mcc", "balanced_accuracy"))
    assert all(math.isnan(value) for value in rates(np.zeros((2, 2)), 1).values())


@pytest.mark.parametrize("seed", range(3))
def test_rates_of_all_classes_are_those_of_scikit_learn(seed: int):
    predicted, truths = drawn(seed, 4)
    found = overall(confusion(predicted, truths, 4))
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(truths, predicted))
    assert found["balanced_accuracy"] == pytest.approx(sklearn.balanced_accuracy_score(truths, predicted))
    assert found["macro_f1"] == pytest.approx(sklearn.f1_score(truths, predicted, average="macro"))
    assert found["mcc"] == pytest.approx(sklearn.matthews_corrcoef(truths, predicted))
    assert found["weighted_kappa"] == pytest.approx(sklearn.cohen_kappa_score(truths, predicted, weights="quadratic"))


def test_classes_that_nobody_has_do_not_count():
    found = overall(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    assert found["balanced_accuracy"] == pytest.approx((3 / 4 + 1) / 2)
    assert found["macro_f1"] == pytest.approx((6 / 7 + 8 / 9) / 2)
    assert all(math.isnan(value) for value in overall(np.zeros((3, 3))).values())
    assert math.isnan(overall(np.diag([5, 0]))["mcc"]) and math.isnan(overall(np.diag([5, 0]))["weighted_kappa"])
