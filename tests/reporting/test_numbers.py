"""Numbers as text."""

from __future__ import annotations

import math

import pytest

from autoseg.core.report import Estimate
from autoseg.reporting.numbers import counted, mean_with_interval, score, short_number


@pytest.mark.parametrize(("value", "text"), [
    (0.89123, "0.8912"), (12.5, "12.5"), (1834.0, "1,834"), (20000.0, "20,000"), (2e-5, "2e-05"), (0.0, "0"),
    (-0.25, "-0.25"), (0.001, "0.001"), (1.0, "1"), (math.nan, "–"), (None, "–"),
])
def test_short_number_has_four_digits_and_no_trailing_zeros(value, text):
    assert short_number(value) == text


@pytest.mark.parametrize(("value", "text"), [
    (0.9, "0.900"), (1.41421, "1.414"), (12.345, "12.3"), (1834.2, "1,834"), (-0.0125, "−0.013"), (math.nan, "–"),
    (math.inf, "∞"),
])
def test_score_keeps_its_decimals_so_that_columns_align(value, text):
    assert score(value) == text


def test_mean_stands_with_its_interval_and_without_where_there_is_none():
    assert mean_with_interval(Estimate(0.9, 0.91, 0.88, 0.92, 10)) == "0.900 [0.880, 0.920]"
    assert mean_with_interval(Estimate(0.9, 0.91, math.nan, math.nan, 1)) == "0.900"
    assert mean_with_interval(None) == mean_with_interval(Estimate(*(math.nan,) * 4, 0)) == "–"


def test_one_case_and_the_cases_of_one_patient_have_no_interval():
    assert mean_with_interval(Estimate(0.9, 0.9, 0.9, 0.9, 1)) == "0.900"
    assert mean_with_interval(Estimate(0.9, 0.9, 0.9, 0.9, 8, groups=1)) == "0.900"
    assert mean_with_interval(Estimate(0.9, 0.9, 0.8, 0.95, 8, groups=2)) == "0.900 [0.800, 0.950]"


def test_counts_stand_with_their_unit():
    assert [counted(number, "case") for number in (0, 1, 2000)] == ["0 cases", "1 case", "2,000 cases"]
