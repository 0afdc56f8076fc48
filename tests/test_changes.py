"""What changed since last time is noticed: data, folds, plans. Nothing stale is scored, bundled or overwritten."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from toy_tasks.datasets import SPECS, open_toy, plan_toy, write_cases

from autoseg import pipeline
from autoseg.cli.app import run as command
from autoseg.core.budget import Budget
from autoseg.core.errors import DatasetError, IncompatibleError, UsageError
from autoseg.core.progress import silent
from autoseg.core.task import Context, PlanRequest
from autoseg.io.images import read_image, read_label_map, write_label_map, write_volume
from autoseg.io.values import read_value, write_value
from autoseg.stages.folds import Splits

CONFIGURATION = "3d_fullres"


@pytest.fixture
def trained(tmp_path):
    """A toy dataset of its own with one trained fold: what opens it anew, and the plan."""
    (tmp_path / "spec.yaml").write_text(SPECS["segmentation"])
    write_cases(tmp_path, "segmentation")

    def reopen():
        return open_toy("segmentation", tmp_path, tmp_path / "home")

    plan = plan_toy(reopen())
    fit(reopen(), plan)
    return reopen, plan


def fit(workspace, plan, fold="0"):
    report = pipeline.train(workspace, plan, CONFIGURATION, fold, device="cpu", workers=0, should_stop=lambda: False)[fold]
    return report, pipeline.select(workspace, plan)


def weights(workspace, plan):
    return (workspace.layout.run(plan.name, CONFIGURATION, "0") / "training" / "model.safetensors").read_bytes()


def first_image(workspace):
    return workspace.units[0].cases[0].inputs["image"][0]


def test_a_plan_of_another_specification_is_refused_and_texts_may_change(trained):
    reopen, plan = trained
    workspace = reopen()
    described = replace(workspace, spec=replace(workspace.spec, description="other words"))
    assert pipeline.make_run(described, plan, CONFIGURATION, "0").plan == plan
    relabelled = replace(workspace, spec=replace(workspace.spec, ignore=77))
    with pytest.raises(IncompatibleError, match="other inputs, labels, regions or options") as raised:
        pipeline.train(relabelled, plan, CONFIGURATION, "0", device="cpu", workers=0, should_stop=lambda: False)
    assert "plan_and_preprocess" in raised.value.hint


def test_a_folder_that_holds_a_specification_is_not_taken_for_a_planned_dataset(tmp_path):
    folder = tmp_path / "data" / "r"
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text(SPECS["segmentation"])
    (folder / "dataset.json").write_text(json.dumps({"channel_names": {"0": "T1"}, "labels": {"background": 0, "a": 1},
                                                     "numTraining": 0, "file_ending": ".nii.gz"}))
    workspace = pipeline.open_workspace(tmp_path / "home", str(folder), None, silent)
    assert (workspace.spec.name, workspace.data) == ("r", folder)


def test_an_edited_fold_is_trained_anew_from_fresh_weights(trained):
    reopen, plan = trained
    before = weights(reopen(), plan)
    splits = read_value(reopen().layout.splits, Splits)
    first, second, *rest = splits.folds
    write_value(reopen().layout.splits, replace(splits, folds=(second, first, *rest)))
    report, _ = fit(reopen(), plan)
    assert {record.unit for record in report.records} == set(second.validation)
    assert weights(reopen(), plan) != before


def test_changed_images_are_refused_until_they_are_prepared_and_then_trained_on(trained):
    reopen, plan = trained
    before = weights(reopen(), plan)
    for number, unit in enumerate(reopen().units):
        image = read_image(unit.cases[0].inputs["image"])
        noise = np.random.default_rng(number).normal(size=image.voxels.shape).astype(np.float32)
        write_volume(unit.cases[0].inputs["image"][0], noise, image)
    with pytest.raises(UsageError, match=r"8 case\(s\) changed") as error:
        fit(reopen(), plan)
    assert error.value.hint == "autoseg plan_and_preprocess -d ToyLabels"
    fit(reopen(), plan_toy(reopen()))
    assert weights(reopen(), plan) != before


def test_a_changed_reference_is_scored_anew(trained):
    reopen, plan = trained
    name = reopen().folds()[0].validation[0]
    path = reopen().units_by_id[name].cases[0].targets["label"]
    before, _ = fit(reopen(), plan)
    reference = read_label_map(path)
    write_label_map(path, reference.voxels[0][::-1], reference)
    after, _ = fit(reopen(), plan_toy(reopen()))
    scores = [next(r.scores["mean.dice"] for r in report.records if r.unit == name) for report in (before, after)]
    assert scores[0] != scores[1]


def test_a_run_of_an_earlier_plan_of_the_same_name_is_not_bundled(trained):
    reopen, plan = trained
    other = pipeline.plan(reopen(), Budget("cpu", 4 * 2**30, minutes=0.002, threads=1, device="test"),
                          PlanRequest("toy", "default", seed=5), executor=None)
    pipeline.preprocess(reopen(), other, (), executor=None)
    assert pipeline.all_runs(reopen(), other) == []
    _, bundle = fit(reopen(), other, "1")
    assert [member.fold for member in bundle.members] == ["1"]


def test_folds_are_made_anew_when_cases_come_or_go(trained):
    reopen, _ = trained
    case = reopen().units[0].cases[0]
    added = [path.with_name("p9_scan9.nii.gz") for path in (case.inputs["image"][0], case.targets["label"])]
    shutil.copy(case.inputs["image"][0], added[0])
    shutil.copy(case.targets["label"], added[1])
    assert all("p9_scan9" in (*fold.train, *fold.validation) for fold in reopen().folds())
    for path in added:
        path.unlink()
    assert not any("p9_scan9" in (*fold.train, *fold.validation) for fold in reopen().folds())


def test_edited_folds_that_lack_a_case_are_refused(trained):
    reopen, _ = trained
    splits = read_value(reopen().layout.splits, Splits)
    shorter = replace(splits.folds[0], train=splits.folds[0].train[1:])
    write_value(reopen().layout.splits, replace(splits, folds=(shorter, *splits.folds[1:])))
    with pytest.raises(DatasetError, match=r"splits\.json was edited and does not fit the 8 cases"):
        reopen().folds()


def test_predictions_never_go_into_the_folder_of_the_images(trained):
    reopen, plan = trained
    before = first_image(reopen()).read_bytes()
    for source in (reopen().data / "images", first_image(reopen())):
        with pytest.raises(UsageError, match="would overwrite"):
            pipeline.predict(reopen().layout.bundle(plan.name), source, reopen().data / "images", Context(),
                             trusted_task=None, progress=silent)
    assert first_image(reopen()).read_bytes() == before


def test_planning_another_configuration_keeps_the_first(trained):
    reopen, plan = trained
    flat = pipeline.plan(reopen(), plan.budget, PlanRequest("toy", "default", ("2d",)), executor=None)
    assert set(flat.configurations) == set(plan.configurations)


def test_a_misspelt_task_option_is_refused_before_anything_is_done(tmp_path):
    text = SPECS["segmentation"] + "options: {surface_tolerence_mm: 2.0}\n"
    (tmp_path / "spec.yaml").write_text(text)
    write_cases(tmp_path, "segmentation")
    with pytest.raises(IncompatibleError, match="surface_tolerence_mm.*Did you mean 'surface_tolerance_mm'"):
        plan_toy(open_toy("segmentation", tmp_path, tmp_path / "home"))


@pytest.mark.parametrize("name", ["nnunt", "defaults", "../../x", "a/b"])
def test_a_plan_name_that_is_misspelt_or_a_path_is_refused(trained, name, capsys):
    reopen, _ = trained
    assert command(["plan", "-d", "ToyLabels", "--plan", name, "--target", "cpu", "--root", str(reopen().layout.root)]) == 2
    assert "a plan cannot be called" in capsys.readouterr().err


def test_one_model_on_all_data_is_trained_bundled_and_reported(trained, capsys):
    reopen, plan = trained
    root = str(reopen().layout.root)
    write_value(reopen().layout.folder / "last.json", {"plan": plan.name})
    assert command(["plan", "-d", "ToyLabels", "--explain", "--root", root, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["name"] == plan.name
    assert command(["train", "-d", "ToyLabels", "-f", "all", "--root", root, "--json"]) == 0
    capsys.readouterr()
    bundle = json.loads((reopen().layout.bundle(plan.name) / "bundle.json").read_text())
    assert [member["fold"] for member in bundle["members"]] == ["all"]
    shutil.rmtree(reopen().layout.run(plan.name, CONFIGURATION, "0"))
    assert command(["train", "-d", "ToyLabels", "-f", "all", "--root", root]) == 0
    assert "has no validation cases" in reopen().layout.report.read_text()


def test_a_case_that_is_there_twice_fails_alone_and_new_ids_need_not_name_a_patient(trained, tmp_path):
    reopen, plan = trained
    (tmp_path / "in").mkdir()
    image = read_image([first_image(reopen())])
    for name in ("twin.nrrd", "twin.mha", "good.mha"):
        write_volume(tmp_path / "in" / name, image.voxels, image)
    manifest = pipeline.predict(reopen().layout.bundle(plan.name), tmp_path / "in", tmp_path / "out", Context(),
                                trusted_task=None, progress=silent)
    assert set(manifest.finished) == {"good"} and {failure.unit for failure in manifest.failures} == {"twin"}
