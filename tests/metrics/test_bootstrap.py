from __future__ import annotations

import math

import numpy as np
import pytest

from autoseg.core.report import Estimate
from autoseg.metrics.bootstrap import bootstrap_mean


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_undefined_units_are_counted_and_left_out():
    estimate = bootstrap_mean([1.0, math.nan, 3.0, 8.0, math.nan], rng())
    assert (estimate.mean, estimate.median, estimate.count, estimate.undefined) == (4.0, 3.0, 3, 2)


def test_interval_of_normal_scores_is_nearly_that_of_theory():
    scores = np.random.default_rng(1).normal(10.0, 2.0, 400)
    estimate = bootstrap_mean(scores, rng())
    half_width = 1.96 * scores.std() / math.sqrt(400)
    assert estimate.lower == pytest.approx(scores.mean() - half_width, abs=0.15 * half_width)
    assert estimate.upper == pytest.approx(scores.mean() + half_width, abs=0.15 * half_width)


def test_narrower_level_lies_inside():
    scores = [0.1, 0.5, 0.7, 0.9, 0.95]
    wide, narrow = bootstrap_mean(scores, rng()), bootstrap_mean(scores, rng(), level=0.5)
    assert wide.lower < narrow.lower < narrow.mean < narrow.upper < wide.upper


def test_all_resamples_of_two_units_are_known():
    # means 0, 1/2 and 1 with probability 1/4, 1/2 and 1/4
    estimate = bootstrap_mean([0.0, 1.0], rng())
    assert (estimate.lower, estimate.upper) == (0.0, 1.0)


def test_same_seed_gives_the_same_interval():
    assert bootstrap_mean([1.0, 2.0, 5.0], rng()) == bootstrap_mean([1.0, 2.0, 5.0], rng())


def test_one_unit_is_its_own_interval():
    assert bootstrap_mean([0.7], rng()) == Estimate(0.7, 0.7, 0.7, 0.7, 1, 0)


@pytest.mark.parametrize("values", [[], [math.nan, math.nan]])
def test_no_defined_unit_gives_nan(values):
    estimate = bootstrap_mean(values, rng())
    assert (estimate.count, estimate.undefined) == (0, len(values))
    assert all(math.isnan(value) for value in (estimate.mean, estimate.median, estimate.lower, estimate.upper))


def test_infinite_distances_show_in_the_mean_and_not_in_the_median():
    estimate = bootstrap_mean([1.0, 2.0, 3.0, 4.0, math.inf], rng())
    assert (estimate.mean, estimate.median, estimate.upper) == (math.inf, 3.0, math.inf)
    assert not math.isnan(estimate.lower)
    assert bootstrap_mean([1.0, math.inf], rng()).median == math.inf


def test_many_units_are_drawn_in_blocks_of_the_same_size():
    estimate = bootstrap_mean(np.linspace(0, 1, 1_500), rng(), draws=1000)
    assert estimate.lower < 0.5 < estimate.upper
    assert estimate.upper - estimate.lower == pytest.approx(2 * 1.96 * math.sqrt(1 / 12 / 1_500), rel=0.15)


def test_patients_are_drawn_whole_and_the_mean_is_over_units():
    # patient a has scores 0, 0 and 0, patient b has 1: draws are aa, ab, ba, bb with means 0, 1/4, 1/4 and 1
    estimate = bootstrap_mean([0.0, 0.0, 1.0, 0.0], rng(), groups=["a", "a", "b", "a"])
    assert (estimate.mean, estimate.lower, estimate.upper, estimate.count, estimate.groups) == (0.25, 0.0, 1.0, 4, 2)
    middle = bootstrap_mean([0.0, 0.0, 1.0, 0.0], rng(), groups=["a", "a", "b", "a"], level=0.2)
    assert (middle.lower, middle.upper) == (0.25, 0.25)


def test_units_that_resemble_each_other_within_patients_widen_the_interval():
    level = np.random.default_rng(3).normal(0.0, 1.0, 30)
    scores, patients = np.repeat(level, 20), np.repeat(np.arange(30), 20).astype(str)
    alone, grouped = bootstrap_mean(scores, rng()), bootstrap_mean(scores, rng(), groups=patients)
    assert grouped.mean == alone.mean
    assert (grouped.upper - grouped.lower) / (alone.upper - alone.lower) == pytest.approx(np.sqrt(20), rel=0.1)


def test_groups_of_one_change_nothing_and_undefined_patients_do_not_count():
    scores = [0.1, 0.4, math.nan, 0.9]
    assert bootstrap_mean(scores, rng(), groups=["d", "c", "b", "a"]) == bootstrap_mean(scores, rng())
    estimate = bootstrap_mean([0.1, 0.4, math.nan, 0.9], rng(), groups=["a", "a", "b", "c"])
    assert (estimate.count, estimate.undefined, estimate.groups) == (3, 1, 2)
