"""An atlas and a plan that trains nothing, from a folder to predictions."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from toy_tasks.datasets import SPECS, open_toy, plan_toy, write_pair_cases

from autoseg import pipeline
from autoseg.core.errors import UnsafeError
from autoseg.core.progress import silent
from autoseg.core.task import Context
from autoseg.io.bundles import read_bundle
from autoseg.io.images import read_image
from autoseg.io.values import read_value
from autoseg.tasks.registration import recipes

ATLAS = "p0_scan0"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The workspace and bundle of five cases with an atlas, each pair optimised by itself in a few steps."""
    folder = tmp_path_factory.mktemp("atlas")
    options = f"options: {{pairs: atlas, atlas: {ATLAS}, method: pair}}"
    before = "options: {pairs: within_patient, method: network, refine_iterations: 3}"
    assert before in SPECS["registration"]
    folder.joinpath("spec.yaml").write_text(SPECS["registration"].replace(before, options))
    write_pair_cases(folder)
    for path in [*folder.glob("images/p3*"), *folder.glob("labels/p3*")]:
        path.unlink()
    levels, recipes.PAIR_LEVELS = recipes.PAIR_LEVELS, ((2, 4, 15), (1, 2, 10))
    workspace = open_toy("registration", folder, folder / "home")
    plan = plan_toy(workspace)
    report = pipeline.train(workspace, plan, "pairs", "0", device="cpu", workers=0, should_stop=lambda: False)["0"]
    pipeline.select(workspace, plan)
    recipes.PAIR_LEVELS = levels
    return folder, workspace, plan, report


def test_a_plan_that_trains_nothing_is_validated_and_beats_doing_nothing(trained):
    _, workspace, plan, report = trained
    assert plan.configurations["pairs"].optimization.iterations == 0
    assert {record.unit for record in report.records} == set(workspace.folds()[0].validation)
    assert all(unit.cases[1].id == ATLAS for unit in workspace.units) and report.summary["mean.dice"].mean > 0.3


def test_the_bundle_carries_the_atlas_and_brings_its_labels_to_a_new_case(trained, tmp_path):
    folder, workspace, *_ = trained
    bundle = tmp_path / "bundle"
    shutil.copytree(workspace.layout.bundle("toy"), bundle)
    [atlas] = read_bundle(bundle).cases
    assert atlas.id == ATLAS and atlas.targets["label"].is_relative_to(bundle)
    (tmp_path / "in").mkdir()
    shutil.copy(folder / "images" / "p1_scan2.nii.gz", tmp_path / "in" / "new.nii.gz")
    manifest = pipeline.predict(bundle, tmp_path / "in", tmp_path / "out", Context(), trusted_task=None, progress=silent)
    assert set(manifest.finished) == {f"{ATLAS}_to_new"} and not manifest.failures
    labels = read_image([tmp_path / "out" / f"{ATLAS}_to_new_warped_labels.nii.gz"])
    truth = read_image([folder / "labels" / "p1_scan2.nii.gz"])
    assert labels.geometry.agrees_with(truth.geometry)
    overlap = [2 * ((labels.voxels == v) & (truth.voxels == v)).sum() / ((labels.voxels == v).sum() + (truth.voxels == v).sum())
               for v in (3, 7)]
    assert np.mean(overlap) > 0.3


def test_a_case_of_a_bundle_must_lie_in_it(trained, tmp_path):
    from autoseg.io.bundles import CASES, _read_cases
    from autoseg.io.values import write_value

    _, workspace, *_ = trained
    cases = read_value(workspace.layout.bundle("toy") / CASES, list)
    cases[0]["targets"]["label"] = "../../etc/passwd"
    write_value(tmp_path / CASES, cases)
    with pytest.raises(UnsafeError, match="passwd"):
        _read_cases(tmp_path, {CASES: "", "members/case_0_image_0.nii.gz": ""})
