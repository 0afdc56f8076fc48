"""The prediction whose memory is measured, of a case so small that a test can make it."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

import numpy as np

from autoseg.io.images import read_geometry, read_image
from benchmarks.memory import rows_of
from benchmarks.predicting import ENGINES, predict_case, write_files
from benchmarks.trials import Trial

TRIAL = Trial("plain", (16, 16, 16), 1, 4, 3, "sgd", "contiguous", channels=2, case=(20, 24, 28))


def test_the_case_of_noise_becomes_a_label_map_on_its_grid(tmp_path):
    configuration = TRIAL.configuration()
    write_files(tmp_path, configuration, (20, 24, 28))
    predict_case(configuration, tmp_path, "torch")
    assert read_geometry(tmp_path / "out" / "case.nii.gz") == read_geometry(tmp_path / "case_0001.nii.gz")
    labels = set(np.unique(read_image([tmp_path / "out" / "case.nii.gz"]).voxels))
    assert len(labels) > 1 and labels <= {0.0, 1.0, 2.0}


def test_prediction_is_measured_where_a_trial_names_a_case_and_on_a_cpu():
    def rows(trial: Trial, target: str) -> list:
        return rows_of(trial, Namespace(parts=["training", "prediction"], target=target))

    assert rows(TRIAL, "cpu") == [None, *ENGINES]
    assert rows(TRIAL, "cuda") == rows(replace(TRIAL, case=None), "cpu") == [None]
