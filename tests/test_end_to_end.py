"""Real processes on real and toy data: killed, resumed, and judged by their scores."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from toy_tasks.datasets import SPECS, write_cases

REAL_CASES = 24


def autoseg(*arguments, **options):
    return subprocess.run([sys.executable, "-m", "autoseg.cli", *map(str, arguments)], capture_output=True, text=True,
                          check=False, **options)


def fit_arguments(folder, root):
    return ("fit", "-d", folder / "spec.yaml", "-i", folder, "--minutes", "0.02", "--target", "cpu", "--memory", "4GB",
            "-c", "3d_fullres", "--root", root, "--json")


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bundle(tmp_path):
    """SIGKILL at random times through planning, preprocessing, training, validation and selection."""
    (tmp_path / "spec.yaml").write_text(SPECS["segmentation"])
    write_cases(tmp_path, "segmentation")
    began = time.monotonic()
    undisturbed = autoseg(*fit_arguments(tmp_path, tmp_path / "whole"))
    took_s = time.monotonic() - began
    assert undisturbed.returncode == 0, undisturbed.stderr
    plan = tmp_path / "killed" / "ToyLabels" / "plans" / "0.02min"
    shutil.copytree(tmp_path / "whole" / "ToyLabels" / "plans" / "0.02min", plan)
    rng = np.random.default_rng(0)
    kills = 0
    for wait_s in np.sort(rng.uniform(0.05, 0.4, 8)) * took_s:
        process = subprocess.Popen([sys.executable, "-m", "autoseg.cli", *map(str, fit_arguments(tmp_path, tmp_path / "killed"))],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=wait_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    finished = autoseg(*fit_arguments(tmp_path, tmp_path / "killed"))
    assert finished.returncode == 0, finished.stderr
    assert kills >= 3
    members = [json.loads((tmp_path / root / "ToyLabels" / "bundles" / "0.02min" / "bundle.json").read_text())["members"]
               for root in ("whole", "killed")]
    assert members[0] == members[1]


@pytest.mark.slow
def test_sigterm_ends_with_143_and_the_same_command_goes_on(tmp_path):
    (tmp_path / "spec.yaml").write_text(SPECS["segmentation"])
    write_cases(tmp_path, "segmentation")
    arguments = [*fit_arguments(tmp_path, tmp_path / "home")]
    arguments[arguments.index("0.02")] = "0.3"
    process = subprocess.Popen([sys.executable, "-m", "autoseg.cli", *map(str, arguments)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    checkpoints = tmp_path / "home" / "ToyLabels" / "runs" / "0.3min" / "3d_fullres" / "fold_0" / "checkpoint"
    deadline = time.monotonic() + 120
    while not checkpoints.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert json.loads(output)["error"]["code"] == "E_INTERRUPTED" and "next:" in errors
    assert autoseg(*arguments).returncode == 0


def test_the_200_real_cases_get_nnunets_published_plan(real_data, tmp_path):
    planned = autoseg("plan", "-d", "Hippocampus", "-i", real_data / "Dataset004_Hippocampus", "--plan", "nnunet", "--target",
                      "cpu", "--root", tmp_path, "--json")
    assert planned.returncode == 0, planned.stderr
    configurations = json.loads(planned.stdout)["plan"]["configurations"]
    assert {name: (c["patch_size"], c["batch_size"]) for name, c in configurations.items()} == {
        "3d_fullres": ([40, 56, 40], 7), "2d": ([1, 56, 40], 277)}


@pytest.mark.slow
def test_real_hippocampi_are_segmented_far_better_than_by_the_baseline(real_data, tmp_path):
    source = real_data / "Dataset004_Hippocampus"
    dataset = tmp_path / "Dataset004_Hippocampus"
    names = sorted(path.name for path in (source / "labelsTr").iterdir())[:REAL_CASES]
    for folder, suffix in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        (dataset / folder).mkdir(parents=True)
        for name in names:
            file = name.replace(".nii.gz", suffix)
            os.symlink(source / folder / file, dataset / folder / file)
    description = json.loads((source / "dataset.json").read_text()) | {"numTraining": REAL_CASES}
    (dataset / "dataset.json").write_text(json.dumps(description))
    # one minute is enough on two free cores (Dice 0.85); on a busy machine it is planned a third of their steps
    fitted = autoseg("fit", "-d", dataset, "--minutes", "2", "--target", "cpu", "--root", tmp_path / "home", "--json")
    assert fitted.returncode == 0, fitted.stderr
    document = json.loads(fitted.stdout)
    summary = document["folds"]["0"]["summary"]["mean.dice"]
    assert summary["count"] == 5
    assert summary["mean"] > 0.7
    baseline = json.loads(next((tmp_path / "home").glob("*/baseline/fold_0/summary.json")).read_text())
    assert summary["mean"] > baseline["summary"]["mean.dice"]["mean"]
    predicted = autoseg("predict", "-i", source / "imagesTr" / names[0].replace(".nii.gz", "_0000.nii.gz"), "-o",
                        tmp_path / "out", "--root", tmp_path / "home", "--json")
    assert predicted.returncode == 0, predicted.stderr
    assert [path.name for path in (tmp_path / "out").glob("*.nii.gz")] == [names[0]]
