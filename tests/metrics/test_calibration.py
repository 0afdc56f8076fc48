from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn import metrics as sklearn
from sklearn.calibration import calibration_curve

from autoseg.metrics import calibration


def drawn(seed: int, *, count: int = 300, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, count)
    return logits * sharpness, (rng.random(count) < expit(logits)).astype(float)


def test_bins_of_equal_width_are_those_of_scikit_learn():
    logits, truths = drawn(0)
    bins = calibration.calibration_bins(expit(logits), truths, 10)
    shares, means = calibration_curve(truths, expit(logits), n_bins=10)
    assert [b.share for b in bins] == pytest.approx(shares) and [b.probability for b in bins] == pytest.approx(means)
    assert sum(b.count for b in bins) == len(truths)


def test_bins_of_equal_mass_have_equal_counts():
    logits, truths = drawn(1)
    bins = calibration.calibration_bins(expit(logits), truths, 6, "mass")
    assert [b.count for b in bins] == [50] * 6
    assert all(b.lower <= b.probability <= b.upper for b in bins)


def test_bins_by_hand_with_both_borders():
    bins = calibration.calibration_bins([0.0, 0.1, 0.5, 0.9, 1.0], [0, 1, 1, 1, math.nan], 2)
    assert [(b.lower, b.upper, b.count) for b in bins] == [(0.0, 0.5, 2), (0.5, 1.0, 2)]
    assert [b.probability for b in bins] == pytest.approx([0.05, 0.7]) and [b.share for b in bins] == [0.5, 1.0]


def test_equal_probabilities_stay_in_one_bin_whatever_their_order():
    probabilities, truths = np.repeat([0.2, 0.8], 10), np.tile([0.0, 1.0], 10)
    order = np.random.default_rng(0).permutation(20)
    bins = calibration.calibration_bins(probabilities, truths, 7, "mass")
    assert bins == calibration.calibration_bins(probabilities[order], truths[order], 7, "mass")
    assert [b.probability for b in bins] == pytest.approx([0.2, 0.8]) and [b.count for b in bins] == [10, 10]
    (one,) = calibration.calibration_bins([0.3] * 4, [0, 0, 0, 1], 5, "mass")
    assert (one.share, one.count) == (0.25, 4)


def test_calibration_error_by_hand():
    # lower half: mean 0.05 against 1/2, two cases; upper half: mean 0.7 against 1, two cases
    found = calibration.expected_calibration_error([0.0, 0.1, 0.5, 0.9], [0, 1, 1, 1], bins=2, kind="width")
    assert found == pytest.approx(0.5 * 0.45 + 0.5 * 0.3)


def naive_sweep(probabilities, truths) -> float:
    """Bins of equal mass by cutting the sorted list; no ties in the test."""
    order = np.argsort(probabilities)
    found, given = probabilities[order], truths[order]
    best = [np.arange(len(found))]
    for count in range(2, calibration.MOST_BINS + 1):
        edges = np.quantile(found, np.arange(1, count) / count)
        parts = np.split(np.arange(len(found)), [int((found < edge).sum()) for edge in edges])
        shares = [given[part].mean() for part in parts]
        if any(b < a for a, b in zip(shares, shares[1:], strict=False)):
            break
        best = parts
    return sum(abs(found[part].mean() - given[part].mean()) * len(part) for part in best) / len(found)


@pytest.mark.parametrize("seed", range(4))
def test_swept_error_is_that_of_a_second_implementation(seed: int):
    logits, truths = drawn(seed, count=97)
    found = calibration.expected_calibration_error(expit(logits), truths)
    assert found == pytest.approx(naive_sweep(expit(logits), truths))


def test_swept_error_of_calibrated_scores_is_smaller_than_that_of_fixed_bins_and_large_where_scores_are_too_sure():
    calibrated = [calibration.expected_calibration_error(expit(drawn(s)[0]), drawn(s)[1]) for s in range(20)]
    fixed = [calibration.expected_calibration_error(expit(drawn(s)[0]), drawn(s)[1], bins=15, kind="width") for s in range(20)]
    sure = [calibration.expected_calibration_error(expit(drawn(s, sharpness=3)[0]), drawn(s)[1]) for s in range(20)]
    assert np.mean(calibrated) < 0.75 * np.mean(fixed) < np.mean(sure)


@pytest.mark.parametrize("function", [calibration.expected_calibration_error, calibration.brier])
def test_without_known_truths_nothing_is_defined(function):
    assert math.isnan(function([], [])) and math.isnan(function([0.5], [math.nan]))
    assert calibration.calibration_bins([], []) == ()


def test_probabilities_outside_their_range_are_refused():
    with pytest.raises(ValueError, match="1.5"):
        calibration.calibration_bins([0.5, 1.5], [0, 1])


def test_brier_score_is_that_of_scikit_learn_and_summed_over_classes():
    logits, truths = drawn(2)
    assert calibration.brier(expit(logits), truths) == pytest.approx(sklearn.brier_score_loss(truths, expit(logits)))
    assert calibration.brier([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], [0, -1]) == pytest.approx(0.09 + 0.04 + 0.01)


def test_top_label_says_what_was_chosen_and_whether_it_was_right():
    confidence, is_right = calibration.top_label([[0.7, 0.3], [0.2, 0.8], [0.6, 0.4]], [0, 0, -1])
    assert confidence.tolist() == [0.7, 0.8, 0.6]
    assert is_right.tolist()[:2] == [1.0, 0.0] and math.isnan(is_right[2])


def test_log_loss_is_that_of_scikit_learn():
    logits, truths = drawn(3)
    assert calibration.log_loss(logits, truths, 2.0) == pytest.approx(sklearn.log_loss(truths, expit(logits / 2)))
    rng = np.random.default_rng(0)
    several, classes = rng.normal(0, 3, (40, 3)), rng.integers(0, 3, 40)
    assert calibration.log_loss(several, classes) == pytest.approx(sklearn.log_loss(classes, softmax(several, axis=1)))
    assert calibration.log_loss(np.array([[900.0, -900.0]]), [1]) == pytest.approx(1800.0)
    assert math.isnan(calibration.log_loss([1.0], [math.nan])) and math.isnan(calibration.log_loss([[1.0, 2.0]], [-1]))


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 4.0])
def test_temperature_is_the_best_of_a_fine_grid_and_undoes_a_factor(sharpness: float):
    logits, truths = drawn(4, count=2000, sharpness=sharpness)
    grid = np.exp(np.linspace(math.log(0.1), math.log(10), 1500))
    best = grid[np.argmin([-np.log(expit(np.where(truths == 1, 1, -1) * logits / t)).mean() for t in grid])]
    found = calibration.fit_temperature(logits, truths)
    assert found == pytest.approx(best, rel=0.005) and found == pytest.approx(sharpness, rel=0.15)


def test_temperature_of_classes_and_of_findings_with_missing_truths():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (3000, 3))
    classes = np.array([rng.choice(3, p=row) for row in softmax(logits, axis=1)])
    classes[:50] = -1
    assert calibration.fit_temperature(3 * logits, classes) == pytest.approx(3.0, rel=0.1)
    truths = (rng.random((3000, 3)) < expit(logits)).astype(float)
    truths[::3, 1] = math.nan
    assert calibration.fit_temperature(2 * logits, truths) == pytest.approx(2.0, rel=0.1)


def test_temperature_stays_positive_and_finite():
    assert calibration.fit_temperature([-1.0, -2.0, 1.0, 3.0], [0, 0, 1, 1]) == pytest.approx(0.1, abs=1e-3)
    assert calibration.fit_temperature([1.0, 2.0, -1.0, -3.0], [0, 0, 1, 1]) == pytest.approx(10.0, abs=1e-3)
    assert calibration.fit_temperature([-1e3, 1e3], [0, 1]) >= calibration.LOWEST_TEMPERATURE


@pytest.mark.parametrize("truths", [[1, 1], [0, math.nan], [math.nan, math.nan]])
def test_temperature_of_one_class_is_not_defined(truths):
    assert math.isnan(calibration.fit_temperature([1.0, 2.0], truths))
