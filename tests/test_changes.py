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
from autoseg.workspace import Source, open_workspace

CONFIGURATION = "3d_fullres"


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A toy dataset with one trained fold, for copies, and its plan."""
    folder = tmp_path_factory.mktemp("once")
    (folder / "spec.yaml").write_text(SPECS["segmentation"])
    write_cases(folder, "segmentation")
    workspace = open_toy("segmentation", folder, folder / "home")
    plan = plan_toy(workspace)
    fit(workspace, plan)
    return folder, plan


@pytest.fixture
def trained(once, tmp_path):
    """A toy dataset of its own with one trained fold: what opens it anew, and the plan."""
    folder, plan = once
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    home = tmp_path / "home"
    write_value(home / "ToyLabels" / "source.json", Source(str(tmp_path)))
    return lambda: open_toy("segmentation", tmp_path, home), plan


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
    workspace = open_workspace(tmp_path / "home", str(folder), None, silent)
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
    with pytest.raises(IncompatibleError, match=r"8 case\(s\) changed.*p0_scan0") as error:
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
        with pytest.raises(UsageError, match="would lie among the images"):
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


def edit_json(path, change):
    """Changes a JSON file as a user with an editor would."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_an_edited_plan_is_refused_with_what_was_edited_until_it_is_made_anew(trained, capsys):
    reopen, plan = trained
    path = reopen().layout.plan(plan.name) / "plan.json"
    edit_json(path, lambda document: document["configurations"][CONFIGURATION].update(batch_size=7))
    at = ["-d", "ToyLabels", "--root", str(reopen().layout.root)]
    for verb in ("train", "report"):
        assert command([verb, *at, "--plan", plan.name]) == 5
        message = capsys.readouterr().err
        assert f"configurations.{CONFIGURATION}.batch_size was {plan.configuration(CONFIGURATION).batch_size} and is 7" in message
        assert "plan_and_preprocess" in message
    assert plan_toy(reopen()) == reopen().plan(plan.name) == plan


def test_a_plan_of_ones_own_needs_a_name_of_its_own(trained):
    reopen, plan = trained
    own = reopen().layout.plan("own")
    shutil.copytree(reopen().layout.plan(plan.name), own)
    (own / "done.json").unlink()
    with pytest.raises(IncompatibleError, match="its name is 'toy'"):
        reopen().plan("own")
    edit_json(own / "plan.json", lambda document: document.update(name="own", seed=3))
    assert (reopen().plan("own").name, reopen().plan("own").seed) == ("own", 3)


def test_an_edited_fingerprint_is_refused_until_it_is_measured_anew(trained):
    reopen, plan = trained
    path = reopen().layout.fingerprint / "fingerprint.json"
    before = path.read_text()
    edit_json(path, lambda document: document["spacings_mm"][0].__setitem__(0, 9.0))
    with pytest.raises(IncompatibleError, match="fingerprint.json was edited after the dataset was measured") as caught:
        fit(reopen(), plan)
    assert caught.value.exit_code == 5
    plan_toy(reopen())
    assert path.read_text() == before


def test_a_plan_of_other_measurements_is_refused(trained):
    reopen, plan = trained
    image = read_image([first_image(reopen())])
    write_volume(first_image(reopen()), image.voxels * 3, image)
    pipeline.plan(reopen(), plan.budget, PlanRequest("later", "default"), executor=None)
    with pytest.raises(IncompatibleError, match=r"'toy' follows from other measurements.*8 cases\): cases came, went") as caught:
        fit(reopen(), plan)
    assert caught.value.exit_code == 5 and caught.value.hint == "autoseg plan_and_preprocess -d ToyLabels"
    fit(reopen(), plan_toy(reopen()))


@pytest.mark.parametrize("name", ["plan.json", "fingerprint.json"])
def test_files_of_a_newer_version_are_refused_as_such(trained, name):
    reopen, plan = trained
    folder = reopen().layout.plan(plan.name) if name == "plan.json" else reopen().layout.fingerprint
    edit_json(folder / name, lambda document: document.update(format=99, a_new_key=1))
    (folder / "done.json").unlink()
    with pytest.raises(IncompatibleError, match=r"has format 99, and this autoseg understands \d and older") as caught:
        fit(reopen(), reopen().plan(plan.name))
    assert (caught.value.code, caught.value.exit_code) == ("E_NEWER_FORMAT", 5) and "update autoseg" in str(caught.value)


def test_a_plan_of_an_older_version_trains_as_before(trained):
    reopen, plan = trained
    path = reopen().layout.plan(plan.name) / "plan.json"

    def older(document):
        del document["fingerprint"], document["specification"], document["format"]

    edit_json(path, older)
    (path.parent / "done.json").unlink()
    found = reopen().plan(plan.name)
    assert replace(found, fingerprint=plan.fingerprint, specification=plan.specification) == plan
    assert pipeline.make_run(reopen(), found, CONFIGURATION, "0").inputs_hash() == pipeline.make_run(
        reopen(), plan, CONFIGURATION, "0").inputs_hash()
