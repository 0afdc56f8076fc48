from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from autoseg.stages.prepare import read_inputs
from autoseg.tasks.segmentation.baseline import apply_baseline, fit_baseline, undo_oversampling
from autoseg.tasks.segmentation.target import read_target


@pytest.mark.parametrize("counts", [(900, 100), (900, 70, 30)])
def test_without_any_information_the_probabilities_are_the_frequencies_of_all_voxels(counts):
    labels = np.repeat(np.arange(len(counts)), 50)
    features = np.zeros((len(labels), 1))
    model = LogisticRegression().fit(features, labels)
    undo_oversampling(model, labels, np.array(counts, float))
    assert model.predict_proba(features[:1])[0] == pytest.approx(np.array(counts) / sum(counts), abs=1e-3)


def test_bright_and_dark_blobs_are_told_apart_by_intensity_alone(toy):
    spec, units = toy.workspace.spec, toy.workspace.units
    samples = [(unit, read_inputs(unit, spec), read_target(unit, spec)) for unit in units[:6]]
    arrays = fit_baseline(iter(samples), spec, np.random.default_rng(0))
    inputs, reference = read_inputs(units[7], spec), read_target(units[7], spec)
    scores = toy.task.score(apply_baseline(arrays, inputs, spec), reference, spec, inputs["image"])
    assert scores["bright.dice"] > 0.6 and scores["dark.dice"] > 0.6
