from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from autoseg.core.geometry import Geometry
from autoseg.core.image import Image
from autoseg.core.report import Record
from autoseg.core.spec import DatasetSpec, LabelSpec, LayoutSpec, RegionSpec
from autoseg.tasks.segmentation.score import score, summarise
from autoseg.tasks.segmentation.target import Segmentation

SPEC = DatasetSpec("Toy", "segmentation", (LayoutSpec("flat", {"image": ("{case}.nii.gz",)}),),
                   labels=(LabelSpec("a", 1), LabelSpec("b", 2)), regions=(RegionSpec("both", ("a", "b")),))
GEOMETRY = Geometry((6, 8, 10), (2.0, 1.0, 0.5))
IMAGE = Image.canonical(np.zeros((1, 6, 8, 10), np.float32), GEOMETRY)


def segmentation(**boxes):
    label = np.zeros(GEOMETRY.shape, np.uint8)
    for name, (z, y, x) in boxes.items():
        label[slice(*z), slice(*y), slice(*x)] = {"a": 1, "b": 2}[name]
    return Segmentation(label)


def test_scores_of_half_overlapping_boxes_by_hand():
    reference = segmentation(a=((0, 2), (0, 4), (0, 4)), b=((4, 6), (0, 4), (0, 4)))
    prediction = segmentation(a=((0, 2), (2, 6), (0, 4)), b=((4, 6), (0, 4), (0, 4)))
    scores = score(prediction, reference, SPEC, IMAGE)
    assert (scores["a.dice"], scores["b.dice"], scores["mean.dice"]) == (0.5, 1.0, 0.75)
    assert scores["a.iou"] == pytest.approx(1 / 3)
    assert scores["both.dice"] == pytest.approx(2 * 48 / 128)
    assert scores["a.reference_volume_ml"] == pytest.approx(32 * 1.0 / 1000)
    assert scores["b.hd95_mm"] == 0.0


def test_a_label_in_neither_map_is_undefined_and_not_in_the_mean():
    only_a = segmentation(a=((0, 2), (0, 4), (0, 4)))
    scores = score(only_a, only_a, SPEC, IMAGE)
    assert math.isnan(scores["b.dice"]) and math.isnan(scores["b.hd95_mm"]) and scores["mean.dice"] == 1.0


def test_a_missed_label_scores_zero_and_its_distance_is_left_out_of_the_summary():
    reference = segmentation(a=((0, 2), (0, 4), (0, 4)), b=((4, 6), (0, 4), (0, 4)))
    missed = segmentation(a=((0, 2), (0, 4), (0, 4)))
    scores = score(missed, reference, SPEC, IMAGE)
    assert (scores["b.dice"], scores["b.surface_dice"], scores["b.hd95_mm"]) == (0.0, 0.0, math.inf)
    whole = score(reference, reference, SPEC, IMAGE)
    summary = summarise([Record("x", scores), Record("y", whole)], np.random.default_rng(0))
    assert (summary["b.dice"].mean, summary["b.dice"].count) == (0.5, 2)
    assert (summary["b.hd95_mm"].mean, summary["b.hd95_mm"].count, summary["b.hd95_mm"].undefined) == (0.0, 1, 1)


def test_the_tolerance_of_the_specification_decides_the_surface_dice():
    reference = segmentation(a=((2, 4), (2, 6), (2, 6)))
    shifted = segmentation(a=((2, 4), (3, 7), (2, 6)))
    loose = replace(SPEC, options={"surface_tolerance_mm": 1.0})
    strict = replace(SPEC, options={"surface_tolerance_mm": 0.1})
    assert score(shifted, reference, loose, IMAGE)["a.surface_dice"] == 1.0
    assert score(shifted, reference, strict, IMAGE)["a.surface_dice"] < 1.0


def test_the_summary_draws_patients_and_counts_them():
    records = [Record("x1", {"mean.dice": 0.0}, "x"), Record("x2", {"mean.dice": 0.0}, "x"), Record("y", {"mean.dice": 0.9}, "y")]
    estimate = summarise(records, np.random.default_rng(0))["mean.dice"]
    assert (estimate.mean, estimate.count, estimate.groups) == (pytest.approx(0.3), 3, 2)
    assert (estimate.lower, estimate.upper) == (0.0, pytest.approx(0.9))


def test_equal_scores_have_equal_intervals():
    """Two names for the same numbers, as the mean of a single label and that label: one verdict, not two."""
    values = [0.2, 0.9, 0.4, 0.7, 0.8]
    records = [Record(f"c{place}", {"a.dice": value, "mean.dice": value}) for place, value in enumerate(values)]
    summary = summarise(records, np.random.default_rng(3))
    assert summary["a.dice"] == summary["mean.dice"]
    assert summary["a.dice"].lower < summary["a.dice"].upper
