"""The prediction whose memory is measured, of a case so small that a test can make it."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

import numpy as np

from autoseg.core.plan import Precision
from autoseg.io.images import read_geometry, read_image
from benchmarks.ledger import Ledger
from benchmarks.memory import key_of, render, rows_of
from benchmarks.predicting import ENGINES, predict_case, write_files
from benchmarks.trials import TRIALS, Trial

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


def test_rows_of_a_precision_are_those_of_trials_in_that_precision(tmp_path):
    configuration = TRIAL.configuration("bf16")
    assert (configuration.optimization.precision, configuration.inference.precision) == ("bf16", "bf16")
    ledger = Ledger(tmp_path / "memory.json")
    measurements: dict[Precision, int] = {"fp32": 2_000_000_000, "bf16": 1_250_000_000}
    for precision, measured in measurements.items():
        ledger.add(key_of(TRIALS[0], "training", precision), "inputs", {"predicted_bytes": 10**9, "measured_bytes": measured})
    assert "| 1.00 | 2.00 | 0.500 |" in render(ledger, "fp32") and "1.25" not in render(ledger, "fp32")
    assert "| 1.00 | 1.25 | 0.800 |" in render(ledger, "bf16") and "2.00" not in render(ledger, "bf16")
