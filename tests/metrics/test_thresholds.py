from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sklearn

from autoseg.core.errors import UsageError
from autoseg.metrics.thresholds import best_threshold

SCORES, TRUTHS = [0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9], [0, 0, 1, 0, 1, 0, 1, 1]


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truths = (rng.random(60) < 0.3).astype(float)
    return np.round(rng.normal(truths, 1.0), 1), truths


def utility_at(threshold: float, scores, truths, utility: str, value: float) -> float:
    called = scores >= threshold
    true, false, missed = np.sum(called & (truths == 1)), np.sum(called & (truths == 0)), np.sum(~called & (truths == 1))
    sensitivity, specificity = true / np.sum(truths == 1), 1 - false / np.sum(truths == 0)
    return {"youden": sensitivity + specificity - 1, "f1": 2 * true / (2 * true + false + missed),
            "sensitivity_at_specificity": sensitivity if specificity >= value else -1,
            "specificity_at_sensitivity": specificity if sensitivity >= value else -1, "cost": -(value * missed + false)}[utility]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("utility", "value"), [
    ("youden", math.nan), ("f1", math.nan), ("sensitivity_at_specificity", 0.8), ("specificity_at_sensitivity", 0.8),
    ("cost", 0.2), ("cost", 20.0)])
def test_no_other_threshold_is_better(seed: int, utility: str, value: float):
    scores, truths = drawn(seed)
    chosen = best_threshold(scores, truths, utility, value)
    everywhere = np.arange(-4.05, 5, 0.05)
    best = max(utility_at(t, scores, truths, utility, value) for t in everywhere)
    assert utility_at(chosen.score, scores, truths, utility, value) == pytest.approx(best)
    called = scores >= chosen.score
    assert chosen.sensitivity == pytest.approx(sklearn.recall_score(truths, called))
    assert chosen.specificity == pytest.approx(sklearn.recall_score(truths, called, pos_label=0))


def test_thresholds_lie_between_scores_and_the_lowest_of_equals_is_taken():
    # sensitivity 1 and specificity 1/2 from 0.2 to 0.3, 3/4 and 3/4 from 0.4 to 0.6, 1/2 and 1 from 0.7 to 0.8
    chosen = best_threshold(SCORES, TRUTHS, "youden")
    assert (chosen.score, chosen.sensitivity, chosen.specificity) == pytest.approx((0.25, 1.0, 0.5))


def test_sensitivity_at_a_given_specificity_by_hand():
    chosen = best_threshold(SCORES, TRUTHS, "sensitivity_at_specificity", 0.75)
    assert (chosen.score, chosen.sensitivity, chosen.specificity) == pytest.approx((0.5, 0.75, 0.75))


def test_a_dear_miss_lowers_the_threshold_and_a_dear_alarm_raises_it():
    low, high = (best_threshold(SCORES, TRUTHS, "cost", ratio) for ratio in (1000.0, 0.001))
    assert (low.sensitivity, high.specificity) == (1.0, 1.0) and low.score < high.score


def test_all_or_none_can_be_best_and_the_threshold_stays_finite():
    everyone = best_threshold([0.9, 0.5], [0, 1], "cost", 100.0)
    assert (everyone.score, everyone.sensitivity, everyone.specificity) == (0.5, 1.0, 0.0)
    nobody = best_threshold([0.9, 0.5], [0, 1], "cost", 0.01)
    assert (nobody.sensitivity, nobody.specificity) == (0.0, 1.0) and 0.9 < nobody.score < 0.9 + 1e-9


def test_a_threshold_between_neighbouring_numbers_keeps_them_apart():
    below = 1.0
    above = np.nextafter(below, 2)
    chosen = best_threshold([below, above], [0, 1], "youden")
    assert below < chosen.score <= above


def test_one_class_alone_has_no_threshold():
    assert math.isnan(best_threshold([1.0, 2.0], [1, 1], "youden").score)


def test_unknown_utilities_and_senseless_values_are_refused():
    with pytest.raises(UsageError, match="youden"):
        best_threshold(SCORES, TRUTHS, "yuden")
    for utility, value in (("cost", math.nan), ("cost", 0.0), ("sensitivity_at_specificity", math.nan),
                           ("specificity_at_sensitivity", 90.0)):
        with pytest.raises(ValueError, match=utility):
            best_threshold(SCORES, TRUTHS, utility, value)
