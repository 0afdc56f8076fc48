from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from autoseg import pipeline
from autoseg.core.budget import Budget
from autoseg.core.errors import IncompatibleError, ReadError
from autoseg.core.networks import Start
from autoseg.core.plan import Durations
from autoseg.core.progress import silent
from autoseg.core.task import Context, PlanRequest
from autoseg.io.atomic import sha256_file
from autoseg.io.images import read_geometry, read_image
from autoseg.io.store import Store
from autoseg.nn.weights import save_weights
from autoseg.stages.preprocess import run_preprocess
from autoseg.stages.train import fresh_network, run_train, seeded_network
from autoseg.stages.trained import finished_runs
from autoseg.training.loop import Interrupted


def shortened(plan, name, iterations):
    """The plan with fewer iterations; everything else as planned."""
    configuration = plan.configuration(name)
    short = replace(configuration, optimization=replace(configuration.optimization, iterations=iterations,
                                                        iterations_per_epoch=1))
    return replace(plan, configurations={name: short})


@pytest.mark.parametrize("name", ["3d_fullres", "2d"])
def test_nnunets_plan_trains_and_validates(toy, name):
    budget = Budget("cpu", 8 * 10**9)
    plan = pipeline.plan(toy.workspace, budget, PlanRequest("nnunet", "nnunet"), executor=None)
    plan = shortened(plan, name, 2)
    pipeline.preprocess(toy.workspace, plan, [name], executor=None)
    run = pipeline.make_run(toy.workspace, plan, name, "0")
    report = run_train(run, device="cpu", workers=0, progress=silent, should_stop=lambda: False)
    assert {record.unit for record in report.records} == set(toy.workspace.folds()[0].validation)
    assert run.configuration.network.deep_supervision and run.configuration.optimization.optimizer == "sgd"


def test_fold_all_trains_on_every_case_and_has_no_validation(toy, tmp_path):
    plan = shortened(toy.plan, "3d_fullres", 2)
    run = replace(pipeline.make_run(toy.workspace, plan, "3d_fullres", "all"), folder=tmp_path)
    report = run_train(run, device="cpu", workers=0, progress=silent, should_stop=lambda: False)
    assert len(run.fold.train) == len(toy.workspace.units) and report.records == ()


def test_slices_of_a_2d_model_are_predicted_on_the_grid_of_the_input(toy, tmp_path):
    plan = shortened(toy.plan, "2d", 3)
    pipeline.train(toy.workspace, plan, "2d", "1", device="cpu", workers=0, should_stop=lambda: False)
    bundle = pipeline.select(toy.workspace, plan)
    assert {member.configuration for member in bundle.members} == {"2d"}
    pipeline.predict(toy.workspace.layout.bundle("toy"), toy.folder / "images", tmp_path, Context(mirror=True),
                     trusted_task=None, progress=silent)
    for unit in toy.workspace.units:
        source = unit.cases[0].inputs["image"][0]
        assert read_geometry(tmp_path / source.name) == read_geometry(source)
        assert set(np.unique(read_image([tmp_path / source.name]).voxels)) <= {0.0, 3.0, 7.0}


def test_an_interrupted_run_goes_on_and_ends_with_the_same_weights(toy, tmp_path):
    plan = shortened(toy.plan, "3d_fullres", 6)
    base = pipeline.make_run(toy.workspace, plan, "3d_fullres", "0")
    whole = replace(base, folder=tmp_path / "whole")
    run_train(whole, device="cpu", workers=0, progress=silent, should_stop=lambda: False)
    parts, asked = replace(base, folder=tmp_path / "parts"), []
    with pytest.raises(Interrupted):
        run_train(parts, device="cpu", workers=0, progress=silent, should_stop=lambda: asked.append(1) or len(asked) > 3)
    run_train(parts, device="cpu", workers=0, progress=silent, should_stop=lambda: False)
    weights = [(run.folder / "training" / "model.safetensors").read_bytes() for run in (whole, parts)]
    assert weights[0] == weights[1]


def test_another_plan_trains_anew_instead_of_taking_the_old_weights(toy, tmp_path):
    base = pipeline.make_run(toy.workspace, shortened(toy.plan, "3d_fullres", 2), "3d_fullres", "0")
    first, other = replace(base, folder=tmp_path), replace(base, folder=tmp_path, plan=replace(base.plan, seed=1))
    weights = []
    for run in (first, other):
        run_train(run, device="cpu", workers=0, progress=silent, should_stop=lambda: False)
        weights.append((tmp_path / "training" / "model.safetensors").read_bytes())
    assert weights[0] != weights[1]
    assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == [other.inputs_hash()[:16]]


def test_predicted_seconds_make_no_other_run_of_a_plan_without_minutes(toy):
    """They differ on another machine, and its training would be thrown away else."""
    budget = replace(toy.plan.budget, minutes=None)
    run = pipeline.make_run(toy.workspace, replace(toy.plan, budget=budget), "3d_fullres", "0")
    measured = replace(run.configuration, predicted_seconds=Durations(1.0, 2.0, 3.0, 4.0))
    longer = shortened(toy.plan, "3d_fullres", 99).configuration("3d_fullres")
    assert replace(run, configuration=measured).inputs_hash() == run.inputs_hash()
    assert replace(run, configuration=longer).inputs_hash() != run.inputs_hash()


class BrokenStore:
    """A store that gives nan for the images of one case."""

    def __init__(self, store, case_id):
        self._store, self._case_id = store, case_id

    def __getattr__(self, name):
        return getattr(self._store, name)

    def array(self, case_id, name, box=None):
        found = self._store.array(case_id, name, box)
        return np.full_like(found, np.nan) if (case_id, name) == (self._case_id, "image") else found


def test_steps_with_a_broken_case_are_skipped_and_the_report_says_so(toy, tmp_path, caplog):
    base = pipeline.make_run(toy.workspace, shortened(toy.plan, "3d_fullres", 12), "3d_fullres", "0")
    broken = base.fold.train[0]
    run = replace(base, folder=tmp_path, store=BrokenStore(base.store, broken))
    report = run_train(run, device="cpu", workers=0, progress=silent, should_stop=lambda: False)
    skipped = sum("the step is skipped" in message for message in caplog.messages)
    assert 0 < skipped < 12
    assert all(f"what the batch holds of {broken} is not finite" in message for message in caplog.messages
               if "the step is skipped" in message)
    assert report.notes["skipped"].startswith(f"{skipped} of 12 training steps were skipped")
    assert all(np.isfinite(array).all() for array in load_file(tmp_path / "training" / "model.safetensors").values())


def test_a_stop_during_validation_keeps_what_is_done(toy, tmp_path):
    run = replace(pipeline.make_run(toy.workspace, shortened(toy.plan, "3d_fullres", 1), "3d_fullres", "0"), folder=tmp_path)
    asked = []
    with pytest.raises(Interrupted, match="1 of 2 validation cases"):
        run_train(run, device="cpu", workers=0, progress=silent, should_stop=lambda: asked.append(1) or len(asked) > 2)
    assert len(list((tmp_path / "validation").glob("*/scores.json"))) == 1
    report = run_train(run, device="cpu", workers=0, progress=silent, should_stop=lambda: False)
    assert len(report.records) == 2


def flip(path, place=-9):
    """Turns one bit of a file; its size stays."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def finished(run):
    """The bytes of a run's weights after training it."""
    run_train(run, device="cpu", workers=0, progress=silent, should_stop=lambda: False)
    return (run.folder / "training" / "model.safetensors").read_bytes()


def test_damaged_final_weights_are_noticed_and_come_back_from_the_checkpoint(toy, tmp_path, caplog):
    run = replace(pipeline.make_run(toy.workspace, shortened(toy.plan, "3d_fullres", 2), "3d_fullres", "0"), folder=tmp_path)
    whole = finished(run)
    flip(tmp_path / "training" / "model.safetensors")
    assert finished_runs([run]) == []
    assert "model.safetensors is missing or differs from what was written" in caplog.text
    assert finished(run) == whole and len(finished_runs([run])) == 1


def test_a_checkpoint_of_another_fold_is_passed_over(toy, tmp_path, caplog):
    plan = shortened(toy.plan, "3d_fullres", 3)
    runs = [replace(pipeline.make_run(toy.workspace, plan, "3d_fullres", fold), folder=tmp_path / fold) for fold in "01"]
    whole = [finished(run) for run in runs]
    shutil.rmtree(runs[1].folder / "training")
    for path in runs[1].checkpoints.iterdir():
        path.unlink()
    for path in runs[0].checkpoints.iterdir():
        shutil.copy(path, runs[1].checkpoints)
    assert finished(runs[1]) == whole[1] != whole[0]
    assert "it belongs to another run or fold" in caplog.text and "TRAINING BEGINS ANEW" in caplog.text


def test_training_on_a_damaged_case_stops_with_the_command_that_mends_it(toy, tmp_path):
    plan = shortened(toy.plan, "3d_fullres", 2)
    run = pipeline.make_run(toy.workspace, plan, "3d_fullres", "0")
    whole = finished(replace(run, folder=tmp_path / "whole"))
    shutil.copytree(toy.store.folder, tmp_path / "store")
    for name in run.fold.train:
        [path] = (tmp_path / "store").glob(f"{name}.label.*")
        flip(path)
    damaged = replace(run, folder=tmp_path / "run", store=Store(tmp_path / "store"))
    with pytest.raises(ReadError, match=r"\.label\..* differs from what was stored") as stopped:
        finished(damaged)
    assert stopped.value.code == "E_STORE_DAMAGED" and "autoseg plan_and_preprocess" in stopped.value.hint
    store = run_preprocess(toy.task, toy.workspace.spec, toy.workspace.units, plan, run.configuration, tmp_path / "store",
                           executor=None, progress=silent)
    assert finished(replace(damaged, store=store)) == whole


def test_training_starts_from_the_weights_beside_the_plan_and_refuses_others(toy, tmp_path):
    plan = shortened(toy.plan, "3d_fullres", 1)
    fresh = replace(pipeline.make_run(toy.workspace, plan, "3d_fullres", "0"), folder=tmp_path / "run", plan_folder=tmp_path)
    given = seeded_network(replace(fresh, fold_name="1"))
    save_weights(tmp_path / "start.safetensors", given)
    start = Start("start.safetensors", sha256_file(tmp_path / "start.safetensors"), ("encoder.",))
    run = replace(fresh, configuration=replace(fresh.configuration, start=start))
    assert run.inputs_hash() != fresh.inputs_hash()
    begun, seeded, source = (network.state_dict() for network in (fresh_network(run), seeded_network(run), given))
    taken = [name for name in source if name.startswith("encoder.")]
    assert 0 < len(taken) < len(source)
    assert all(torch.equal(begun[name], (source if name in taken else seeded)[name]) for name in source)
    trained = finished(run)
    flip(tmp_path / "start.safetensors")
    assert finished(run) == trained  # what is trained needs its start no more
    with pytest.raises(IncompatibleError, match=r"start\.safetensors.*is missing or another file") as caught:
        finished(replace(run, folder=tmp_path / "again"))
    assert caught.value.code == "E_START"
