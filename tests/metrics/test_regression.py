from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn

from autoseg.metrics.regression import bland_altman, mean_absolute_error, r_squared


def drawn(count: int = 50) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truths = rng.normal(60, 10, count)
    return truths + rng.normal(2, 4, count), truths


def test_errors_are_those_of_scikit_learn():
    predicted, truths = drawn()
    assert mean_absolute_error(predicted, truths) == pytest.approx(sklearn.mean_absolute_error(truths, predicted))
    assert r_squared(predicted, truths) == pytest.approx(sklearn.r2_score(truths, predicted))


def test_unknown_truths_are_left_out():
    assert mean_absolute_error([1.0, 5.0, 9.0], [2.0, 2.0, math.nan]) == 2.0
    assert r_squared([1.0, 5.0, 9.0], [1.0, 5.0, math.nan]) == 1.0


def test_what_is_not_defined_is_nan():
    assert math.isnan(mean_absolute_error([1.0], [math.nan]))
    assert math.isnan(r_squared([1.0, 2.0], [3.0, 3.0])) and math.isnan(r_squared([], []))
    one = bland_altman([3.0], [1.0])
    assert (one.bias, one.count) == (2.0, 1) and math.isnan(one.lower) and math.isnan(one.bias_interval[0])
    assert math.isnan(bland_altman([], []).bias)


def test_limits_of_agreement_by_hand():
    # differences 1, 2, 3: bias 2, standard deviation 1; Student's t with 2 degrees of freedom is 4.302653
    found = bland_altman([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert (found.bias, found.lower, found.upper) == pytest.approx((2.0, 2 - 1.959964, 2 + 1.959964))
    reach = 4.302653 / math.sqrt(3)
    assert found.bias_interval == pytest.approx((2 - reach, 2 + reach))
    reach = 4.302653 * math.sqrt(1 / 3 + 1.959964**2 / 4)
    assert found.upper_interval == pytest.approx((found.upper - reach, found.upper + reach))
    assert found.lower_interval == pytest.approx((found.lower - reach, found.lower + reach))


def test_interval_of_the_bias_is_that_of_a_t_test():
    predicted, truths = drawn()
    expected = stats.ttest_1samp(predicted - truths, 0).confidence_interval(0.9)
    assert bland_altman(predicted, truths, level=0.9).bias_interval == pytest.approx(tuple(expected))


def test_intervals_of_the_limits_hold_the_true_limits_as_often_as_they_say():
    rng = np.random.default_rng(1)
    found = [bland_altman(rng.normal(2, 4, 30), np.zeros(30)) for _ in range(600)]
    hits = [one.upper_interval[0] <= 2 + 1.959964 * 4 <= one.upper_interval[1] for one in found]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.03)
