from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sklearn

from autoseg.metrics import roc

# Two positive cases (0.8, 0.4), three negative ones (0.6, 0.4, 0.1): pairs won 3 + 1, half for 0.4 against 0.4, of 6.
SCORES, TRUTHS = [0.8, 0.4, 0.6, 0.4, 0.1], [1, 1, 0, 0, 0]


def drawn(seed: int, *, count: int = 60, ties: bool = True) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truths = (rng.random(count) < 0.3).astype(float)
    scores = rng.normal(truths, 1.0)
    return (np.round(scores, 1) if ties else scores), truths


def placements(positives, negatives) -> tuple[np.ndarray, np.ndarray]:
    """DeLong's V10 and V01, pair by pair."""
    wins = np.array([[1.0 if p > n else 0.5 if p == n else 0.0 for n in negatives] for p in positives])
    return wins.mean(axis=1), wins.mean(axis=0)


def naive_covariance(models, truths) -> np.ndarray:
    sides = [placements(scores[truths == 1], scores[truths == 0]) for scores in models]
    total = np.zeros((len(models), len(models)))
    for i, first in enumerate(sides):
        for j, second in enumerate(sides):
            for one, other in zip(first, second, strict=True):
                total[i, j] += ((one - one.mean()) * (other - other.mean())).sum() / (len(one) - 1) / len(one)
    return total


def test_auc_of_five_cases_by_hand():
    assert roc.auc(SCORES, TRUTHS) == pytest.approx(4.5 / 6)


@pytest.mark.parametrize("seed", range(5))
def test_areas_are_those_of_scikit_learn(seed: int):
    scores, truths = drawn(seed)
    assert roc.auc(scores, truths) == pytest.approx(sklearn.roc_auc_score(truths, scores))
    assert roc.average_precision(scores, truths) == pytest.approx(sklearn.average_precision_score(truths, scores))


def test_roc_points_are_those_of_scikit_learn_and_have_the_area_below():
    scores, truths = drawn(1)
    false, true, _ = sklearn.roc_curve(truths, scores, drop_intermediate=False)
    points = roc.roc_points(scores, truths)
    assert points == pytest.approx(np.stack([false, true], axis=1))
    assert np.trapezoid(points[:, 1], points[:, 0]) == pytest.approx(roc.auc(scores, truths))


def test_precision_recall_points_are_those_of_scikit_learn():
    scores, truths = drawn(2)
    precision, recall, _ = sklearn.precision_recall_curve(truths, scores)
    expected = np.stack([recall, precision], axis=1)[:-1][::-1]  # without the point at recall 0 that no threshold gives
    assert roc.precision_recall_points(scores, truths) == pytest.approx(expected)


def test_unknown_truths_are_left_out_and_nan_scores_leave_nothing():
    assert roc.auc([*SCORES, 9.0], [*TRUTHS, math.nan]) == roc.auc(SCORES, TRUTHS)
    assert math.isnan(roc.auc([math.nan, 1.0, 2.0], [0, 1, 0]))
    assert math.isnan(roc.average_precision([math.nan, 1.0, 2.0], [0, 1, 0]))


@pytest.mark.parametrize("truths", [[], [1, 1], [0, 0], [math.nan, 1]])
def test_one_class_alone_has_no_area(truths):
    scores = np.arange(len(truths))
    assert math.isnan(roc.auc(scores, truths)) and math.isnan(roc.average_precision(scores, truths))
    assert all(math.isnan(value) for value in roc.auc_interval(scores, truths))
    assert all(math.isnan(value) for value in roc.auc_difference(scores, scores, truths))
    assert roc.roc_points(scores, truths).shape == roc.precision_recall_points(scores, truths).shape == (0, 2)


@pytest.mark.parametrize(("scores", "truths"), [([1, 2], [0, 2]), ([1, 2, 3], [0, 1]), ([[1, 2]], [[0, 1]])])
def test_wrong_truths_and_lengths_are_refused(scores, truths):
    with pytest.raises(ValueError):
        roc.auc(scores, truths)


@pytest.mark.parametrize("seed", range(4))
def test_midranks_give_the_variance_of_delong_pair_by_pair(seed: int):
    scores, truths = drawn(seed)
    others = np.round(scores + np.random.default_rng(seed + 50).normal(0, 0.5, len(scores)), 1)
    found = roc._covariance([roc._placements(s[truths == 1], s[truths == 0]) for s in (scores, others)])
    assert found == pytest.approx(naive_covariance([scores, others], truths), rel=1e-9)


def test_interval_of_delong_on_the_logit_by_hand():
    # placements 1 and 1/2 of the positives, 1/2, 3/4 and 1 of the negatives: variance 1/8 / 2 + 1/16 / 3
    scores = [0.8, 0.4, 0.6, 0.4, 0.1]
    area, variance = 4.5 / 6, 0.125 / 2 + 0.0625 / 3
    reach = 1.959964 * math.sqrt(variance) / (area * (1 - area))
    expected = [1 / (1 + math.exp(-(math.log(3) + sign * reach))) for sign in (-1, 1)]
    assert roc.auc_interval(scores, TRUTHS) == pytest.approx((area, *expected), rel=1e-5)


def test_interval_of_many_cases_is_nearly_the_symmetric_one():
    scores, truths = drawn(3, count=4000)
    area, lower, upper = roc.auc_interval(scores, truths)
    reach = 1.959964 * math.sqrt(roc._covariance([roc._placements(scores[truths == 1], scores[truths == 0])])[0, 0])
    assert (area - lower, upper - area) == pytest.approx((reach, reach), rel=0.03)


@pytest.mark.parametrize(("positives", "negatives"), [([3, 4, 5], [0, 1, 2]), ([5], [1, 2, 3, 4]), ([1, 1], [1, 1])])
def test_intervals_without_a_variance_have_a_width(positives, negatives):
    scores, truths = [*positives, *negatives], [1] * len(positives) + [0] * len(negatives)
    area, lower, upper = roc.auc_interval(scores, truths)
    assert 0 < lower < area <= upper and upper - lower > 0.2
    reflected = roc.auc_interval([-s for s in scores], truths)
    assert reflected == pytest.approx((1 - area, 1 - upper, 1 - lower), abs=1e-9)


def test_bound_of_newcombe_solves_its_equation():
    # at the lower bound t: 1 - t = z sqrt(V(t)), V by Hanley and McNeil with the mean of both sizes in the numerator
    _, lower, upper = roc.auc_interval([3, 4, 5, 6, 0, 1], [1, 1, 1, 1, 0, 0])
    q1, q2, mean = lower / (2 - lower), 2 * lower**2 / (1 + lower), 3
    variance = (lower * (1 - lower) + (mean - 1) * (q1 - lower**2 + q2 - lower**2)) / 8
    assert 1 - lower == pytest.approx(1.959964 * math.sqrt(variance), rel=1e-5) and upper == 1.0


def test_paired_difference_is_that_of_the_naive_covariance():
    scores, truths = drawn(5)
    others = np.round(scores + np.random.default_rng(9).normal(0, 1.0, len(scores)), 1)
    difference, lower, upper = roc.auc_difference(scores, others, truths)
    covariance = naive_covariance([scores, others], truths)
    reach = 1.959964 * math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert difference == pytest.approx(sklearn.roc_auc_score(truths, scores) - sklearn.roc_auc_score(truths, others))
    assert (lower, upper) == pytest.approx((difference - reach, difference + reach), rel=1e-5)


def test_difference_of_models_that_order_all_alike_is_0_without_an_interval():
    scores, truths = drawn(6)
    difference, lower, upper = roc.auc_difference(scores, np.exp(scores), truths)
    assert difference == 0.0 and math.isnan(lower) and math.isnan(upper)


def naive_concordance(scores, values) -> float:
    pairs = [(a, b) for a in range(len(scores)) for b in range(len(scores)) if values[a] > values[b]]
    return sum(1.0 if scores[a] > scores[b] else 0.5 if scores[a] == scores[b] else 0.0 for a, b in pairs) / len(pairs)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("grades", [2, 4, 1000])
def test_concordance_is_that_of_all_pairs(seed: int, grades: int):
    rng = np.random.default_rng(seed)
    values = np.floor(rng.random(50) * grades)
    scores = np.round(values / grades + rng.normal(0, 0.3, 50), 1)
    assert roc.concordance(scores, values) == pytest.approx(naive_concordance(scores, values), abs=1e-12)


def test_concordance_of_two_values_is_the_auc():
    assert roc.concordance(SCORES, TRUTHS) == pytest.approx(roc.auc(SCORES, TRUTHS))
    assert roc.concordance([1, 1, 1], [1, 2, 3]) == 0.5
    assert math.isnan(roc.concordance([1, 2], [3, 3])) and math.isnan(roc.concordance([1, math.nan], [3, 4]))


def test_areas_of_resamples_are_those_of_the_repeated_cases():
    scores, truths = drawn(7)
    counts = np.random.default_rng(0).integers(0, 3, (20, len(scores)))
    counts[3, truths == 1] = 0
    repeated = [roc.auc(np.repeat(scores, count), np.repeat(truths, count)) for count in counts]
    assert roc.resampled_aucs(scores, truths, counts) == pytest.approx(repeated, nan_ok=True)
    assert math.isnan(repeated[3])


def test_areas_of_resamples_do_not_depend_on_the_blocks(monkeypatch):
    scores, truths = drawn(8)
    counts = np.random.default_rng(0).integers(0, 3, (20, len(scores)))
    whole = roc.resampled_aucs(scores, truths, counts)
    monkeypatch.setattr(roc, "BLOCK_NUMBERS", 100)
    assert roc.resampled_aucs(scores, truths, counts) == pytest.approx(whole, nan_ok=True)
