from __future__ import annotations

import math
from dataclasses import replace
from functools import reduce

import numpy as np
import pytest

from autoseg.core.errors import IncompatibleError
from autoseg.core.fingerprint import (
    CASE_WEIGHT,
    CaseFingerprint,
    histogram_quantiles,
    measure_channel,
    sum_fingerprints,
)


def case(seed: int, size: int = 500, channels: int = 1) -> CaseFingerprint:
    rng = np.random.default_rng(seed)
    measured = [measure_channel(rng.normal(100 * seed, 30, size + seed)) for _ in range(channels)]
    return CaseFingerprint((10 + seed, 12, 14), (1.0, 1.1, 1.2 + seed), 0.5 + seed / 100,
                           tuple(m for m, _ in measured), tuple(h for _, h in measured), {"voxels.label_1": seed},
                           ("hounsfield" if seed % 3 else "other",) * channels)


def test_two_sites_add_up_to_the_pooled_fingerprint_to_the_last_bit():
    cases = [case(seed) for seed in range(7)]
    parts = [sum_fingerprints([cases[i] for i in part], 1) for part in ((6, 2), (0, 4, 1), (5, 3))]
    pooled = sum_fingerprints(cases, 1)
    assert reduce(lambda a, b: a + b, parts) == pooled
    assert parts[2] + (parts[1] + parts[0]) == pooled
    assert (parts[0] + parts[1] + parts[2]).intensity(0) == pooled.intensity(0)


def test_patients_are_counted_once_however_many_cases_they_have():
    cases = [replace(case(seed), marks=marks) for seed, marks in enumerate([("ill",), ("ill", "old"), (), ("old",)])]
    found = sum_fingerprints(cases, 1, ["a", "a", "b", "c"])
    assert (found.patients, found.patients_with) == (3, {"ill": 1, "old": 2})
    other = sum_fingerprints(cases[:1], 1, ["d"])
    assert ((found + other).patients, (other + found).patients_with) == (4, {"ill": 2, "old": 2})
    assert replace(found, patients=0).patient_count == 4  # as before patients were counted: every case stands for one


def test_mean_and_std_weigh_every_case_the_same():
    small = CaseFingerprint((1, 1, 2), (1, 1, 1), 1.0, *[(x,) for x in measure_channel(np.array([0.0, 2.0]))])
    large = CaseFingerprint((1, 1, 4), (1, 1, 1), 1.0, *[(x,) for x in measure_channel(np.full(1000, 10.0))])
    properties = sum_fingerprints([small, large], 1).intensity(0)
    assert properties.mean == pytest.approx((1 + 10) / 2)
    assert properties.std == pytest.approx(math.sqrt((2 + 100) / 2 - 5.5**2))
    assert (properties.minimum, properties.maximum) == (0.0, 10.0)


def test_integer_ct_keeps_its_exact_percentiles():
    values = np.random.default_rng(0).integers(-1024, 3000, 20_011)
    _, histogram = measure_channel(values)
    levels = (0.005, 0.5, 0.995)
    assert histogram_quantiles(histogram, levels) == pytest.approx(
        np.quantile(values, levels, method="inverted_cdf"), abs=1e-9)


def test_intensities_far_outside_hounsfield_units_stay_within_a_bin():
    values = np.geomspace(5e3, 1.7e6, 5000)
    _, histogram = measure_channel(values)
    assert histogram_quantiles(histogram, (0.5,))[0] == pytest.approx(np.median(values), rel=0.16)


def test_histogram_weights_sum_exactly_to_one_case():
    for size in (1, 3, 7, 1000):
        _, histogram = measure_channel(np.arange(size, dtype=float))
        assert sum(histogram.values()) == CASE_WEIGHT


def test_a_dataset_without_foreground_has_undefined_intensities():
    moments, histogram = measure_channel(np.array([]))
    empty = CaseFingerprint((4, 5, 6), (1, 1, 1), 1.0, (moments,), (histogram,))
    assert math.isnan(sum_fingerprints([empty], 1).intensity(0).mean)


def test_fingerprints_with_different_channels_are_not_added():
    with pytest.raises(IncompatibleError, match="1 and 2 channels"):
        sum_fingerprints([case(1)], 1) + sum_fingerprints([case(1, channels=2)], 2)


def test_kinds_of_intensities_are_counted_per_channel():
    assert sum_fingerprints([case(seed, channels=2) for seed in range(4)], 2).kinds == ({"hounsfield": 2, "other": 2},) * 2


def test_a_fingerprint_from_before_kinds_were_counted_adds_none():
    new = sum_fingerprints([case(1)], 1)
    old = replace(new, kinds=())
    assert (old + new).kinds == (new + old).kinds == ({"hounsfield": 1},)
