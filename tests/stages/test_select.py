from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from autoseg.core.errors import UsageError
from autoseg.core.progress import silent
from autoseg.core.report import Record, Report
from autoseg.core.task import Context
from autoseg.io.images import read_label_map, write_label_map
from autoseg.stages.prepare import read_inputs
from autoseg.stages.refine import decide_refinements
from autoseg.stages.select import best_configuration, members_of, run_select
from autoseg.stages.trained import Trained
from autoseg.tasks.segmentation.target import Segmentation, read_target


def trained(toy, task, folder, change):
    """A run whose validation predictions are the references, changed by `change(label, unit number)`."""
    records = []
    for number, unit in enumerate(toy.workspace.units[:3]):
        reference = read_label_map(unit.cases[0].targets["label"])
        label = change(reference.voxels[0].copy(), number)
        path = folder / "validation" / unit.id / f"{unit.id}.nii.gz"
        path.parent.mkdir(parents=True)
        write_label_map(path, label, reference)
        image = read_inputs(unit, toy.workspace.spec)["image"]
        scores = task.score(task.read_prediction(path, toy.workspace.spec), task.read_target(unit, toy.workspace.spec),
                            toy.workspace.spec, image)
        records.append(Record(unit.id, scores))
    return Trained("3d_fullres", "0", folder, Report(tuple(records), {}))


def test_post_processing_that_destroys_true_blobs_is_not_kept(toy, tmp_path):
    run = trained(toy, toy.task, tmp_path, lambda label, number: label)
    decisions = decide_refinements(toy.task, toy.workspace.spec, toy.workspace.units_by_id, [run], silent)
    assert decisions.refinements == ()
    assert len(decisions.because) == 3 and all("not kept" in line for line in decisions.because)


def one_blob(unit, spec):
    label = np.zeros(read_target(unit, spec).label.shape, np.uint8)
    label[4:9, 4:9, 4:9] = 1
    return Segmentation(label)


def blob_with_an_island(label, number):
    label[:] = 0
    label[4:9, 4:9, 4:9] = 7
    label[12, 16:18, 18:20] = 7
    return label


def test_post_processing_that_removes_false_islands_is_kept(toy, tmp_path):
    task = replace(toy.task, read_target=one_blob)
    run = trained(toy, task, tmp_path, blob_with_an_island)
    decisions = decide_refinements(task, toy.workspace.spec, toy.workspace.units_by_id, [run], silent)
    assert decisions.refinements == ("largest_component.foreground",)


def reports(**means):
    return [Trained(name, "0", None, Report((Record("a", {"mean.dice": value}),), {})) for name, value in means.items()]


def test_the_configuration_with_the_best_headline_wins_and_ties_go_to_the_first(toy):
    assert best_configuration(toy.task, reports(flat=0.7, full=0.8)) == "full"
    assert best_configuration(toy.task, reports(flat=0.8, full=0.8)) == "flat"


def test_configurations_without_a_common_fold_are_compared_on_what_each_has(toy):
    runs = reports(flat=0.7)
    runs += [Trained("full", "1", None, Report((Record("b", {"mean.dice": 0.9}),), {}))]
    assert best_configuration(toy.task, runs) == "full"


def test_a_model_on_all_data_replaces_some_folds_but_not_all_of_them():
    folds = [Trained("full", str(number), None, Report((), {})) for number in range(4)]
    whole = Trained("full", "all", None, Report((), {}))
    assert members_of([folds[0], whole], 4) == [whole]
    assert members_of([*folds, whole], 4) == folds
    assert members_of(folds[:2], 4) == folds[:2]


def test_selecting_before_training_says_what_to_type(toy, tmp_path):
    with pytest.raises(UsageError) as error:
        run_select(toy.task, toy.workspace.spec, toy.plan, toy.workspace.fingerprint, {}, [], tmp_path, fold_count=4,
                   baseline=None, context=Context(), progress=silent)
    assert error.value.hint == "autoseg train -d ToyLabels"


@pytest.mark.parametrize(("cheap", "is_used", "behind", "warned"), [
    (0.9, False, True, True), (0.9, True, True, False), (0.0, False, False, False)])
def test_a_network_behind_the_baseline_is_warned_of_unless_the_bundle_takes_that_in(
        toy, tmp_path, caplog, monkeypatch, cheap, is_used, behind, warned):
    run = trained(toy, toy.task, tmp_path / "run", blob_with_an_island)
    (tmp_path / "run" / "training").mkdir()
    save_file({"weight": np.zeros(1, np.float32)}, tmp_path / "run" / "training" / "model.safetensors")
    baseline = Report(tuple(replace(record, scores=dict.fromkeys(record.scores, cheap)) for record in run.report.records), {})
    arrays = {"mean": np.zeros(1)} if is_used else None
    monkeypatch.setattr("autoseg.stages.select.bundle_baseline", lambda *_: arrays)
    made = run_select(toy.task, toy.workspace.spec, toy.plan, toy.workspace.fingerprint, toy.workspace.units_by_id, [run],
                      tmp_path / "bundle", fold_count=4, baseline=baseline, context=Context(), progress=silent)
    assert ("scores higher than the network: mean.dice 0.900 and 0." in made.card) == behind
    assert ("Do not rely on the network" in caplog.text) == warned
