from __future__ import annotations

import math

import numpy as np
import pytest

from autoseg.core.report import Estimate
from autoseg.metrics import bootstrap
from autoseg.metrics.bootstrap import bootstrap_difference, bootstrap_mean, bootstrap_statistic
from autoseg.metrics.roc import auc, auc_difference, auc_interval, resampled_aucs


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


def scored(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truths = (random.random(count) < 0.4).astype(float)
    return random.normal(truths, 1.0), truths


def test_statistic_of_all_resamples_at_once_is_that_of_one_by_one():
    scores, truths = scored(80)
    groups = [f"p{k // 3}" for k in range(80)]
    options = {"groups": groups, "draws": 200}
    slow = bootstrap_statistic(auc, scores, truths, rng(), **options)
    fast = bootstrap_statistic(auc, scores, truths, rng(), resampled=resampled_aucs, **options)
    assert (fast.lower, fast.upper, fast.mean) == pytest.approx((slow.lower, slow.upper, auc(scores, truths)))
    assert (fast.count, fast.groups) == (80, 27) and math.isnan(fast.median)


def test_statistic_that_is_a_mean_has_the_interval_of_the_mean():
    scores, groups = np.random.default_rng(2).normal(0, 1, 60), [f"{k // 2}" for k in range(60)]
    found = bootstrap_statistic(lambda s, t: float((s - t).mean()), scores, np.zeros(60), rng(), groups=groups)
    known = bootstrap_mean(scores, rng(), groups=groups)
    assert (found.mean, found.lower, found.upper) == pytest.approx((known.mean, known.lower, known.upper), abs=0.02)


def test_interval_of_the_auc_is_nearly_that_of_delong():
    scores, truths = scored(600)
    found = bootstrap_statistic(auc, scores, truths, rng(), resampled=resampled_aucs)
    assert (found.mean, found.lower, found.upper) == pytest.approx(auc_interval(scores, truths), abs=0.004)


def test_copies_of_patients_do_not_narrow_the_interval():
    scores, truths = scored(60)
    alone = bootstrap_statistic(auc, scores, truths, rng(), resampled=resampled_aucs)
    copied = bootstrap_statistic(auc, np.tile(scores, 4), np.tile(truths, 4), rng(), resampled=resampled_aucs,
                                 groups=[*map(str, range(60))] * 4)
    assert copied.upper - copied.lower == pytest.approx(alone.upper - alone.lower, rel=0.1)
    assert (copied.count, copied.groups) == (240, 60)


def test_units_without_a_truth_are_left_out_and_counted():
    scores, truths = scored(40)
    known = bootstrap_statistic(auc, scores, truths, rng())
    found = bootstrap_statistic(auc, [*scores, 1.0], [*truths, math.nan], rng())
    assert (found.mean, found.lower, found.upper, found.undefined) == (known.mean, known.lower, known.upper, 1)
    nothing = bootstrap_statistic(auc, [1.0], [math.nan], rng())
    assert (nothing.count, nothing.undefined) == (0, 1) and math.isnan(nothing.mean)
    assert bootstrap_statistic(auc, [], [], rng()).count == 0


def test_units_with_several_truths_stay_while_one_is_known():
    scores, truths = np.zeros((3, 2)), np.array([[1.0, math.nan], [math.nan, math.nan], [0.0, 1.0]])
    assert bootstrap_statistic(lambda s, t: float(np.nanmean(t)), scores, truths, rng()).count == 2


def test_too_few_positive_patients_give_no_interval():
    # a share of (1 - 1/30)^30 = 36 % of the draws has no positive patient
    one = bootstrap_statistic(auc, np.arange(30.0), [*[0] * 29, 1], rng(), resampled=resampled_aucs)
    assert one.mean == 1.0 and math.isnan(one.lower) and math.isnan(one.upper)
    # (1 - 4/30)^30 = 1.4 %
    four = bootstrap_statistic(auc, np.arange(30.0), [*[0] * 20, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1], rng(), resampled=resampled_aucs)
    assert four.lower < four.mean < four.upper


def test_paired_difference_has_the_interval_of_delong_and_is_narrower_than_unpaired():
    scores, truths = scored(500)
    others = scores + np.random.default_rng(4).normal(0, 0.5, 500)
    found = bootstrap_difference(auc, scores, others, truths, rng(), resampled=resampled_aucs)
    assert (found.mean, found.lower, found.upper) == pytest.approx(auc_difference(scores, others, truths), abs=0.003)
    slow = bootstrap_difference(auc, scores, others, truths, rng(), draws=100)
    fast = bootstrap_difference(auc, scores, others, truths, rng(), draws=100, resampled=resampled_aucs)
    assert (slow.lower, slow.upper) == pytest.approx((fast.lower, fast.upper))
    apart = bootstrap_statistic(auc, scores, truths, rng())
    assert found.upper - found.lower < apart.upper - apart.lower


def test_same_seed_gives_the_same_draws_and_blocks_cover_all_of_them(monkeypatch):
    scores, truths = scored(50)
    whole = bootstrap_statistic(auc, scores, truths, rng(), resampled=resampled_aucs)
    again = bootstrap_statistic(auc, scores, truths, rng(), resampled=resampled_aucs)
    assert (again.lower, again.upper) == (whole.lower, whole.upper)
    seen = []
    monkeypatch.setattr(bootstrap, "BLOCK_UNITS", 1000)

    def watched(scores, truths, counts):
        seen.append(counts)
        return resampled_aucs(scores, truths, counts)

    bootstrap_statistic(auc, scores, truths, rng(), resampled=watched)
    assert sum(len(counts) for counts in seen) == bootstrap.DRAWS and len(seen) == 100
    assert all((counts.sum(axis=1) == 50).all() for counts in seen)
